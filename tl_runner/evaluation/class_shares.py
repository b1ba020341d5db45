"""A run under other class shares: it estimates the target's while it trains, draws source rows by them, and adjusts.

Alignment pulls the two domains' features together, and where the class shares differ it pulls rows of one class onto
those of another. Source rows that are drawn with the target's shares leave that nothing to do, whatever the method; the
classifier learns with these shares, and its predictions on the target are adjusted from those to the newest estimate
(after Garg et al., ICML 2023, who draw by the shares too, and pseudo-balance the target).

An estimate that is near the source's shares is not believed: a model that confuses classes of the target makes that
much out of equal shares, and drawing by its confusion confirms it. After the first, which nothing has aligned yet, rows
are drawn by an estimate only if the one before it differed, too. Predictions are adjusted by any that differs: that
teaches the model nothing.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.evaluation.scores import predict
from tl_runner.functional.class_shares import ESTIMATORS, count_shares, total_variation
from tl_runner.functional.estimated_accuracy import fit_temperature
from tl_runner.models.batchnorm import DomainModels
from tl_runner.models.heads import Calibrated
from tl_runner.storage.sections import SharesEstimator, SharesInfo
from tl_runner.training.batches import Balance

APART = 0.2  # in total variation, from which on shares count as different: 120 rows of ten classes scatter by 0.1
KEPT = 0.1  # of the source's shares stays in what is drawn: a class that an early model never predicts must not vanish
RAREST = 1e-3  # share of a class, for the ratio of two


@dataclass
class TrackedShares:
    """What is known so far: the `estimated` shares, those that source rows are `drawn` by, and the logits' `bias`.

    `chances` (n,) are those of the source's training rows to be drawn; None while they are all alike.
    """

    by: SharesEstimator
    source: Tensor
    drawn: Tensor
    estimated: Tensor | None = None
    bias: Tensor | None = None
    chances: Tensor | None = field(default=None, repr=False)

    @classmethod
    def start(cls, by: SharesEstimator, pair: Pair, balance: Balance = "none") -> "TrackedShares | None":
        """Nothing is known yet; None with `by=none`. Raises `UserError` where there is nothing to estimate by.

        `balance` says otherwise by what chances source rows are drawn, and must leave that to the estimate.
        """
        if by == "none":
            return None
        if balance != "none":
            raise UserError(f"shares={by} and train.balance={balance} both say how often a class is drawn: set one")
        if pair.source is not None and pair.source.members:
            raise UserError(f"shares={by} takes one source domain, and {pair.source.name} are several: name one")
        if not pair.classes:
            raise UserError(f"shares={by} is about the shares of classes, and a quantity is predicted: set shares=none")
        if pair.source is None or not pair.shared_labels:
            raise UserError(f"shares={by} needs a source with labels of the target's classes")
        if pair.granted is not None:
            raise UserError(f"shares={by} estimates class shares without target labels, and some are granted: set none")
        source = count_shares(pair.labelled_source[1].train, len(pair.classes))
        return cls(by, source, source)

    def adjust(self, sides: DomainModels, pair: Pair) -> tuple[DomainModels, Pair]:
        """Estimate the shares by this model, and draw source rows by them from now on if they differ enough.

        Returns both sides with the target's predictions adjusted, and the pair as evidence needs it: accuracy on the
        source is that of rows with the target's shares.
        """
        source, labels = pair.labelled_source
        known, y = predict(sides.source, source.val), labels.val.cpu()
        differed = self.estimated is None or self._differ(self.estimated)
        self.estimated = ESTIMATORS[self.by](predict(sides.target, pair.target.train), known, y)
        differ = self._differ(self.estimated)
        ratio = (self.estimated if differ else self.source).clamp_min(RAREST) / self.drawn.clamp_min(RAREST)
        self.bias = (fit_temperature(known, y) * ratio.log()).float()
        sides = add_bias(sides, self.bias)
        if not (differ and differed):
            self.drawn, self.chances = self.source, None
            return sides, pair
        self.drawn = (1 - KEPT) * self.estimated + KEPT * self.source
        self.chances, val = self._weigh(labels.train), self._weigh(labels.val)
        weights = self.chances.to(labels.train.device, torch.float32)
        if pair.weights is not None:
            weights = weights * pair.weights
            val = None if pair.val_weights is None else val * pair.val_weights.cpu()
        return sides, replace(pair, weights=weights, val_weights=val)

    @property
    def facts(self) -> dict[str, Tensor]:
        """What is to be known of a checkpoint that was adjusted last."""
        return {} if self.estimated is None or self.bias is None else {"estimated": self.estimated, "bias": self.bias}

    def describe(self, facts: Mapping[str, Tensor]) -> SharesInfo:
        """The same for the record."""
        estimated, bias = facts["estimated"], facts["bias"]
        return SharesInfo(self.by, self.source.tolist(), estimated.tolist(), bias.tolist(), self._differ(estimated))

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"drawn": self.drawn, "estimated": self.estimated, "chances": self.chances}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left it."""
        self.drawn, self.estimated, self.chances = state["drawn"], state["estimated"], state["chances"]

    def _differ(self, estimated: Tensor) -> bool:
        """Whether an estimate is far enough from the source's shares to be believed."""
        return total_variation(estimated, self.source) >= APART

    def _weigh(self, labels: Tensor) -> Tensor:
        """The weight of rows with these labels, which gives their classes the shares that are drawn."""
        return (self.drawn / self.source.clamp_min(RAREST))[labels.cpu()]


def add_bias(sides: DomainModels, bias: Tensor | None) -> DomainModels:
    """Both sides, with a bias added to the logits of the target's; the parameters stay shared."""
    return sides if bias is None else sides._replace(target=_with_bias(sides.target, bias))


def _with_bias(model: Model, bias: Tensor) -> Model:
    twin = copy(model)
    twin._modules = {**model._modules, "head": Calibrated(model.head, bias=bias.to(model.device))}
    return twin
