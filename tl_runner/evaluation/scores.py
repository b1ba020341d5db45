"""What a model predicts on a split, how good that is, and what may be known of it without target labels."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.domains import Domain, Pair, Part, Places, Split, Subset, has_label
from tl_runner.errors import DivergedError
from tl_runner.functional import importance, label_free
from tl_runner.functional.divergence import ROWS, separate_domains
from tl_runner.functional.estimated_accuracy import (
    STEADY,
    bound_estimate,
    fit_temperature,
    scale_temperature,
    share_changed,
)
from tl_runner.functional.estimated_error import weighted_rmse
from tl_runner.functional.metrics import ERRORS, measure_errors
from tl_runner.models.batchnorm import DomainModels
from tl_runner.models.features import iter_batches
from tl_runner.storage.sections import EstimatedAccuracy, EstimatedError, Metrics, Scores
from tl_runner.tasks import Classification, Regression, Task
from tl_runner.training.checkpoint_selection import Evidence, FloorOf

LEAST = 1e-12  # of a probability whose logarithm is taken

Floor = tuple[float | None, float, FloorOf | None]  # the score, how many labels it rests on, and whose they are


class Reading(NamedTuple):
    """What a model makes of the n rows of a split, float32 on the CPU."""

    features: Tensor  # (min(n, ROWS), width), of the first rows: as many as the domains are compared by
    predicted: Tensor  # (n, C) probabilities, or (n, 1) of a quantity: see `tasks`


@torch.no_grad()
def examine_split(model: Model, split: Split, rows: int = ROWS) -> Reading:
    """Both in one pass, features of the first `rows`; the model is left in evaluation mode."""
    model.eval()
    features, predicted = [], []
    for x in iter_batches(split, model.device):
        (seen,) = model.features(x)
        features.append(seen[:rows].float().cpu())
        predicted.append(model.task.predict(model.head(seen)).cpu())
        rows -= len(features[-1])
    return Reading(torch.cat(features), torch.cat(predicted))


def predict(model: Model, split: Split) -> Tensor:
    """Class probabilities (n, C), or a quantity (n, 1), float32 on the CPU; the model is left in evaluation mode."""
    return examine_split(model, split, rows=0).predicted


def examine_source(sides: DomainModels, source: Domain, part: Part, rows: int = ROWS) -> Reading:
    """Both of a split of the source; of several domains each is met by the network that has its own statistics."""
    split: Split = getattr(source, part)
    if not sides.members:
        return examine_split(sides.source, split, rows)
    own = [getattr(member, part).cpu() for member in source.members]
    found = [
        examine_split(model, Subset(split, getattr(member, part)), rows)
        for model, member in zip(sides.members, source.members, strict=True)
    ]
    order = torch.cat(own).argsort()
    kept = torch.cat([numbers[:rows] for numbers in own])  # whose features there are
    first = kept.argsort()[:rows]  # the first rows of the pool
    return Reading(
        torch.cat([each.features for each in found])[first], torch.cat([each.predicted for each in found])[order]
    )


def score_source(reading: Reading | None, pair: Pair, calibrated: bool = True) -> Metrics | None:
    """The scores on the source's test split; None where there is no source, or its classes are others."""
    if reading is None or not pair.shared_labels:
        return None
    return pair.task.score(reading.predicted, pair.labelled_source[1].test.cpu(), calibrated)


def score_members(reading: Reading | None, pair: Pair, calibrated: bool = True) -> dict[str, Metrics] | None:
    """The scores on the test split of each of several source domains; None where there are none to score."""
    if reading is None or not pair.shared_labels or pair.source is None or not pair.source.members:
        return None
    labels = pair.labelled_source[1].test.cpu()
    own = {member.name: member.test.cpu() for member in pair.source.members}
    return {name: pair.task.score(reading.predicted[rows], labels[rows], calibrated) for name, rows in own.items()}


def score_run(
    task: Task,
    predictions: Mapping[int, Tensor],
    labels: Tensor,
    selected: int,
    calibrated: bool = True,
    source: Metrics | None = None,
    estimated: Mapping[str, float] | None = None,
) -> Scores:
    """The target's scores at the selected step, beside the last checkpoint and the best one by the labels.

    `predictions` are those on the test split by step, in order; rows without a label do not count. `oracle` can't be
    had without the answers: it says what an ideal choice among the checkpoints would have been worth, by each score;
    its step is that of the task's headline. `majority` is what saying the most frequent class, or the mean of a
    quantity, of these labels would score.
    """
    known, end = has_label(labels.cpu()), max(predictions)
    guessed, guess = None, None
    if estimated:
        guessed, guess = dict(estimated), combine_estimates(estimated, predictions, selected)
    if not known.any():
        return Scores(source, None, {"step": end}, {"step": selected}, None, estimated=guessed, estimate=guess)
    labels = labels.cpu()[known]
    predictions = {step: rows[known] for step, rows in predictions.items()}
    found = {step: task.score(rows, labels) for step, rows in predictions.items()}
    best = max(found, key=lambda step: (found[step][task.headline], step))
    ideal = {name: (min if name in ERRORS else max)(of[name] for of in found.values()) for name in found[best]}
    return Scores(
        source=source,
        target=task.score(predictions[selected], labels, calibrated),
        last={"step": end, **found[end]},
        selected={"step": selected, **found[selected]},
        oracle={"step": best, **ideal},
        majority=task.score_constant(labels),
        estimated=guessed,
        estimate=guess,
    )


def estimate_errors(sides: DomainModels, pair: Pair) -> EstimatedError | None:
    """The RMSE on the target as it is estimated without its labels; None without a source that has its quantity.

    Squared residuals of the source's validation rows are weighed by p_t(f)/p_s(f) on the model's features: right where
    the domains differ in which inputs they have, and not in what these mean.
    """
    if pair.source is None or not pair.shared_labels:
        return None
    source, labels = pair.labelled_source
    here, there = examine_source(sides, source, "val"), examine_split(sides.target, pair.target.val, ROWS)
    apart = separate_domains(here.features, there.features)
    if apart is None:
        return None
    residuals = here.predicted[apart.rows, 0] - pair.task.to_unit(labels.val.cpu().double())[apart.rows]
    return EstimatedError(*weighted_rmse(residuals, apart.weights))


def predict_validation(sides: DomainModels, pair: Pair) -> dict[str, Tensor]:
    """Predictions on the validation splits: of the `target`, by which the trials of a search agree, and where the
    classes are shared of the `source`, with its `labels`, by which predictions are calibrated."""
    found = {"target": predict(sides.target, pair.target.val)}
    if pair.source is not None and pair.shared_labels:
        source, labels = pair.labelled_source
        predicted = examine_source(sides, source, "val", rows=0).predicted
        found |= {"source": predicted, "labels": pair.task.to_unit(labels.val.cpu())}
    return found


def find_temperature(validation: Mapping[str, Tensor]) -> float | None:
    """The temperature that calibrates the predictions on the source's validation rows; None where there are none."""
    return fit_temperature(validation["source"], validation["labels"]) if "source" in validation else None


def predict_all(model: Model, pair: Pair, places: Places, temperature: float | None) -> Tensor:
    """Probabilities (n, C), calibrated by the temperature, of all rows of the target in the order of their names."""
    by_part = [predict(model, split) for split in (pair.target.train, pair.target.val, pair.target.test)]
    rows = torch.cat([places.train, places.val, places.test])
    found = torch.cat(by_part)[rows.argsort()]
    return found if temperature is None else scale_temperature(found, temperature).float()


def combine_estimates(
    estimated: Mapping[str, float], predictions: Mapping[int, Tensor], selected: int
) -> EstimatedAccuracy:
    """What these estimates come to, by predictions (n, C) on the same rows at every step: see `bound_estimate`."""
    others = [rows for step, rows in predictions.items() if step != selected]
    changed = share_changed(predictions[selected], others)
    found = bound_estimate(estimated.values(), changed, len(predictions[selected]))
    return EstimatedAccuracy(*found, changed=changed, believable=changed is not None and changed <= STEADY)


def source_floor(predicted: Tensor, y: Tensor, pair: Pair) -> Floor:
    """The score on the source's validation rows, weighed as the training rows are, and how many rows it rests on.

    Those are (Σw)²/Σw², in effect. None where no validation row weighs anything, or none knows what it weighs.
    """
    if pair.weights is None:
        return headline(predicted, y, pair.task), len(y), "source"
    if pair.val_weights is None or not pair.val_weights.any():
        return None, 0, None
    w = pair.val_weights.double().cpu()
    if isinstance(pair.task, Regression):
        found = measure_errors(predicted[:, 0], pair.task.to_unit(y.cpu().double()), w)["r2"]
    else:
        right = (predicted.argmax(-1) == y.cpu()).double()
        found = ((w * right).sum() / w.sum()).item()
    return found, importance.effective_rows(w).item(), "weighted source"


def headline(predicted: Tensor, y: Tensor, task: Task) -> float:
    """The score by which runs of this task are compared: accuracy, or R² of a quantity."""
    return task.score(predicted, y.cpu())[task.headline]


def collect_evidence(sides: DomainModels, pair: Pair, step: int, keeps_source: bool) -> tuple[Evidence, Tensor]:
    """The evidence at this step, and the predictions on the target's test split, which nobody scores yet.

    `keeps_source` says whether the method still learns the source's task: else its score is no floor.
    """
    target, test = examine_split(sides.target, pair.target.val), predict(sides.target, pair.target.test)
    if not bool(torch.isfinite(test).all()):
        raise DivergedError(f"the model's predictions at step {step} are not finite numbers")
    classes = isinstance(pair.task, Classification)
    source_val, risk, a_distance, calibrated_norm = None, None, None, None
    floor: Floor = None, 0, None
    source = examine_source(sides, pair.source, "val") if pair.source else None
    if source:
        apart = separate_domains(source.features, target.features)
        a_distance = apart and apart.a_distance.value
        if pair.shared_labels:
            y = pair.labelled_source[1].val.cpu()
            source_val = headline(source.predicted, y, pair.task)
            if keeps_source and classes:
                calibrated = scale_temperature(target.predicted, fit_temperature(source.predicted, y))
                calibrated_norm = label_free.relative_nuclear_norm(calibrated)
            if apart and keeps_source:
                risk = label_free.risk(_losses(source.predicted, y, pair.task)[apart.rows], apart.weights)
    if pair.held_out is not None:
        held_out = predict(sides.target, pair.held_out.x)
        floor = headline(held_out, pair.held_out.y, pair.task), len(pair.held_out.y), "granted"
    elif pair.granted is None and keeps_source and source and pair.shared_labels:
        floor = source_floor(source.predicted, pair.labelled_source[1].val, pair)
    evidence = Evidence(
        step=step,
        source_val=source_val,
        floor=floor[0],
        floor_rows=floor[1],
        floor_of=floor[2],
        risk=risk,
        a_distance=a_distance,
        calibrated_norm=calibrated_norm,
    )
    return (_judge_classes(evidence, target.predicted) if classes else evidence), test


def _losses(predicted: Tensor, y: Tensor, task: Task) -> Tensor:
    """The loss (n,) of each row: −log of its class's probability, or a quantity's squared error in standard units."""
    if isinstance(task, Regression):
        return ((predicted[:, 0].double() - task.mean) / task.sd - y).square()
    return -predicted.gather(1, y[:, None])[:, 0].clamp_min(LEAST).log()


def _judge_classes(evidence: Evidence, predicted: Tensor) -> Evidence:
    """The evidence with what class probabilities (n, C) of the target's validation rows say of themselves."""
    return evidence._replace(
        information=label_free.information(predicted),
        entropy=label_free.entropy(predicted),
        classes=predicted.shape[-1],
        classes_used=label_free.classes_used(predicted),
        nuclear_norm=label_free.relative_nuclear_norm(predicted),
        density=label_free.density(predicted[:ROWS]),
    )
