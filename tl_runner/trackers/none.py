"""No tracker: all of a run is in its folder."""

from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import Tracker
from tl_runner.training.loop import Point


class Nothing:
    """Shows nothing anywhere."""

    def point(self, point: Point) -> None:
        """Not shown."""

    def end(self, record: RunRecord) -> None:
        """Not shown."""


def none(record: RunRecord) -> Tracker:
    """No tracker: all of a run is in its folder."""
    return Nothing()
