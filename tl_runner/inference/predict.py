"""Predictions for files, a portion at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.functional.estimated_accuracy import scale_temperature
from tl_runner.inference.load import Trained
from tl_runner.models.features import rows_per_batch
from tl_runner.preprocessing.batching import Input
from tl_runner.storage.record import RunRecord

OTHER = 0.01  # of a probability, or of a quantity's deviation: more than devices and libraries differ by on a row
TINY = 1e-12  # of a deviation: where all predictions are one, any difference counts


class Predicted(NamedTuple):
    """Class probabilities (n, C), or a quantity (n, 1), float32 on the CPU with the name of each row.

    `bad` says what could not be read, and why.
    """

    names: list[str]
    predicted: Tensor
    bad: dict[str, str]


class StoredComparison(NamedTuple):
    """Of `rows` predictions, how many name the `same` class, and the `largest` difference of a probability.

    Of a quantity: how many are within `OTHER` of the stored one, and the largest difference, both as shares of the
    stored predictions' deviation.
    """

    rows: int
    same: int
    largest: float


@torch.no_grad()
def predictions(trained: Trained, inputs: Sequence[Input]) -> Iterator[Predicted]:
    """What the model says of all inputs in order, on its device: class probabilities, or a quantity in its unit.

    As many at a time as an evaluation takes: memory does not grow with the number of files.
    """
    model, preprocessing, _ = trained
    model.eval()
    for names, x, bad in preprocessing.portions(inputs, rows_per_batch(preprocessing.numbers)):
        outputs = model(x.to(model.device)) if len(x) else torch.empty(0, model.task.outputs)
        found = model.task.predict(outputs).cpu()
        if not bool(torch.isfinite(found).all()):
            raise UserError("the model's predictions are not finite numbers")
        yield Predicted(names, found, bad)


def compare_with_stored(found: Tensor, record: RunRecord) -> StoredComparison:
    """How predictions (n, C) on the test split compare with what the run itself stored at its selected step.

    They are calibrated, as `load` makes the model, and what was stored is not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = record.folder / "predictions.safetensors"
    step = int(record.scores.selected["step"]) if record.scores else None
    try:
        stored = load_file(file)[f"step_{step}"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{file} does not hold the predictions of step {step}: {error}") from error
    if stored.shape != found.shape:
        raise UserError(f"the run stored predictions for {len(stored)} test rows, and {len(found)} were made")
    if temperature := record.training.temperature:
        stored = scale_temperature(stored, temperature).float()
    gap = (stored - found).abs()
    if record.data.quantity:
        gap = gap / stored.std().clamp_min(TINY)
        return StoredComparison(len(found), int((gap <= OTHER).sum()), float(gap.max()))
    same = int((stored.argmax(-1) == found.argmax(-1)).sum())
    return StoredComparison(len(found), same, float(gap.max()))
