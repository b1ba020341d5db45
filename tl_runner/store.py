"""A run on disk: its record, its folder. Everything is written whole; nothing here needs torch.

A run's identity is that of its composed configuration, without what cannot change its numbers. Same identity, same
folder.
"""

import json
import logging
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tl_runner.atomic import write
from tl_runner.errors import Diverged, Refused
from tl_runner.identity import identify, leaves, stamp

if TYPE_CHECKING:
    from tl_runner.train import Point

# Keys that do not change a run's numbers (or, as device and threads, only their last bits: `where` has them).
NEUTRAL = {"device", "threads", "outputs", "save", "force"}
LIBRARIES = ("tl_runner", "torch", "torchvision", "numpy", "scikit-learn")

Status = Literal["running", "ok", "failed", "diverged"]


@dataclass
class RunRecord:
    """One run, as `run.json` holds it; `setting` is its identity without the seed."""

    id: str
    setting: str
    choices: dict[str, str]
    seed: Any
    granted: Any
    config: dict[str, Any]
    status: Status = "running"
    scores: dict[str, Any] | None = None
    seconds: float | None = None
    error: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    found: Path | None = None  # the folder that it was read from, which may have been moved; not in the file

    @property
    def folder(self) -> Path:
        if self.found:
            return self.found
        name = "-".join(
            [_plain(self.choices["method"]), _plain(self.choices["backbone"]), f"s{_plain(str(self.seed))}"]
        )
        return self.outputs / "runs" / _plain(self.choices["dataset"]) / f"{name}-{self.id}"

    @property
    def baseline(self) -> str:
        """The method to compare with: source_only, or where the source has other classes or no rows target_only."""
        return "source_only" if self.scores and self.scores["source"] else "target_only"

    @property
    def outputs(self) -> Path:
        return Path(str(self.config.get("outputs") or "outputs"))


def describe(config: dict[str, Any], choices: Mapping[str, str]) -> RunRecord:
    """The record of a composed configuration, before its run. Any configuration has one, a wrong one too."""
    numbers = {key: value for key, value in config.items() if key not in NEUTRAL}
    if isinstance(dataset := config.get("dataset"), dict):
        numbers["dataset"] = {key: value for key, value in dataset.items() if key != "download"}
    return RunRecord(
        id=identify(numbers),
        setting=identify({key: value for key, value in numbers.items() if key != "seed"}),
        choices=dict(choices),
        seed=config.get("seed"),
        granted=config.get("granted"),
        config=config,
    )


def finished(record: RunRecord) -> RunRecord | None:
    """The stored record of the same run, where it ended well."""
    try:
        stored = read(record.folder / "run.json")
    except (OSError, ValueError):
        return None  # none there, or none that can be read: the run is made again
    return stored if stored.status == "ok" else None


def records(paths: Iterable[Path]) -> tuple[list[RunRecord], list[str]]:
    """All runs in these folders, at any depth, oldest first, and what is wrong with files that can't be read.

    Of copies of a run one counts, one that ended well if there is any: a run is no more than one seed.
    """
    found: dict[str, RunRecord] = {}
    faults = []
    files = {file.resolve() for path in paths for file in ([path] if path.is_file() else path.rglob("run.json"))}
    for file in sorted(files, key=lambda file: (file.stat().st_mtime, file)):
        try:
            record = read(file)
        except (OSError, ValueError) as error:
            faults.append(f"{file} can't be read: {error}")
            continue
        if record.id in found:
            faults.append(f"{file.parent} is a copy of {found[record.id].folder}: counted once")
        if record.id not in found or found[record.id].status != "ok":
            found[record.id] = record
    return list(found.values()), faults


def read(file: Path) -> RunRecord:
    """A record from its file; raises `ValueError` if that is not what it holds."""
    content = json.loads(file.read_text())
    names = {entry.name for entry in fields(RunRecord)} - {"found"}
    kinds = {"id": str, "setting": str, "choices": dict, "config": dict, "status": str, "data": dict, "where": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("it is no record of a run")
    if not {"dataset", "backbone", "method"} <= content["choices"].keys() or content["status"] not in get_args(Status):
        raise ValueError("it is no record of a run")
    known = {"seed": None, "granted": None, **{name: value for name, value in content.items() if name in names}}
    return RunRecord(**known, found=file.parent)


class Recording:
    """The open folder of a run that is being made."""

    def __init__(self, record: RunRecord):
        self.record = record
        self.spare = finished(record) is not None
        self.folder = record.folder.with_name(f"{record.folder.name}.new") if self.spare else record.folder

    @property
    def cache(self) -> Path:
        """Where runs of the same outputs keep what they share."""
        return self.record.outputs / "cache"

    def open(self) -> None:
        """Begin in an empty folder, and say that the run is under way. A finished run stays until this one is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write(self.folder / "config.yaml", _yaml(self.record.config))
        self.save()

    def close(self) -> None:
        """The last word; in place of a finished run only if this one ended well too."""
        self.save()
        if self.spare and self.record.status == "ok":
            shutil.rmtree(self.record.folder)
            self.folder.rename(self.record.folder)
        elif self.spare:
            shutil.rmtree(self.folder)

    def save(self) -> None:
        entries = {name: value for name, value in asdict(self.record).items() if name != "found"}
        content = leaves(entries, _strict)
        write(self.folder / "run.json", json.dumps(content, indent=2, default=str, allow_nan=False).encode())

    def curve(self, point: "Point") -> None:
        """One more line of the curve: a flat object but for the terms, whose names are the method's."""
        line = {"step": point.step, "seconds": round(point.seconds, 3), "terms": dict(point.terms)}
        if point.evidence:
            line |= point.evidence._asdict()
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def tensors(self, name: str, tensors: Mapping[str, Any]) -> None:
        """A safetensors file without metadata, so that equal tensors make equal bytes."""
        from safetensors.torch import save

        write(self.folder / f"{name}.safetensors", save(dict(tensors)))


@contextmanager
def recording(record: RunRecord) -> Iterator[Recording]:
    """Keep the record of what happens inside, whatever that is: `ok`, `diverged` or `failed`, with its seconds."""
    files, started = Recording(record), time.monotonic()
    record.status, record.scores, record.error, record.data = "running", None, None, {}
    record.where = {**whereabouts(), "files": stamp(record.config.get("dataset"))}
    files.open()
    handler = logging.FileHandler(files.folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("tl_runner")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield files
        record.status = "ok"
    except BaseException as error:
        record.status = "diverged" if isinstance(error, Diverged) else "failed"
        record.error = str(error) if isinstance(error, Refused | Diverged) else f"{type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            record.error = "interrupted"
        log.exception("the run ended early")
        raise
    finally:
        record.seconds = round(time.monotonic() - started, 3)
        log.removeHandler(handler)
        handler.close()
        files.close()


def whereabouts() -> dict[str, Any]:
    """Versions, machine and git state of the working folder; the run adds device, threads and engine."""
    place: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    place["versions"] = {name: _version(name) for name in LIBRARIES}
    place["commit"] = _git("rev-parse", "HEAD")
    place["dirty"] = bool(_git("status", "--porcelain")) if place["commit"] else None
    return place


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        result = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here: the record then says null
    return result.stdout.strip() if result.returncode == 0 else None


def _yaml(config: Mapping[str, Any]) -> bytes:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode()


def _plain(name: str) -> str:
    """A name that stays inside its folder, whatever was typed."""
    return re.sub(r"[^\w.%+-]+", "_", name).lstrip(".")[:40] or "_"


def _strict(leaf: Any) -> Any:
    """As JSON can say it: a configuration may hold nan or inf, which are then words."""
    return str(leaf) if isinstance(leaf, float) and not isfinite(leaf) else leaf
