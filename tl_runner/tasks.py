"""What is to be predicted: one of some classes, or a quantity. Loss, predictions, scores and heads follow from it.

A run's task follows from its dataset and is the same in both domains, but for the classes. Labels carry it too: class
numbers are whole, quantities are not. A quantity is learnt in standard units, (value − mean) / sd by the source's
training rows, so that learning rates and weights of terms suit any unit; predictions and scores are in its own unit.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from tl_runner.functional.metrics import Metrics, calibration_error, measure_errors, rates

TaskName = Literal["classification", "regression"]
EVERY_TASK: frozenset[TaskName] = frozenset(get_args(TaskName))


@dataclass(frozen=True)
class Classification:
    """One of some classes; labels are positions in `classes`."""

    classes: tuple[str, ...]

    name: ClassVar[TaskName] = "classification"
    headline: ClassVar[str] = "accuracy"  # the score by which runs are compared; higher is better

    @property
    def outputs(self) -> int:
        """How many numbers a head says of a row."""
        return len(self.classes)

    def predict(self, outputs: Tensor) -> Tensor:
        """Class probabilities (n, C) float32 of a head's outputs."""
        return outputs.float().softmax(-1)

    def score(self, predictions: Tensor, labels: Tensor, calibrated: bool = False) -> Metrics:
        """The `rates` of the most probable class and, of rows that are `calibrated` to be probabilities, their ece."""
        found = rates(predictions.argmax(-1), labels)
        return {**found, "ece": calibration_error(predictions, labels)} if calibrated else found

    def score_constant(self, labels: Tensor) -> Metrics:
        """What saying the most frequent class of these labels of every row would score."""
        frequent = int(torch.bincount(labels).argmax())
        return {"class": frequent, **rates(torch.full_like(labels, frequent), labels)}

    def to_unit(self, labels: Tensor) -> Tensor:
        """Labels as a user knows them: class numbers are as they are."""
        return labels


@dataclass(frozen=True)
class Regression:
    """A quantity; labels are in standard units."""

    quantity: str  # its name
    mean: float = 0.0
    sd: float = 1.0

    name: ClassVar[TaskName] = "regression"
    headline: ClassVar[str] = "r2"
    classes: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[int] = 1

    def predict(self, outputs: Tensor) -> Tensor:
        """The quantity (n, 1) float32, in its own unit."""
        return self.to_unit(outputs.float())

    def to_unit(self, standard: Tensor) -> Tensor:
        """Values in the quantity's own unit, of values in standard units."""
        return standard * self.sd + self.mean

    def score(self, predictions: Tensor, labels: Tensor, calibrated: bool = False) -> Metrics:
        """The `measure_errors` of predictions (n, 1) in the quantity's unit, of labels (n,) in standard units."""
        return measure_errors(predictions[:, 0], self.to_unit(labels.double()))

    def score_constant(self, labels: Tensor) -> Metrics:
        """What saying the mean of these labels of every row would score."""
        values = self.to_unit(labels.double())
        found = measure_errors(values.mean().expand(len(values)), values)
        return {"value": values.mean().item(), **found, "r2": 0.0}  # by its definition, and not a rounding below it


Task = Classification | Regression
