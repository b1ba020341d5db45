"""Instance transfer by boosting: source rows that contradict the granted target labels lose weight."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tl_runner.core import Method, Model, Phase, Resources
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import check_range
from tl_runner.models.features import freeze_features, gather_rows
from tl_runner.models.heads import Votes, linear_classifier

log = logging.getLogger(__name__)


class TrAdaBoost(Method):
    """Boosted linear learners on frozen features of source and granted target rows (Dai et al., ICML 2007).

    In each of `rounds` a logistic regression, `C` its inverse regularisation, is fitted to the weighted rows. With ε
    its error on the granted rows, granted rows that it gets wrong weigh 1/β_t times more, β_t = ε / ((1−ε)(C−1)), and
    source rows that it gets wrong β = 1/(1 + √(2 ln n / rounds)) times: less. The learners of the last half vote, each
    with log 1/β_t. For two classes that is the paper's algorithm; the factor (classes − 1) is SAMME's (Zhu et al.
    2009), by which a learner counts that is better than chance, ε < 1 − 1/classes; boosting ends at the first that is
    not. The features are those of the source model; `pretrain=none backbone=identity` makes them the inputs.
    """

    needs = frozenset({"source", "granted"})
    start = "features"

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
        learners = boost(source, granted, len(model.classes), self.rounds, self.C)
        half = learners[(len(learners) + 1) // 2 - 1 :]  # from ⌈N/2⌉ to N
        weight, bias = (torch.stack([getattr(learner, name) for learner, _ in half]) for name in ("weight", "bias"))
        model.head = Votes(weight.detach(), bias.detach(), torch.tensor([vote for _, vote in half]))
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return ()


def boost(source: Labelled, granted: Labelled, classes: int, rounds: int, C: float) -> list[tuple[nn.Linear, float]]:  # noqa: N803
    """The learners of each round and their votes log 1/β_t; the first, and no vote to weigh, if it is no good."""
    n, x, y = len(source.y), torch.cat([source.x, granted.x]), torch.cat([source.y, granted.y])
    shrink = 1 / (1 + math.sqrt(2 * math.log(n) / rounds))
    weights: Tensor = torch.ones(len(y), dtype=torch.double)
    learners: list[tuple[nn.Linear, float]] = []
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
