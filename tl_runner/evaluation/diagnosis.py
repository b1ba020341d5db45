"""What happened between the domains in a run: how far apart they were and are, the terms of the bound, who errs.

Measured on validation rows where no target label is needed, and with the answers in the run's last step. Nothing here
is a guarantee: the bound ε_t ≤ ε_s + ½d + λ* (Ben-David et al. 2010) is about the worst pair of classifiers, the
figures are about a linear one on the features that there are.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.domains import Pair, Split, Subset, has_label
from tl_runner.errors import check_range
from tl_runner.evaluation import figure_data
from tl_runner.evaluation.class_shares import APART
from tl_runner.evaluation.scores import Reading, examine_source, examine_split
from tl_runner.functional.class_shares import bbse, bootstrap_bbse, count_shares, total_variation
from tl_runner.functional.divergence import FOLDS, ROWS, SEED, mmd_test, separate_domains
from tl_runner.functional.logistic import choose_class, cross_fit, split_folds
from tl_runner.functional.metrics import accuracy
from tl_runner.functional.remembered import remember_results
from tl_runner.models.batchnorm import DomainModels
from tl_runner.models.features import iter_batches, read_out
from tl_runner.models.frozen_features import INCOMPARABLE, freeze_features
from tl_runner.models.spectrogram import find_sound
from tl_runner.storage.sections import (
    BoundTerms,
    ClassAccuracies,
    ClassShares,
    Diagnosis,
    Gap,
    Interval,
    StageDistances,
    TestedMMD,
)

Level = Literal["basic", "full", "none"]
MANY = 100  # classes, up to which intervals of their shares are computed
FEW = 3  # classes that a warning names
CHOSEN = 1e-7  # the tolerance of a fit that is asked for the class of each row alone: one Newton step less, of five

log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """A run's pair as the dataset gave it, and what could be said before anything was trained."""

    pair: Pair
    gap: Gap | None
    stages: dict[str, Interval | None]


@dataclass(frozen=True)
class Diagnose:
    """What is measured of a run beside its scores; `permutations` of the two-sample test."""

    level: Level = "basic"
    permutations: int = 500

    def __post_init__(self) -> None:
        check_range(19, 100_000, permutations=self.permutations)

    def before(self, model: Model, pair: Pair, frozen: bool, cache: Path | None = None) -> Setup:
        """With the network as training finds it, before the method prepares anything.

        `frozen`: the method computes features once, and they are read where it finds them too, in `cache`.
        """
        if self.level == "none":
            return Setup(pair, None, {})
        reader, seen = freeze_features(model, pair, cache) if frozen else (model, pair)
        gap = self._gap(*(examine_split(reader, _first(split, model)).features for split in _validation(seen)))
        return Setup(pair, gap, self._stages(DomainModels(model, model), pair))

    def after(
        self, sides: DomainModels, pair: Pair, before: Setup, source: Reading | None, predicted: Tensor, answers: Tensor
    ) -> tuple[Diagnosis | None, dict[str, Tensor]]:
        """What the record says, and the tensors for figures, of the selected checkpoint.

        `source` is what it makes of the source's test split, `predicted` (n, C) are its predictions on the target's,
        and `answers` (n,) the labels there. Where a quantity is predicted, nothing is said of classes and of the bound,
        whose errors are those of a classifier.
        """
        if self.level == "none":
            return None, {}
        answers, target = answers.cpu(), examine_split(sides.target, _first(pair.target.test, sides.target))
        known = has_label(answers)
        validation = _examine_validation(sides, pair)
        gap = self._gap(*(reading.features for reading in validation))
        diagnosis = Diagnosis(before.gap, gap)
        labels = pair.source and pair.source.labels and pair.source.labels.test.cpu()
        if pair.classes:
            classes = ClassAccuracies(target=accuracies(predicted, answers) if known.any() else None)
            diagnosis.histogram, diagnosis.classes = _shares(predicted.argmax(-1), predicted.shape[-1]), classes
        if diagnosis.classes and source and labels is not None and pair.shared_labels:
            of_target = target.features[known[: len(target.features)]]
            diagnosis.classes.source = accuracies(source.predicted, labels)
            of_source, of_val = (reading.predicted for reading in validation)
            diagnosis.priors = label_shift(of_val, of_source, pair.labelled_source[1].val.cpu())
            diagnosis.bound = BoundTerms(
                source_error=1 - accuracy(source.predicted, labels),
                half_distance=gap.a_distance.value / 2 if gap and gap.a_distance else None,
                joint_error=joint_error(source.features, labels[:ROWS], of_target, answers[known][: len(of_target)]),
            )
        if self.level == "full":
            if before.pair.input not in INCOMPARABLE:
                inputs = (
                    _concatenate_rows(_first(split, sides.target), sides.target) for split in _validation(before.pair)
                )
                diagnosis.inputs = self._gap(*inputs)
            diagnosis.stages = StageDistances(before.stages, self._stages(sides, before.pair))
        known = figure_data.Side(source, labels) if source and labels is not None else None
        figures = figure_data.collect_figure_data(
            before.pair, pair, known, figure_data.Side(target, answers), find_sound(sides.target)
        )
        return diagnosis, {**figures, "labels": figure_data.pack_labels(answers, pair.task)}

    def _gap(self, source: Tensor | None = None, target: Tensor | None = None) -> Gap | None:
        """How far the rows of two domains are apart; None where there is only one."""
        if source is None or target is None:
            return None
        apart, mmd = separate_domains(source, target), mmd_test(source, target, self.permutations)
        return Gap(Interval(*apart.a_distance) if apart else None, TestedMMD(*mmd) if mmd else None)

    @torch.no_grad()
    def _stages(self, sides: DomainModels, pair: Pair) -> dict[str, Interval | None]:
        """The proxy A-distance at each stage of the backbone, which the first takes from the inputs; `full` only."""
        if self.level != "full" or pair.source is None:
            return {}
        flows = [[*iter_batches(_first(split, sides.target), sides.target.device)] for split in _validation(pair)]
        found = {}
        for name in sides.target.stages:
            stages = [side.eval().backbone.get_submodule(name) for side in (sides.source, sides.target)]
            flows = [[stage(x) for x in flow] for stage, flow in zip(stages, flows, strict=True)]
            source, target = (torch.cat([read_out(x).float().cpu() for x in flow]) for flow in flows)
            apart = separate_domains(source, target)
            found[name] = Interval(*apart.a_distance) if apart else None
        return found


def accuracies(predicted: Tensor, labels: Tensor) -> list[float | None]:
    """The accuracy on the rows of each class; None of a class without any. Predictions (n, C), labels (n,)."""
    right = predicted.argmax(-1) == labels
    rows = [labels == c for c in range(predicted.shape[-1])]
    return [right[of].double().mean().item() if bool(of.any()) else None for of in rows]


def label_shift(target: Tensor, source: Tensor, labels: Tensor) -> ClassShares:
    """The target's class shares, estimated without its labels by BBSE, beside the source's.

    Of probabilities (m, C) of target rows and (n, C) of source rows, and the latter's labels (n,). Right where only the
    class shares differ, and of little meaning where the inputs of a class do too.
    """
    prior, estimated = count_shares(labels, source.shape[-1]), bbse(target, source, labels)
    shift = total_variation(estimated, prior)
    ends = [None, None]
    if len(prior) <= MANY:
        ends = [end.tolist() for end in bootstrap_bbse(target, source, labels)]
    return ClassShares(prior.tolist(), estimated.tolist(), shift, *ends)


def warn_of_shares(found: ClassShares, classes: Sequence[str]) -> None:
    """Warn where the target's class shares seem to differ from the source's, by much and by more than chance.

    To be asked of a model alone that is steady on the target: others take classes for others there, and the estimate
    with them.
    """
    if found.shift < APART or found.low is None or found.high is None:
        return
    rows = zip(classes, found.source, found.estimated, found.low, found.high, strict=True)
    other = [(name, here, there) for name, here, there, low, high in rows if not low <= here <= high]
    if other:
        other.sort(key=lambda row: -abs(row[1] - row[2]))
        told = ", ".join(f"{name!r} {100 * here:.0f} % -> {100 * there:.0f} %" for name, here, there in other[:FEW])
        log.warning(
            "the class shares of the target seem to differ from the source's: %s (estimated without labels)."
            " shares=rlls trains by the estimated shares",
            told,
        )


@remember_results
def joint_error(source: Tensor, source_labels: Tensor, target: Tensor, target_labels: Tensor) -> float | None:
    """λ* = min_h ε_s(h) + ε_t(h), by one linear classifier of both domains' features, each domain with half the weight.

    Errors are held out, in 5 parts. Needs target labels: large where no classifier of these features serves both.
    None where there is too little to fit.
    """
    n, m = len(source), len(target)
    if min(n, m) < FOLDS:
        return None
    x, y = torch.cat([source, target]), torch.cat([source_labels, target_labels])
    of_target = torch.arange(n + m) >= n
    weights = torch.where(of_target, (n + m) / (2 * m), (n + m) / (2 * n)).double()
    present, known = y.unique(return_inverse=True)
    fold_of = torch.from_numpy(split_folds(n + m, FOLDS, SEED))
    if len(present) < 2 or any(len(known[fold_of != fold].unique()) < 2 for fold in range(FOLDS)):
        return None
    wrong = choose_class(cross_fit(x, known, len(present), 0.1, fold_of, weights, CHOSEN)) != known
    return (wrong[~of_target].double().mean() + wrong[of_target].double().mean()).item()


def _shares(said: Tensor, classes: int) -> list[float]:
    return (torch.bincount(said, minlength=classes).double() / len(said)).tolist()


def _validation(pair: Pair) -> list[Split]:
    """Of the source and the target; nothing where there is no source to compare with."""
    return [pair.source.val, pair.target.val] if pair.source else []


def _examine_validation(sides: DomainModels, pair: Pair) -> list[Reading]:
    if pair.source is None:
        return []
    return [examine_source(sides, pair.source, "val"), examine_split(sides.target, pair.target.val)]


def _first(split: Split, model: Model) -> Split:
    return Subset(split, torch.arange(min(ROWS, len(split)), device=model.device))


def _concatenate_rows(split: Split, model: Model) -> Tensor:
    return torch.cat([nn.Flatten()(x).cpu() for x in iter_batches(split, model.device)])
