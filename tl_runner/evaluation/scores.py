"""What a model predicts on a split, how good that is, and what may be known of it without target labels."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.domains import UNKNOWN, Pair, Places, Split
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
from tl_runner.models.batchnorm import DomainModels
from tl_runner.models.features import iter_batches
from tl_runner.storage.sections import EstimatedAccuracy, Metrics, Scores
from tl_runner.training.checkpoint_selection import Evidence, FloorOf

LEAST = 1e-12  # of a probability whose logarithm is taken
BINS = 15  # of equal width, for the calibration error

Floor = tuple[float | None, float, FloorOf | None]  # the accuracy, how many labels it rests on, and whose they are


class Reading(NamedTuple):
    """What a model makes of the n rows of a split, float32 on the CPU."""

    features: Tensor  # (min(n, ROWS), width), of the first rows: as many as the domains are compared by
    predicted: Tensor  # (n, C), probabilities


@torch.no_grad()
def examine_split(model: Model, split: Split, rows: int = ROWS) -> Reading:
    """Both in one pass, features of the first `rows`; the model is left in evaluation mode."""
    model.eval()
    features, predicted = [], []
    for x in iter_batches(split, model.device):
        (seen,) = model.features(x)
        features.append(seen[:rows].float().cpu())
        predicted.append(model.head(seen).float().softmax(-1).cpu())
        rows -= len(features[-1])
    return Reading(torch.cat(features), torch.cat(predicted))


def predict(model: Model, split: Split) -> Tensor:
    """Class probabilities, (n, C) float32 on the CPU; the model is left in evaluation mode."""
    return examine_split(model, split, rows=0).predicted


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    return (probabilities.argmax(-1) == labels.cpu()).double().mean().item()


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b |rows in b|/n · |accuracy_b − confidence_b| (Guo et al., ICML 2017).

    probabilities (n, C), labels (n,); b runs over `bins` equal intervals of the confidence max_c p_c.
    """
    confidence, predicted = probabilities.double().max(-1)
    gap = (predicted == labels.cpu()).double() - confidence
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return torch.zeros(bins, dtype=torch.double).index_add(0, bin_of, gap).abs().sum().item() / len(gap)


def rates(predicted: Tensor, labels: Tensor) -> Metrics:
    """accuracy, balanced and macro_f1 of predicted classes (n,), each in [0, 1].

    balanced: the mean accuracy of the classes that occur. macro_f1: the mean of 2·right/(predicted + true) over the
    classes that occur or are predicted.
    """
    predicted, labels = predicted.cpu(), labels.cpu()
    classes = int(torch.cat([predicted, labels]).max()) + 1
    right, true, said = (
        torch.bincount(rows, minlength=classes).double() for rows in (labels[predicted == labels], labels, predicted)
    )
    occurs, either = true > 0, true + said > 0
    return {
        "accuracy": (predicted == labels).double().mean().item(),
        "balanced": (right[occurs] / true[occurs]).mean().item(),
        "macro_f1": (2 * right / (true + said))[either].mean().item(),
    }


def score_predictions(probabilities: Tensor, labels: Tensor, calibrated: bool = True) -> Metrics:
    """The `rates` of the most probable class and, of rows that are `calibrated` to be probabilities, their ece."""
    found = rates(probabilities.argmax(-1), labels)
    return {**found, "ece": calibration_error(probabilities, labels)} if calibrated else found


def score_source(reading: Reading | None, pair: Pair, calibrated: bool = True) -> Metrics | None:
    """The scores on the source's test split; None where there is no source, or its classes are others."""
    if reading is None or not pair.shared_labels:
        return None
    return score_predictions(reading.predicted, pair.labelled_source[1].test, calibrated)


def score_run(
    predictions: Mapping[int, Tensor],
    labels: Tensor,
    selected: int,
    calibrated: bool = True,
    source: Metrics | None = None,
    estimated: Mapping[str, float] | None = None,
) -> Scores:
    """The target's scores at the selected step, beside the last checkpoint and the best one by the labels.

    `predictions` are the probabilities on the test split by step, in order; rows whose label is `UNKNOWN` do not count.
    `oracle` can't be had without the answers: it says what an ideal choice among the checkpoints would have been worth,
    by each score; its step is the one of the best accuracy. `majority` is what saying the most frequent class of these
    labels would score.
    """
    known, end = labels.cpu() != UNKNOWN, max(predictions)
    guessed, guess = None, None
    if estimated:
        guessed, guess = dict(estimated), combine_estimates(estimated, predictions, selected)
    if not known.any():
        return Scores(source, None, {"step": end}, {"step": selected}, None, estimated=guessed, estimate=guess)
    labels = labels.cpu()[known]
    predictions = {step: rows[known] for step, rows in predictions.items()}
    found = {step: rates(rows.argmax(-1), labels) for step, rows in predictions.items()}
    best = max(found, key=lambda step: (found[step]["accuracy"], step))
    frequent = int(torch.bincount(labels).argmax())
    return Scores(
        source=source,
        target=score_predictions(predictions[selected], labels, calibrated),
        last={"step": end, **found[end]},
        selected={"step": selected, **found[selected]},
        oracle={"step": best, **{name: max(of[name] for of in found.values()) for name in found[best]}},
        majority={"class": frequent, **rates(torch.full_like(labels, frequent), labels)},
        estimated=guessed,
        estimate=guess,
    )


def predict_validation(sides: DomainModels, pair: Pair) -> dict[str, Tensor]:
    """Probabilities on the validation splits: of the `target`, by which the trials of a search agree, and where the
    classes are shared of the `source`, with its `labels`, by which predictions are calibrated."""
    found = {"target": predict(sides.target, pair.target.val)}
    if pair.source is not None and pair.shared_labels:
        source, labels = pair.labelled_source
        found |= {"source": predict(sides.source, source.val), "labels": labels.val.cpu()}
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
    """The accuracy on the source's validation rows, weighed as the training rows are, and how many rows it rests on.

    Those are (Σw)²/Σw², in effect. No accuracy where no validation row weighs anything, or none knows what it weighs.
    """
    if pair.weights is None:
        return accuracy(predicted, y), len(y), "source"
    if pair.val_weights is None or not pair.val_weights.any():
        return None, 0, None
    w = pair.val_weights.double().cpu()
    right = (predicted.argmax(-1) == y.cpu()).double()
    return ((w * right).sum() / w.sum()).item(), importance.effective_rows(w).item(), "weighted source"


def collect_evidence(sides: DomainModels, pair: Pair, step: int, keeps_source: bool) -> tuple[Evidence, Tensor]:
    """The evidence at this step, and the probabilities on the target's test split, which nobody scores yet.

    `keeps_source` says whether the method still learns the source's task: else its accuracy is no floor.
    """
    target, test = examine_split(sides.target, pair.target.val), predict(sides.target, pair.target.test)
    if not bool(torch.isfinite(test).all()):
        raise DivergedError(f"the model's predictions at step {step} are not finite numbers")
    source_val, risk, a_distance, calibrated_norm = None, None, None, None
    floor: Floor = None, 0, None
    source = examine_split(sides.source, pair.source.val) if pair.source else None
    if source:
        apart = separate_domains(source.features, target.features)
        a_distance = apart and apart.a_distance.value
        if pair.shared_labels:
            y = pair.labelled_source[1].val.cpu()
            source_val = accuracy(source.predicted, y)
            if keeps_source:
                calibrated = scale_temperature(target.predicted, fit_temperature(source.predicted, y))
                calibrated_norm = label_free.relative_nuclear_norm(calibrated)
            if apart and keeps_source:
                chances = source.predicted[apart.rows].gather(1, y[apart.rows, None])[:, 0]
                risk = label_free.risk(-chances.clamp_min(LEAST).log(), apart.weights)
    if pair.held_out is not None:
        floor = accuracy(predict(sides.target, pair.held_out.x), pair.held_out.y), len(pair.held_out.y), "granted"
    elif pair.granted is None and keeps_source and source and pair.shared_labels:
        floor = source_floor(source.predicted, pair.labelled_source[1].val, pair)
    evidence = Evidence(
        step=step,
        source_val=source_val,
        floor=floor[0],
        floor_rows=floor[1],
        floor_of=floor[2],
        information=label_free.information(target.predicted),
        entropy=label_free.entropy(target.predicted),
        classes=target.predicted.shape[-1],
        classes_used=label_free.classes_used(target.predicted),
        nuclear_norm=label_free.relative_nuclear_norm(target.predicted),
        density=label_free.density(target.predicted[:ROWS]),
        risk=risk,
        a_distance=a_distance,
        calibrated_norm=calibrated_norm,
    )
    return evidence, test
