"""From two domains' rows to `(Pair, Answers)`: disjoint seeded splits, the label budget, a fingerprint.

No target label decides anything here but which rows are granted: rows are ordered by a hash of their content
before they are shuffled, and splits are never stratified.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tl_runner.core import Answers, Domain, InMemory, Labelled, Labels, Pair, derive
from tl_runner.errors import Refused

TRAIN, VAL = 0.6, 0.2  # shares of a domain's rows; the rest is for testing
AUTO_PER_CLASS = 10  # granted=auto, for a method that needs granted labels
HELD_OUT = 5  # one in five granted labels of a class, but at least one, is kept back to choose a checkpoint


class Raw(NamedTuple):
    """All rows of a domain before they are cut: x (n, …) float32, y (n,) int64."""

    name: str
    x: Tensor
    y: Tensor


class Drawn(NamedTuple):
    """What a dataset returns; `notes` go into the record (which shift, how strong)."""

    source: Raw
    target: Raw
    classes: tuple[str, ...]
    notes: Mapping[str, Any]


class Budget(NamedTuple):
    """How many target labels a run may see."""

    kind: Literal["auto", "all", "count", "share"]
    amount: float = 0.0

    @classmethod
    def parse(cls, granted: int | str) -> "Budget":
        """From `auto`, `all`, a count per class (5) or a share (10%)."""
        text = str(granted)
        if text in ("auto", "all"):
            return cls("all" if text == "all" else "auto")
        if re.fullmatch(r"\d+", text):
            return cls("count", int(text))
        share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
        if share and float(share[1]) <= 100:
            return cls("share", float(share[1]) / 100)
        raise Refused(f"granted takes auto, 0, a count per class (5), a share (10%) or all, got {granted!r}")

    def settle(self, needed: bool) -> "Budget":
        """`auto` as a number: none for a method that needs none."""
        if self.kind == "auto":
            return Budget("count", AUTO_PER_CLASS if needed else 0)
        if needed and self.kind != "all" and not self.amount:
            raise Refused("this method learns from granted target labels: granted=0 leaves it none; try granted=10")
        return self

    def __str__(self) -> str:
        return {"count": f"{self.amount:g}", "share": f"{100 * self.amount:g}%"}.get(self.kind, self.kind)


def cut(drawn: Drawn, seed: int, budget: Budget, device: torch.device) -> tuple[Pair, Answers, dict[str, Any]]:
    """The pair on the device, the sealed answers, and what the record says of the data."""
    source = _split(drawn.source, drawn.classes, seed, device)
    target = _split(drawn.target, drawn.classes, seed, device)
    assert target.labels is not None
    labels = target.labels

    def give(rows: Tensor) -> Labelled | None:
        return Labelled(target.train.take(rows), labels.train[rows]) if len(rows) else None

    train, held_out = _grant(labels.train, budget, drawn)
    pair = Pair(source, replace(target, labels=None), granted=give(train), held_out=give(held_out))
    data = {
        "fingerprint": fingerprint(drawn),
        "shape": list(pair.shape),
        "classes": list(drawn.classes),
        "domains": {"source": source.name, "target": target.name},
        "rows": {
            role: [len(side.train), len(side.val), len(side.test)]
            for role, side in (("source", source), ("target", target))
        },
        "granted": len(train) + len(held_out),
        **drawn.notes,
    }
    return pair, Answers(labels.test), data


def fingerprint(drawn: Drawn) -> str:
    """A hash of all arrays as they are used."""
    digest = blake2b(digest_size=8)
    for tensor in (drawn.source.x, drawn.source.y, drawn.target.x, drawn.target.y):
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _split(raw: Raw, classes: tuple[str, ...], seed: int, device: torch.device) -> Domain:
    hashes = [blake2b(row.tobytes(), digest_size=8).digest() for row in raw.x.contiguous().numpy()]
    by_content = torch.tensor(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=torch.long)
    generator = torch.Generator().manual_seed(derive(seed, "split", raw.name))
    shuffled = by_content[torch.randperm(len(by_content), generator=generator)]
    train, val = int(TRAIN * len(shuffled)), int(VAL * len(shuffled))
    parts = {"train": shuffled[:train], "val": shuffled[train : train + val], "test": shuffled[train + val :]}
    for part, rows in parts.items():
        if len(rows) < 2:
            raise Refused(
                f"the {part} split of {raw.name} would hold {len(rows)} of its {len(raw.x)} rows; it needs 2 or more"
            )
    labels = Labels(**{part: raw.y[rows].to(device) for part, rows in parts.items()})
    splits = {part: InMemory(raw.x[rows].to(device)) for part, rows in parts.items()}
    return Domain(raw.name, classes, **splits, labels=labels)


def _grant(labels: Tensor, budget: Budget, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """The granted rows of the target's train split: (to train on, to hold out), the same share of each class."""
    train, held_out = [], []
    for index, name in enumerate(drawn.classes):
        rows = (labels == index).nonzero().squeeze(1)
        share = ceil(round(budget.amount * len(rows), 9))  # 7 % of 100 are 7, whatever a float makes of it
        wanted = {"all": len(rows), "share": share}.get(budget.kind, int(budget.amount))
        if wanted > len(rows):
            raise Refused(
                f"granted={budget} asks for {wanted} labels of class {name!r}, but the train split of"
                f" {drawn.target.name} has {len(rows)}"
            )
        kept_back = 0 if wanted < 2 else max(1, wanted // HELD_OUT)
        held_out.append(rows[:kept_back])
        train.append(rows[kept_back:wanted])
    return torch.cat(train), torch.cat(held_out)
