"""The interface of a tracker, what it receives, and the guard that keeps its failures from the run."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from textwrap import shorten
from typing import Any, Protocol

from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
from tl_runner.training.checkpoint_selection import Evidence
from tl_runner.training.loop import SOURCE_MODEL, Point

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What shows a run elsewhere."""

    def point(self, point: Point) -> None:
        """The next point of the run."""
        ...

    def end(self, record: RunRecord) -> None:
        """The run is over, well or not: the record says which."""
        ...


class Guarded:
    """Wraps a tracker so that it can't stop its run: the first error is logged, and the run continues without it.

    Raises `UserError` when it is made, if the tracker's library is not installed or an option is out of range.
    """

    def __init__(self, part: Callable[[RunRecord], Tracker], record: RunRecord):
        function = getattr(part, "func", part)  # which config.load_parts has bound to its options
        self.name = getattr(function, "__name__", type(function).__name__)
        self._tracker: Tracker | None = None
        with self._guard():
            self._tracker = part(record)

    @property
    def alive(self) -> bool:
        """Whether it has not failed so far."""
        return self._tracker is not None

    def point(self, point: Point) -> None:
        """Pass it on, but those of the source model, whose steps are others and which other runs share."""
        if self._tracker and point.phase != SOURCE_MODEL:
            with self._guard(refuses=False):
                self._tracker.point(point)

    def end(self, record: RunRecord) -> None:
        if self._tracker:
            with self._guard(refuses=False):
                self._tracker.end(record)

    @contextmanager
    def _guard(self, refuses: bool = True) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if refuses and isinstance(error, UserError):
                raise
            self._tracker = None
            told = shorten(str(error), 300)  # a database adds its statement and all values in it
            log.warning(
                "the tracker %s failed: %s: %s. The run continues without it", self.name, type(error).__name__, told
            )


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Imports of what this package installs only with an extra; raises `UserError` where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f'tracker={extra} needs {error.name}, which is not installed: pip install "tl_runner[{extra}]",'
            " or set tracker=none"
        ) from error


class SentSteps:
    """The steps that a tracker has of a run, so that it gets each once, whatever happened to the run.

    The first point here shows whether the run is resumed or begins anew, and what a killed process had not sent.
    """

    def __init__(self, record: RunRecord, steps: Iterable[int] = ()):
        self._record = record
        self._steps = set(steps)
        self.begun = False

    @property
    def last(self) -> int:
        """The last step that was sent; 0 before the first."""
        return max(self._steps, default=0)

    def begins_anew(self, point: Point) -> bool:
        """Whether what was sent before is of a run in whose place this one is made; it is then forgotten."""
        anew = not self.begun and bool(self._steps) and point.step <= min(self._steps)
        if anew:
            self._steps.clear()
        return anew

    def complete(self, point: Point) -> list[Point]:
        """The points to send by now: this one, at first after those of the curve that are missing before it."""
        before = [] if self.begun else [each for each in read_curve(self._record) if each.step < point.step]
        self.begun = True
        new = [each for each in (*before, point) if each.step not in self._steps]
        self._steps |= {each.step for each in new}
        return new

    def rest(self) -> list[Point]:
        """The points to send when the run has ended: none, but where it was killed after its last point and resumed."""
        kept = [] if self.begun else list(read_curve(self._record))
        return self.complete(kept[-1]) if kept else []


def read_curve(record: RunRecord) -> Iterator[Point]:
    """The points that a run has kept so far, up to half a line of a killed process."""
    file = record.folder / "curve.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            kept = json.loads(line)
        except ValueError:
            return
        known = {name: kept[name] for name in Evidence._fields if name in kept}
        evidence = Evidence(**known) if "source_val" in kept else None
        yield Point(kept["step"], 0, kept["terms"], 0, seconds=kept["seconds"], evidence=evidence)


def flatten_configuration(record: RunRecord) -> dict[str, Any]:
    """What was typed: the configuration by dotted names, and the option of each group; without the tracker's own."""
    config = flatten_leaves({name: value for name, value in record.config.items() if name != "tracker"})
    return {**config, **record.choices}


def name_place(record: RunRecord) -> str:
    """The run's id and its folder's: elsewhere there may be others' runs of the same identity."""
    return f"{record.id}-{hashlib.sha256(bytes(record.folder.resolve())).hexdigest()[:8]}"


def name_group(record: RunRecord) -> str:
    """Common to the seeds of a setting."""
    return f"{record.choices['method']}-{record.choices['backbone']}-{record.setting}"


def scalars(point: Point) -> dict[str, float]:
    """The numbers of a point that are drawn over steps, by the names that the curve has for them."""
    known = point.evidence._asdict() if point.evidence else {}
    drawn = (
        "source_val",
        "floor",
        "information",
        "entropy",
        "classes_used",
        "nuclear_norm",
        "calibrated_norm",
        "density",
        "risk",
        "a_distance",
    )
    evidence = {name: known[name] for name in drawn if known.get(name) is not None}
    return {
        **{_make_name_safe(f"terms/{name}"): value for name, value in point.terms.items()},
        **evidence,
        "seconds": point.seconds,
    }


def final(record: RunRecord) -> dict[str, float]:
    """The scores of a finished run, as `scores/target.accuracy`."""
    known = flatten_leaves(asdict(record.scores)) if record.scores else {}
    return {f"scores/{name}": float(value) for name, value in known.items() if value is not None}


def flatten_leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by their dotted path."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree} if path else {}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in flatten_leaves(value, f"{path}.{key}" if path else key).items()
    }


def _make_name_safe(name: str) -> str:
    """As MLflow takes it: a term has the name that its method likes."""
    return re.sub(r"[^\w/.\- :]", "_", name)
