"""TensorBoard: a folder of event files per run, below outputs/tensorboard."""

from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner.storage.record import RunRecord
from tl_runner.trackers.tracker import Tracker, final, needed, scalars
from tl_runner.training.loop import Point

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def tensorboard(record: RunRecord) -> Tracker:
    """Event files in `<outputs>/tensorboard/<dataset>/<name of the run's folder>`."""
    with needed("tensorboard"):
        import torch.utils.tensorboard  # noqa: F401
    return EventFiles(record.outputs / "tensorboard" / record.folder.parent.name / record.folder.name)


class EventFiles:
    """Event files that begin at the run's first point here.

    What was drawn from that step on, by a process that was killed or before the run began anew, TensorBoard forgets.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def point(self, point: Point) -> None:
        writer = self._writer = self._writer or self._begin(point.step)
        for name, value in scalars(point).items():
            writer.add_scalar(name, value, point.step)
        writer.flush()  # it takes 0.2 ms, and a process that is killed then loses no point

    def end(self, record: RunRecord) -> None:
        if record.scores:
            writer = self._writer = self._writer or self._begin(None)  # it was interrupted after its last point
            for name, value in final(record).items():
                writer.add_scalar(name, value, record.scores.last["step"])
        if self._writer:
            self._writer.close()

    def _begin(self, step: int | None) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder), purge_step=step)
