"""The interface of a tracker, what it receives, and the guard that keeps its failures from the run."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from textwrap import shorten
from typing import Any, Protocol

from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord
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
