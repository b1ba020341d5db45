"""What a run stored, as its loaded model gives it."""

from safetensors.torch import load_file
from torch import Tensor

from tl_runner.storage.record import RunRecord


def calibrated(record: RunRecord, step: int | None = None) -> Tensor:
    """The probabilities on the test split at a step, the selected one if not said, at the temperature on record."""
    assert record.scores is not None
    step = int(record.scores.selected["step"]) if step is None else step
    found = load_file(record.folder / "predictions.safetensors")[f"step_{step}"]
    if record.training.temperature is None:
        return found
    return (found.double().clamp_min(1e-45).log() / record.training.temperature).softmax(-1).float()
