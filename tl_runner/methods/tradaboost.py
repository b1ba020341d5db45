"""Instance transfer by boosting: source rows that contradict the granted target labels lose weight."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tl_runner.core import Method, Model, Phase, Resources
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import check_range
from tl_runner.models.features import gather_rows
from tl_runner.models.frozen_features import freeze_features
from tl_runner.models.heads import Votes, WeightedMedian, linear_classifier, linear_regressor
from tl_runner.tasks import EVERY_TASK

log = logging.getLogger(__name__)

Learners = list[tuple[nn.Linear, float]]  # of each round, with its vote log 1/β_t
TINY = 1e-9  # the least mean error of a learner of a quantity, by which its vote stays finite


class TrAdaBoost(Method):
    """Boosted linear learners on frozen features of source and granted target rows (Dai et al., ICML 2007).

    In each of `rounds` a logistic regression, `C` its inverse regularisation, is fitted to the weighted rows. With ε
    its error on the granted rows, granted rows that it gets wrong weigh 1/β_t times more, β_t = ε / ((1−ε)(C−1)), and
    source rows that it gets wrong β = 1/(1 + √(2 ln n / rounds)) times: less. The learners of the last half vote, each
    with log 1/β_t. For two classes that is the paper's algorithm; the factor (classes − 1) is SAMME's (Zhu et al.
    2009), by which a learner counts that is better than chance, ε < 1 − 1/classes; boosting ends at the first that is
    not. The features are those of the source model; `pretrain=none backbone=identity` makes them the inputs.

    A quantity has TrAdaBoost.R2 (Pardoe & Stone, ICML 2010): ridge regressions, rows that are wrong by a share e in
    [0, 1] of the largest error, weights that change by β_t^(−e) and β^e, and the weighted median of the last half. It
    is their first form, the counterpart of the above. Their two-stage form cross-validates a boosting in each round,
    for which a few granted rows do not suffice.
    """

    needs = frozenset({"source", "granted"})
    start = "features"
    tasks = EVERY_TASK

    def __init__(self, rounds: int = 10, C: float = 1.0):  # noqa: N803
        super().__init__()
        check_range(2, rounds=rounds)
        check_range(1e-9, C=C)
        self.rounds, self.C = rounds, C

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        model, pair = freeze_features(model, pair, resources.cache)
        domain, labels = pair.labelled_source
        split, answers = pair.labels_granted
        source = Labelled(gather_rows(domain.train).cpu(), labels.train.cpu())
        granted = Labelled(gather_rows(split).cpu(), answers.cpu())
        if model.classes:
            learners = boost(source, granted, len(model.classes), self.rounds, self.C)
        else:
            learners = boost_regressors(source, granted, self.rounds, self.C)
        half = learners[(len(learners) + 1) // 2 - 1 :]  # from ⌈N/2⌉ to N
        weight = torch.stack([learner.weight for learner, _ in half]).detach()  # (T, C, d)
        bias, vote = torch.stack([learner.bias for learner, _ in half]).detach(), torch.tensor([v for _, v in half])
        model.head = Votes(weight, bias, vote) if model.classes else WeightedMedian(weight[:, 0], bias[:, 0], vote)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()


def boost(source: Labelled, granted: Labelled, classes: int, rounds: int, C: float) -> Learners:  # noqa: N803
    """The learners of each round and their votes log 1/β_t; the first, and no vote to weigh, if it is no good."""
    n, x, y = len(source.y), torch.cat([source.x, granted.x]), torch.cat([source.y, granted.y])
    shrink = find_shrinkage(n, rounds)
    weights: Tensor = torch.ones(len(y), dtype=torch.double)
    learners: Learners = []
    for _ in range(rounds):
        learner = linear_classifier("logistic", x, y, classes, C, weights=weights / weights.mean())
        with torch.no_grad():
            wrong = learner(x).argmax(-1) != y
        error = float(weights[n:][wrong[n:]].sum() / weights[n:].sum())
        if error >= 1 - 1 / classes:
            if not learners:
                log.warning(
                    "TrAdaBoost stopped after its first learner, whose error on the granted labels is %.2f", error
                )
                learners.append((learner, 1.0))
            break
        error = max(error, 0.5 / len(granted.y))  # half a mistake: a faultless learner's vote stays finite
        beta = error / ((1 - error) * (classes - 1))
        learners.append((learner, math.log(1 / beta)))
        factor = torch.cat([torch.full((n,), shrink), torch.full((len(y) - n,), 1 / beta)]).double()
        weights = torch.where(wrong, weights * factor, weights)
    return learners


def boost_regressors(source: Labelled, granted: Labelled, rounds: int, C: float) -> Learners:  # noqa: N803
    """The same for a quantity: rows that are wrong by e = |y − h_t(x)| / max |y − h_t(x)| change by β^e and β_t^(−e).

    ε is the weighted mean of e over the granted rows, β_t = ε/(1−ε). Boosting ends at the first learner of ε ≥ ½, or
    at one without any error.
    """
    n, x, y = len(source.y), torch.cat([source.x, granted.x]), torch.cat([source.y, granted.y])
    shrink = find_shrinkage(n, rounds)
    weights: Tensor = torch.ones(len(y), dtype=torch.double)
    learners: Learners = []
    for _ in range(rounds):
        learner = linear_regressor("ridge", x, y, C, weights=weights / weights.mean())
        with torch.no_grad():
            off = (learner(x)[:, 0] - y).double().abs()
        wrong = off / off.max().clamp_min(TINY)
        error = max(float(weights[n:] @ wrong[n:] / weights[n:].sum()), TINY)
        if error >= 0.5:
            if not learners:
                log.warning(
                    "TrAdaBoost.R2 stopped after its first learner, whose errors on the granted labels are %.2f of the"
                    " largest error on average", error,
                )  # fmt: skip
                learners.append((learner, 1.0))
            break
        beta = error / (1 - error)
        learners.append((learner, math.log(1 / beta)))
        if off.max() <= TINY:
            break
        base = torch.cat([torch.full((n,), shrink), torch.full((len(y) - n,), 1 / beta)]).double()
        weights = weights * base**wrong
    return learners


def find_shrinkage(n: int, rounds: int) -> float:
    """β = 1/(1 + √(2 ln n / rounds)), by which a source row of n loses weight that a learner gets wrong."""
    return 1 / (1 + math.sqrt(2 * math.log(n) / rounds))
