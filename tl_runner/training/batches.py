"""Which rows a step trains on, and the batch that is made of them."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Literal

import torch
from torch import Tensor

from tl_runner.core import Batch, Episodes, Stream
from tl_runner.domains import Domain, Labelled, OnDisk, Pair, Split, look_ahead
from tl_runner.errors import UserError
from tl_runner.rng import Rng, allot_rows, episodes, rows, weighted_rows

Augment = Callable[[Tensor, int], Tensor]  # of the inputs (n, …) and a seed
Balance = Literal["none", "classes"]
ByDomain = Literal["balanced", "proportional"]
Chances = Mapping[Stream, Tensor]  # by stream: by what chances (n,) its rows are drawn; all alike where it is not named


def balance_classes(pair: Pair, balance: Balance, streams: Set[Stream]) -> dict[Stream, Tensor]:
    """The chances by which each class of a labelled stream is drawn as often as any other, within each source domain.

    A row's is 1 / (rows of its class in its domain). Raises `UserError` where a quantity is predicted.
    """
    if balance == "none":
        return {}
    if not pair.classes:
        raise UserError(
            f"train.balance={balance} is about classes, and a quantity is predicted: set train.balance=none"
        )
    found = dict[Stream, Tensor]()
    if "source" in streams:
        source, labels = pair.labelled_source
        found["source"], y = torch.ones(len(source.train), dtype=torch.double), labels.train.cpu()
        for own in source.rows_by_member or [torch.arange(len(y))]:
            found["source"][own] = _invert_counts(y[own])
    if "granted" in streams and pair.granted is not None:
        found["granted"] = _invert_counts(pair.granted.y)
    return found


def _invert_counts(labels: Tensor) -> Tensor:
    """1 / (rows of its class) for each row, (n,) on the CPU."""
    labels = labels.cpu()
    return 1.0 / labels.bincount()[labels].double()


def draw_batch(
    pair: Pair,
    streams: Set[Stream],
    n: int,
    rng: Rng,
    step: int,
    augment: Augment,
    device: torch.device,
    tasks: Episodes | None = None,
    chances: Chances | None = None,
    by_domain: ByDomain = "balanced",
) -> Batch:
    """The batch of a step: up to n augmented rows of each of these streams.

    The source's come as small tasks, if so said. Of a pool of source domains each has its part of the n rows, one
    domain after the other, in equal numbers or by its size; by its size where rows are weighed, since weights are those
    of the pool as it is.
    """
    drawn: dict[Stream, Tensor] = {}
    chances = chances or {}

    def read(stream: Stream, split: Split, choose: Callable[[int, torch.device], Tensor]) -> Tensor:
        """The inputs of the rows that are chosen; of a split on disk those of the next step are read ahead."""
        on_disk = isinstance(split, OnDisk)
        home = torch.device("cpu") if on_disk else device  # no wait for a GPU to say which rows
        at = choose(step, home)
        x = split.take(at)
        if on_disk:
            look_ahead(split, choose(step + 1, home))
        drawn[stream] = at.to(device, non_blocking=True)
        return augment(x, rng.child(stream, "augment", step).seed)

    source = target = granted = domain = None
    blocks: Sequence[int] = ()
    if "source" in streams:
        side, labels = pair.labelled_source
        if side.members and not tasks:
            blocks = _allot(side, min(n, len(side.train)), "proportional" if pair.weights is not None else by_domain)

        def choose_source(step: int, home: torch.device) -> Tensor:
            if tasks:
                return episodes(rng.child("source"), labels.train, tasks, step)
            if blocks:
                return _draw_by_domain(side, blocks, rng.child("source"), step, home, chances.get("source"))
            return _draw(rng.child("source"), len(side.train), n, step, home, chances.get("source"))

        x = read("source", side.train, choose_source)
        at = drawn["source"]
        source = Labelled(x, labels.train[at], None if pair.weights is None else pair.weights[at])
        if blocks:
            numbers = [torch.full((count,), position, device=device) for position, count in enumerate(blocks)]
            domain = torch.cat(numbers)
        elif side.members:
            domain = side.train_members[at]
    if "target" in streams:
        split = pair.target.train
        target = read("target", split, lambda step, home: rows(rng.child("target"), len(split), n, step, home))
    if "granted" in streams:
        given, y = pair.labels_granted
        of = chances.get("granted")
        x = read("granted", given, lambda step, home: _draw(rng.child("granted"), len(given), n, step, home, of))
        granted = Labelled(x, y[drawn["granted"]])
    return Batch(source, target, granted, drawn, domain, blocks if len(drawn) > 1 else ())


def _draw(rng: Rng, length: int, n: int, step: int, device: torch.device, chances: Tensor | None) -> Tensor:
    if chances is None:
        return rows(rng, length, n, step, device)
    return weighted_rows(rng, chances, min(n, length), step, device)


def _draw_by_domain(
    pool: Domain, counts: Sequence[int], rng: Rng, step: int, device: torch.device, chances: Tensor | None
) -> Tensor:
    """So many rows of each domain of the pool, from shuffled epochs of its own; a small one comes round more often."""
    found = list[Tensor]()
    parts = zip(pool.rows_by_member, pool.members, counts, strict=True)
    for position, (rows_of, member, count) in enumerate(parts):
        mine, own = rows_of if device.type == "cpu" else member.train, rng.child(position)
        if chances is not None:
            found.append(mine[weighted_rows(own, chances[rows_of], count, step, device)])
            continue
        whole, rest = divmod(count, len(mine))  # epochs that one step takes whole
        found += [mine] * whole
        if rest:
            found.append(mine[rows(own, len(mine), rest, step, device)])
    return torch.cat(found)


def _allot(pool: Domain, n: int, by_domain: ByDomain) -> list[int]:
    try:
        return allot_rows(n, [len(member.train) for member in pool.members], by_domain)
    except ValueError as error:
        raise UserError(
            f"train.batch={n} is too small for {len(pool.members)} source domains: each needs two rows of a step"
        ) from error
