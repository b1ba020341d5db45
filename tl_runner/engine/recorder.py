"""A run's folder while it is being made. Everything is written whole; nothing here needs torch before it is used."""

import csv
import json
import logging
import pickle
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from functools import lru_cache
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_runner.errors import DivergedError, TimeLimitError, UserError
from tl_runner.storage import data_files
from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.contents import Contents
from tl_runner.storage.identity import map_leaves
from tl_runner.storage.provenance import collect_provenance, identify_maker
from tl_runner.storage.record import RunRecord, find_complete
from tl_runner.storage.sections import DataInfo, TrainingInfo
from tl_runner.storage.sheet import Sheet

if TYPE_CHECKING:
    from torch import Tensor

    from tl_runner.domains import Places
    from tl_runner.engine.progress import Progress
    from tl_runner.storage.checkpoint import Checkpoint
    from tl_runner.trackers.tracker import Guarded, Tracker
    from tl_runner.training.loop import Point


log = logging.getLogger(__name__)


class Recording:
    """The open folder of a run that is being made."""

    def __init__(self, record: RunRecord):
        self.record = record
        self.replaces_complete = find_complete(record) is not None
        self.place = record.folder.absolute()  # whatever working folder the run's own code changes to
        self.folder = self.place.with_name(f"{self.place.name}.new") if self.replaces_complete else self.place
        self.cache = record.cache
        self.contents = Contents(record.outputs)
        self.tracker: Guarded | None = None
        self.earlier = 0.0  # seconds that other processes gave to this run
        self._log: logging.Handler | None = None

    @property
    def features(self) -> Path:
        """Where runs with the same backbone keep the features of what they froze."""
        return self.cache / self.record.features

    def open(self) -> None:
        """Say that the run is under way, in an empty folder or, if there is a checkpoint, in what a process left there.

        A finished run stays until this one is.
        """
        resumable = any(self.folder.glob("checkpoint*.pt")) and not self.replaces_complete
        if self.record.config.get("force") or not resumable:
            shutil.rmtree(self.folder, ignore_errors=True)
        for rest in ("new", "old"):  # of an interrupted run with force=true
            shutil.rmtree(self.place.with_name(f"{self.place.name}.{rest}"), ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in self.folder.glob(".*"):  # written, and the process was killed
            half.unlink()
        write_atomically(self.folder / "config.yaml", _yaml(self.record.config))
        self.save()

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Within, what the package logs is this run's, and goes into its log."""
        if self._log is None:
            self._log = logging.FileHandler(self.folder / "run.log", encoding="utf-8", errors="backslashreplace")
            self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("tl_runner")
        if logger.level != logging.INFO:  # each time it is set, every logger of the process forgets its own
            logger.setLevel(logging.INFO)
        logger.addHandler(self._log)
        try:
            yield
        finally:
            logger.removeHandler(self._log)

    def log_within(self, points: "Generator[Point, None, None]") -> "Generator[Point, None, None]":
        """The same points; the run listens while they are made, and not while another run has its turn."""
        while True:
            with self.listen():
                point = next(points, None)
            if point is None:
                return
            try:
                yield point
            except BaseException as error:
                with self.listen():
                    points.throw(error)
                raise

    def close(self, over: bool) -> None:
        """The last word; in place of a finished run only if this one ended well too.

        `over`: the run has come to its end, good or bad, and needs its checkpoint no more.
        """
        try:
            self.save()
            if self.tracker:
                with self.listen():
                    self.tracker.end(self.record)
        finally:
            if self._log:
                self._log.close()
        if over:
            for file in self.folder.glob("checkpoint*.pt"):
                file.unlink()
        if self.replaces_complete and self.record.status == "ok":
            old = self.place.with_name(f"{self.place.name}.old")
            self.place.rename(old)  # emptied in its place, it would for a moment be half a run that says it is whole
            self.folder.rename(self.place)
            shutil.rmtree(old)
        elif self.replaces_complete:
            shutil.rmtree(self.folder)

    def note(self, **entries: Any) -> None:
        """Put what is known by now on record; a mapping holds fields of a section, and leaves its others."""
        for name, value in entries.items():
            section: Any = getattr(self.record, name)
            if isinstance(value, Mapping) and is_dataclass(section):
                setattr(self.record, name, replace(section, **value))  # pyright: ignore[reportArgumentType]
            else:
                setattr(self.record, name, value)

    def save(self) -> None:
        entries = {name: value for name, value in asdict(self.record).items() if name != "found"}
        content = map_leaves(entries, _strict)
        write_atomically(self.folder / "run.json", json.dumps(content, indent=2, default=str, allow_nan=False).encode())

    def open_checkpoint(self, every: float) -> "Checkpoint":
        """Of this run, written `every` so many seconds."""
        from tl_runner.storage.checkpoint import Checkpoint

        return Checkpoint(self.folder / "checkpoint.pt", every)

    def read_checkpoint(self, checkpoint: "Checkpoint") -> dict[str, Any] | None:
        """The checkpoint to resume from, if there is one and the curve is complete up to it."""
        state = checkpoint.load()
        if state and len(self._lines()) < state["cursor"]["points"]:
            log.warning("curve.jsonl ends before the checkpoint: starting over")
            return None
        return state

    def _lines(self) -> list[bytes]:
        """The lines of the curve, up to one that is none."""
        file, whole = self.folder / "curve.jsonl", []
        for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
            try:
                json.loads(line)
            except ValueError:
                break
            whole.append(line)
        return whole

    def identify_maker(self) -> dict[str, Any]:
        """By what code, on what machine, of what data the run is made: a checkpoint of another goes to waste."""
        return {**identify_maker(self.record.environment), "data": self.record.data.fingerprint}

    def confirm_data(self) -> None:
        """Raise if a data file changed since the run got its id, which is then wrong.

        Call it once the data has been read: later changes do not matter.
        """
        if data_files.hash_data(self.record.config.get("dataset"), self.contents).digest != self.record.data.files:
            raise UserError(
                "files of the dataset changed between the start of the command and the run's reading them."
                " Changed data is another run: rerun the command when nothing writes to them any more"
            )

    def track(self, part: "Callable[[RunRecord], Tracker]") -> None:
        """Show the run's points elsewhere too; raises `UserError` where the tracker's library is missing."""
        from tl_runner.trackers.tracker import Guarded

        self.tracker = Guarded(part, self.record)

    def resume_curve(self, progress: "Progress") -> None:
        """Cut the curve to what came before the progress: lines of later steps, or half a line, are made again."""
        cursor = progress.cursor
        if cursor.points:
            self.earlier = progress.seconds
            self.record.environment.resumed = cursor.step
        if (file := self.folder / "curve.jsonl").exists():
            write_atomically(file, b"".join(self._lines()[: cursor.points]))

    def append_point(self, point: "Point") -> None:
        """One more line of the curve: a flat object but for the terms, whose names are the method's."""
        line = {"step": point.step, "seconds": round(point.seconds, 3), "terms": dict(point.terms)}
        if point.evidence:
            line |= point.evidence._asdict()
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tracker:
            self.tracker.point(point)

    def write_test_predictions(self, by_step: "Mapping[int, Tensor]", places: "Places | None") -> None:
        """The probabilities on the test split by step, and where its rows are files or lines which, in their order."""
        self.write_tensors("predictions", {f"step_{step}": rows for step, rows in by_step.items()})
        if places:
            out = StringIO()
            csv.writer(out, lineterminator="\n").writerows([("path",), *((name,) for name in places.of_test)])
            write_atomically(self.folder / "test.csv", out.getvalue().encode("utf-8", "surrogateescape"))

    def write_all_predictions(self, places: "Places", probabilities: "Tensor", classes: Sequence[str]) -> None:
        """Every row of the target with these probabilities (n, C), in the order of its files and lines."""
        out = StringIO(newline="")
        Sheet(out, classes).add(places.names, probabilities.numpy())
        write_atomically(self.folder / "predictions.csv", out.getvalue().encode("utf-8", "surrogateescape"))

    def write_tokenizer(self, state: Mapping[str, Any]) -> None:
        """What rebuilds the tokenizer of texts, without which nobody can use the model."""
        write_atomically(self.folder / "tokenizer.json", json.dumps(state).encode())

    def write_tensors(self, name: str, tensors: Mapping[str, Any]) -> None:
        """A safetensors file without metadata, so that equal tensors make equal bytes; none of no tensors."""
        from safetensors.torch import save

        if tensors:
            packed = {key: tensor.contiguous() for key, tensor in tensors.items()}  # not so with train.channels_last
            write_atomically(self.folder / f"{name}.safetensors", save(packed))


@contextmanager
def open_recording(record: RunRecord) -> Iterator[Recording]:
    """Keep the record of what happens inside, whatever that is: `ok`, `diverged` or `failed`, with its seconds."""
    files, started, over = Recording(record), time.monotonic(), True
    record.status, record.scores, record.evidence, record.diagnosis, record.error = "running", None, None, None, None
    record.data, record.training = DataInfo(files=record.data.files, read=record.data.read), TrainingInfo()
    record.environment = collect_provenance()
    files.open()
    try:
        yield files
        record.status = "ok"
    except BaseException as error:
        record.status = "diverged" if isinstance(error, DivergedError) else "failed"
        over = isinstance(error, UserError | DivergedError)
        record.error = (
            str(error)
            if isinstance(error, UserError | DivergedError | TimeLimitError)
            else f"{type(error).__name__}: {error}"
        )
        if isinstance(error, KeyboardInterrupt | GeneratorExit):  # nothing is wrong with it: it is unfinished
            record.status, record.error = "running", "interrupted"
        with files.listen():
            log.info("interrupted") if record.status == "running" else log.exception("the run ended early")
        raise
    finally:
        record.seconds = round(files.earlier + time.monotonic() - started, 3)
        files.close(over)


def record_lost_process(record: RunRecord, error: str) -> None:
    """Put on record that the process which made this run is gone; its checkpoint stays."""
    if record.status == "running" and record.folder.is_dir():
        record.status, record.error = "failed", error
        Recording(record).save()


def _yaml(config: Mapping[str, Any]) -> bytes:
    return "".join(_yaml_of_key(pickle.dumps(item)) for item in config.items()).encode()


@lru_cache(maxsize=64)
def _yaml_of_key(pickled: bytes) -> str:
    """Of a key and its value, which most runs of a sweep have in common: each costs up to a millisecond."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict([pickle.loads(pickled)])))


def _strict(leaf: Any) -> Any:
    """As JSON can say it: a configuration may hold nan or inf, which are then words."""
    return str(leaf) if isinstance(leaf, float) and not isfinite(leaf) else leaf
