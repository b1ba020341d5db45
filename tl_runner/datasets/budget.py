"""The label budget: how many target labels a run may see, and which."""

import logging
import re
from collections.abc import Sequence
from math import ceil
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tl_runner.domains import has_label
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun

log = logging.getLogger(__name__)

AUTO_PER_CLASS = 10  # granted=auto, for a method that needs granted labels
AUTO_OF_QUANTITY = 50  # the same, where there are no classes
HELD_OUT = 5  # one in five granted labels of a class, but at least one, is kept back to choose a checkpoint


class Budget(NamedTuple):
    """How many target labels a run may see: a count per class (`upto` it, where a class has fewer), a share, all.

    Of a quantity, which has no classes, a count is one of all rows.

    Of a target some of whose rows have labels, `labelled` are all of these: see `split.split_domains`.
    """

    kind: Literal["auto", "all", "labelled", "count", "upto", "share"]
    amount: float = 0.0

    @classmethod
    def parse(cls, granted: int | str) -> "Budget":
        """From `auto`, `all`, `labelled`, a count per class (5) or a share (10%)."""
        text = str(granted)
        if text in ("auto", "all", "labelled"):
            return cls(text)
        if re.fullmatch(r"\d+", text):
            return cls("count", int(text))
        share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
        if share and float(share[1]) <= 100:
            return cls("share", float(share[1]) / 100)
        raise UserError(
            f"granted takes auto, 0, a count per class (5), a share (10%), all or labelled, got {granted!r}"
        )

    def settle(self, needed: bool) -> "Budget":
        """`auto` as a number: none for a method that needs none."""
        if self.kind == "auto":
            return Budget("upto", AUTO_PER_CLASS) if needed else Budget("count", 0)
        if needed and not self.grants:
            raise UserError("this method learns from granted target labels: granted=0 leaves it none; try granted=10")
        return self

    def suit(self, quantity: str | None) -> "Budget":
        """A budget that `auto` became, for a quantity where one is to be predicted: more rows, as all are in one."""
        return self if quantity is None or self.kind != "upto" else Budget("upto", AUTO_OF_QUANTITY)

    @property
    def grants(self) -> bool:
        """Whether it grants any label."""
        return self.kind in ("all", "labelled") or bool(self.amount)

    def choose(self, labels: Tensor, classes: Sequence[str], domain: str) -> tuple[Tensor, Tensor]:
        """The granted rows of a train split with these labels: (to train on, to hold out), the same of each class.

        `classes` is empty where the labels are quantities. Raises `UserError` where labels are to be granted and the
        split has none.
        """
        train, held_out = [], []
        known = labels[has_label(labels)]
        if self.grants and not len(known):
            asks = "this method learns from" if self.kind == "upto" else f"granted={self} asks for"
            raise UserError(
                f"{asks} granted target labels, and no row of the train split of {domain} has a label (with"
                " dataset.score_on=labelled the test split has them all). Methods such as mmd, coral and mcc need none"
                " (granted=0). If the target has a few labels, granted=labelled grants them all"
            )
        groups = [labels == index for index in range(len(classes))] or [has_label(labels)]
        classes = classes or [""]
        counts = [int(group.sum()) for group in groups]
        if self.kind == "upto" and (
            short := [name for name, n in zip(classes, counts, strict=True) if n < self.amount]
        ):
            log.warning(
                "granted=auto: %s has fewer than %s labels%s",
                domain,
                self,
                f" of class {', '.join(short)}" if classes[0] else "",
            )
        for group, name in zip(groups, classes, strict=True):
            rows = group.nonzero().squeeze(1)
            wanted = self._wanted(len(rows), name, domain)
            kept_back = 0 if wanted < 2 else max(1, wanted // HELD_OUT)
            held_out.append(rows[:kept_back])
            train.append(rows[kept_back:wanted])
        return torch.cat(train), torch.cat(held_out)

    def _wanted(self, there: int, name: str, domain: str) -> int:
        if self.kind == "share":
            return ceil(round(self.amount * there, 9))  # 7 % of 100 are 7, whatever a float makes of it
        wanted = there if self.kind in ("all", "labelled") else int(self.amount)
        if wanted > there and self.kind == "count":
            raise UserError(
                f"granted={self} asks for {count_noun(wanted, 'label')}{_of_class(name)}, but the train split of"
                f" {domain} has {there}"
            )
        return min(wanted, there)

    def describe(self, granted: int, classes: int) -> str:
        """The budget as a record names it: with a ≤ where `auto` found fewer labels than it wanted."""
        return f"≤{self}" if self.kind == "upto" and granted < self.amount * max(1, classes) else str(self)

    def __str__(self) -> str:
        return {"count": f"{self.amount:g}", "upto": f"{self.amount:g}", "share": f"{100 * self.amount:g}%"}.get(
            self.kind, self.kind
        )


def _of_class(name: str) -> str:
    """Words for whose labels are counted; none where there are no classes."""
    return f" of class {name!r}" if name else ""
