"""From two domains' rows to `(Pair, Answers)`: disjoint seeded splits, the label budget, a fingerprint.

No target label decides anything here but which rows are granted: rows are ordered by a hash of their content
before they are shuffled, and splits are never stratified.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.content import digests
from tl_runner.datasets.group_time_split import Times, cut_groups, cut_times, find_open_parts, tell_times
from tl_runner.datasets.part_names import PARTS
from tl_runner.domains import (
    Answers,
    Domain,
    InMemory,
    LabelledSplit,
    Labels,
    Member,
    OnDisk,
    Pair,
    Places,
    Split,
    Subset,
    has_label,
)
from tl_runner.errors import UserError, list_names
from tl_runner.plurals import count_noun
from tl_runner.rng import Rng
from tl_runner.storage.sections import DataInfo, QuantityInfo, SeedInfo
from tl_runner.tasks import Classification, Regression, Task

log = logging.getLogger(__name__)

TRAIN, VAL = 0.6, 0.2  # shares of a domain's rows, where its makers did not divide it; the rest is for testing
LEAST = 2  # rows of a part
Parts = dict[str, Tensor]  # the rows of each of `PARTS`
CHUNK = 1024  # rows hashed at a time: a memory-mapped tensor may be larger than memory


class Raw(NamedTuple):
    """All rows of a domain before they are cut.

    x (n, …) float32, uint8 for images of any size, or int16 for waveforms (n, 1, samples), whose `SoundInfo` is in the
    notes of `Drawn` as `sound`; y (n,) int64, the position in `classes`, or `UNKNOWN` of a target
    row without a label. Where a `quantity` of that name is to be predicted there are no classes, and y is float64, NaN
    of a row without a label. Rows of texts hold these in `texts` (n,); x (n, 2) are then hashes of them. `part` (n,)
    says where the makers of the data put a row, as a position in `PARTS`; a part without a row is cut from train.
    `names` (n,) say where each row came from: a file as the configuration leads to it, `file:line` of a table; None
    where the rows are no user's. Rows of one `group` (n,), such as those of a patient, stay in one part. Rows are
    ordered by `time` (n,), and the latest are for testing. At most one of these two is given. A pool of several domains
    has their names in `members`, and in `member` (n,) the position of each row's own.
    """

    name: str
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    part: Tensor | None = None
    names: NDArray[np.object_] | None = None
    quantity: str | None = None
    texts: NDArray[np.object_] | None = None
    group: NDArray[np.object_] | None = None
    time: Times | None = None
    members: tuple[str, ...] = ()
    member: Tensor | None = None

    def take(self, rows: Tensor) -> "Raw":
        """Some rows of the domain, by number or mask."""
        part, member = (None if each is None else each[rows] for each in (self.part, self.member))
        at = rows.numpy()
        names, texts, group = (None if each is None else each[at] for each in (self.names, self.texts, self.group))
        time = None if self.time is None else self.time[at]
        known = {"part": part, "names": names, "texts": texts, "group": group, "time": time, "member": member}
        return self._replace(x=self.x[rows], y=self.y[rows], **known)

    @property
    def parts(self) -> Tensor:
        """The part (n,) of each row; all are in train where nothing divides them."""
        return torch.full((len(self.y),), PARTS.index("train")) if self.part is None else self.part

    @property
    def rows(self) -> Tensor | NDArray[np.object_]:
        """What is known of each row before it is encoded."""
        return self.x if self.texts is None else self.texts


class Drawn(NamedTuple):
    """What a dataset returns.

    `source` is None where the source is in a backbone's weights. `notes` go into the record (which shift, how
    strong). `size` is the side that images of bytes get when they are used. `on_disk`: x are memory-mapped,
    and stay where they are. `encoding` is fitted on the source's training rows, and applied to all. That of texts
    is the backbone's, see `models.tokens`; it is given the target's training rows too, without labels.

    How seeds differ decides which test fits: see `_seeds`. `fresh`: every seed draws rows that no other seed has.
    `drawn_from`: where the seed takes only some of the target's rows, how many of each of `PARTS` it takes them from.
    Neither: the target's rows are taken to be the same at every seed, which is the cautious default for a function of
    a user's own.
    """

    source: Raw | None
    target: Raw
    notes: Mapping[str, Any]
    size: int | None = None
    on_disk: bool = False
    encoding: "Callable[..., Encoding] | None" = None
    fresh: bool = False
    drawn_from: Sequence[int] | None = None


class Encoding(NamedTuple):
    """How raw rows become inputs: `apply` maps columns (n, raw) to (n, d) float32, or texts (n,) to token ids (n, t).

    `facts` says it in JSON's words.
    """

    apply: Callable[[Any], Tensor]
    facts: Mapping[str, Any]


def split_domains(drawn: Drawn, seed: int, budget: Budget, device: torch.device) -> tuple[Pair, Answers, DataInfo]:
    """The pair on the device, the sealed answers, and what the record says of the data."""
    sides = {"source": drawn.source, "target": drawn.target}
    raws = {role: raw for role, raw in sides.items() if raw is not None}
    for role, raw in raws.items():
        if raw.quantity is None and len(raw.classes) < 2:
            raise UserError(f"the {role} has one class, {', '.join(raw.classes)}: there is nothing to tell apart")
    content = {role: digests(raw.x) for role, raw in raws.items()}
    _refuse_copies(raws, content)
    parts = _split_rows(raws, content, seed)
    if budget.kind == "labelled":
        parts = _put_labelled_into_train(raws, parts)
    _warn_of_copies_within(raws, content, parts)
    divided = {role: _describe_division(raw, parts[role]) for role, raw in raws.items()}
    fitted_on = raws.items() if drawn.target.texts is not None else [*raws.items()][:1]  # the source, if there is one
    rows_of = (raw.rows[parts[role]["train"]] for role, raw in fitted_on)  # not read where nothing is fitted
    encoding = drawn.encoding(*rows_of) if drawn.encoding else None
    tasks = _tasks(raws, parts)

    def domain(role: str) -> Domain:
        raw = raws[role]

        def split(rows: Tensor) -> Split:
            if drawn.on_disk:
                return OnDisk(raw.x, rows, device, drawn.size)
            x = encoding.apply(raw.rows[rows]) if encoding else raw.x[rows]
            return InMemory(x.to(device), drawn.size, None if raw.texts is None else raw.texts[rows].tolist())

        y = to_standard(raw.y, tasks[role])
        labels = Labels(*(y[parts[role][part]].to(device) for part in PARTS))
        splits = (split(parts[role][part]) for part in PARTS)
        return Domain(raw.name, tasks[role], *splits, labels=labels, members=_list_members(raw, parts[role], device))

    source, target = domain("source") if drawn.source else None, domain("target")
    labels = target.labels
    assert labels is not None
    _warn_of_absent(source)

    def give(rows: Tensor) -> LabelledSplit | None:
        return LabelledSplit(Subset(target.train, rows), labels.train[rows]) if len(rows) else None

    train, held_out = budget.choose(labels.train, target.classes, target.name)
    pair = Pair(source, replace(target, labels=None), granted=give(train), held_out=give(held_out))
    recorded = {field.name for field in fields(DataInfo)}
    info = DataInfo(
        fingerprint={role: fingerprint(raw) for role, raw in raws.items()},
        shape=list(pair.shape),
        input=pair.input,
        task=pair.task.name,
        quantity=_describe_quantity(pair.task),
        classes=list(target.classes),
        source_classes=None if pair.shared_labels or source is None else list(source.classes),
        domains={"source": source.name if source else None, "target": target.name},
        rows={role: [len(parts[role][part]) for part in PARTS] for role in raws},
        members=_count_members(source),
        granted=len(train) + len(held_out),
        labelled=None if bool(has_label(drawn.target.y).all()) else _count_labelled(labels),
        seeds=describe_seeds(drawn, int(has_label(labels.test).sum())),
        range=_range(filter(None, (source, target))),
        encoding=dict(encoding.facts) if encoding else None,
        resize="torch" if pair.input == "images" else None,
        notes={
            **{name: value for name, value in drawn.notes.items() if name not in recorded},
            **({"divided": divided} if any(divided.values()) else {}),
        },
    )
    info = replace(info, **{name: value for name, value in drawn.notes.items() if name in recorded})
    names = drawn.target.names
    places = None if names is None else Places(tuple(names), *(parts["target"][part] for part in PARTS))
    return pair, Answers(labels.test, places), info


def _tasks(raws: Mapping[str, Raw], parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Task]:
    """What is to be predicted in each domain; the units of a quantity are those of the source's training rows.

    Without a source domain it is learnt as it is: nothing may be known of labels that are not granted.
    """
    if (quantity := raws["target"].quantity) is None:
        return {role: Classification(raw.classes) for role, raw in raws.items()}
    if "source" not in raws:
        return {"target": Regression(quantity)}
    values = raws["source"].y[parts["source"]["train"]].double()
    mean, sd = values.mean().item(), values.std(correction=0).item()
    if not sd > 0:
        raise UserError(f"{quantity} is {mean:g} in every training row of {raws['source'].name}: nothing can be learnt")
    return dict.fromkeys(raws, Regression(quantity, mean, sd))


def to_standard(y: Tensor, task: Task) -> Tensor:
    """Labels as methods get them: class numbers as they are, a quantity (y − mean) / sd as float32."""
    return ((y.double() - task.mean) / task.sd).float() if isinstance(task, Regression) else y


def _describe_quantity(task: Task) -> QuantityInfo | None:
    return QuantityInfo(task.quantity, task.mean, task.sd) if isinstance(task, Regression) else None


def _count_labelled(labels: Labels) -> list[int]:
    """How many rows of each part have a label."""
    return [int(has_label(y).sum()) for y in labels]


def _put_labelled_into_train(raws: Mapping[str, Raw], parts: Mapping[str, Parts]) -> dict[str, Parts]:
    """The parts with every labelled row of the target in train, but for those that the data's makers put elsewhere.

    Groups move whole, and so do the rows that other domains have of them.
    """
    target = raws["target"]
    if bool(has_label(target.y).all()):
        raise UserError(f"granted=labelled: every row of {target.name} has a label; granted=all grants those of train")
    if target.time is not None:
        raise UserError(
            f"granted=labelled moves labelled rows of {target.name} into its train split whatever their time, and"
            " dataset.time tests on the latest: leave one out"
        )
    moving = {"target": has_label(target.y) & (target.parts == PARTS.index("train"))}
    if target.group is not None:
        groups = {*target.group[moving["target"].numpy()].tolist()}
        moving = {role: _are_of(raw.group, groups) for role, raw in raws.items() if raw.group is not None}
    return {role: _move_into_train(role, raws, each, moving[role]) if role in moving else each
            for role, each in parts.items()}  # fmt: skip


def _are_of(group: NDArray[np.object_], groups: Collection[str]) -> Tensor:
    """Which rows (n,) are of one of these groups."""
    return torch.tensor([name in groups for name in group.tolist()], dtype=torch.bool)


def _move_into_train(role: str, raws: Mapping[str, Raw], parts: Parts, moving: Tensor) -> Parts:
    """The parts of a domain, or of those of a pool, with the rows (n,) that are `moving` in train."""
    raw, target = raws[role], raws["target"].name
    also = "" if role == "target" else f", and rows of {raw.name} of the same groups into its own"
    said = f"granted=labelled moves all labelled rows of {target} into its train split{also}"
    given = moving & (raw.parts != PARTS.index("train"))
    if role == "source" and raw.group is not None and bool(given.any()):
        row = int(given.nonzero()[0])
        at = PARTS[int(raw.parts[row])]
        raise UserError(
            f"{said}: those of group {raw.group[row]!r} were given to {at} (dataset.split). Rows of a group must be in"
            " one part: leave out dataset.group, or granted=labelled"
        )
    movable = moving & (raw.parts == PARTS.index("train"))
    kept = {part: rows if part == "train" else rows[~movable[rows]] for part, rows in parts.items()}
    moved = [rows[movable[rows]] for part, rows in parts.items() if part != "train"]
    for name, own in _list_domains(raw):
        for part, rows in kept.items():
            if (left := int(torch.isin(rows, own).sum())) < LEAST:
                raise UserError(
                    f"{said}, which leaves {left} of the {len(own)} rows of {name} for {part}; it needs {LEAST} or more"
                )
    return {**kept, "train": torch.cat([kept["train"], *moved])}


def count_rows_by_part(raw: Raw) -> tuple[int, ...]:
    """How many labelled rows there are of each of `PARTS`; all are train where nothing divides them."""
    return tuple(int((has_label(raw.y) & (raw.parts == index)).sum()) for index in range(len(PARTS)))


def describe_seeds(drawn: Drawn, test: int) -> SeedInfo:
    """How runs on several seeds are related, each scored on so many labelled rows.

    The pool is the makers' test part, or what `_parts` cuts it from.
    """
    if drawn.fresh:
        return SeedInfo("independent", test)
    train, _, given = count_rows_by_part(drawn.target)
    if drawn.target.time is not None and not given:
        return SeedInfo("fixed", test, test)  # the latest rows, whatever the seed
    pool = (drawn.drawn_from or (train, 0, given))[PARTS.index("test" if given else "train")]
    return SeedInfo("fixed" if pool == test else "resplit", test, pool)


def fingerprint(raw: Raw) -> str:
    """A hash of a domain's arrays as they are used."""
    digest = blake2b(repr(raw.quantity or raw.classes).encode(), digest_size=8)
    for column in (raw.group, raw.time):
        if column is not None:
            digest.update("\0".join(map(str, column.tolist())).encode())
    members = [] if raw.member is None else [raw.member]
    for tensor in (raw.x, raw.y, torch.empty(0) if raw.part is None else raw.part, *members):
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        for chunk in tensor.split(CHUNK):
            digest.update(chunk.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _range(domains: Iterable[Domain]) -> list[float]:
    """The least and the largest number of all training inputs; bytes are taken as [0, 1], and so are token ids.

    Waveforms of whole numbers are taken as [−1, 1].
    """
    domains = [*domains]
    if any(side.train.x.dtype == torch.int16 for side in domains if isinstance(side.train, InMemory | OnDisk)):
        return [-1.0, 1.0]
    held = [side.train.x for side in domains if isinstance(side.train, InMemory) and side.train.x.is_floating_point()]
    if not held:
        return [0.0, 1.0]
    return [min(float(x.min()) for x in held), max(float(x.max()) for x in held)]


def _warn_of_absent(source: Domain | None) -> None:
    if source and source.labels and source.classes:
        for part, labels in zip(PARTS, source.labels, strict=True):
            warn_of_absent_classes(labels, source.classes, part, source.name)
            for each in source.members:  # what a domain lacks in all parts was said when it was read
                every = [of[getattr(each, name)] for of, name in zip(source.labels, PARTS, strict=True)]
                there = {*torch.cat(every).tolist()}
                warn_of_absent_classes(labels[getattr(each, part)], source.classes, part, each.name, there)


def warn_of_absent_classes(
    labels: Tensor, classes: Sequence[str], part: str, domain: str, asked: Collection[int] | None = None
) -> None:
    """Log the classes of which none of these labels (n,) is, if there is any label; of quantities there are none.

    Only those `asked` for by number, if some are.
    """
    known = labels[has_label(labels)]
    present = set(known.unique().tolist())
    numbers = range(len(classes)) if asked is None else sorted(asked)
    absent = [classes[index] for index in numbers if index not in present and index >= 0]
    if absent and len(known):
        row = "row" if len(known) == len(labels) else "labelled row"
        log.warning("the %s split of %s holds no %s of class %s", part, domain, row, list_names(absent))


def _list_members(raw: Raw, parts: Mapping[str, Tensor], device: torch.device) -> tuple[Member, ...]:
    """Which rows of each split are of which domain of the pool."""
    if raw.member is None:
        return ()
    of_part = [raw.member[parts[part]].to(device) for part in PARTS]
    positions = range(len(raw.members))
    return tuple(Member(raw.members[k], *((of == k).nonzero().squeeze(1) for of in of_part)) for k in positions)


def _count_members(source: Domain | None) -> dict[str, list[int]] | None:
    """How many rows of train, val and test each domain of a pool has."""
    if source is None or not source.members:
        return None
    return {each.name: [len(each.train), len(each.val), len(each.test)] for each in source.members}


def _refuse_copies(raws: Mapping[str, Raw], content: Mapping[str, NDArray[np.uint64]]) -> None:
    """Images, texts and recordings that are in both domains; a table's rows may be equal: `table` checks on its own."""
    target = raws["target"]
    nouns = {torch.uint8: "image", torch.int16: "recording"}
    what = nouns.get(target.x.dtype) if target.texts is None else "text"
    if "source" in raws and what:
        again = int(np.isin(content["target"], content["source"]).sum())
        if again == len(content["target"]):
            raise UserError(f"every {what} of the target also occurs in the source: there is nothing to transfer")
        if again:
            occur = "occurs" if again == 1 else "occur"
            log.warning("%d of %d %ss of the target also %s in the source", again, len(content["target"]), what, occur)


def _warn_of_copies_within(
    raws: Mapping[str, Raw], content: Mapping[str, NDArray[np.uint64]], parts: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Texts of a domain's test split that are also in its train split: people write the same twice."""
    for role, raw in raws.items():
        if raw.texts is not None:
            tested, rest = (content[role][parts[role][part].numpy()] for part in ("test", "train"))
            if again := int(np.isin(tested, rest).sum()):
                log.warning(
                    "%d of %s of the %s's test split also %s in its train split: take copies out, or its score is too"
                    " optimistic",
                    again, count_noun(len(tested), "text"), role, "occurs" if again == 1 else "occur",
                )  # fmt: skip


def _list_domains(raw: Raw) -> list[tuple[str, Tensor]]:
    """The name and the rows of the domain, or of each domain of a pool."""
    if raw.member is None:
        return [(raw.name, torch.arange(len(raw.y)))]
    return [(name, (raw.member == position).nonzero().squeeze(1)) for position, name in enumerate(raw.members)]


def _split_rows(raws: Mapping[str, Raw], content: Mapping[str, NDArray[np.uint64]], seed: int) -> dict[str, Parts]:
    """The rows of each part of each role. Each domain of a pool is split as it would be alone; then its rows are mixed.

    Groups are in one part over all domains. Those with the fewest groups are cut first, since the others have more left
    by which they come near to their shares. Only the source may test on groups that it has to share with the target.
    """
    domains = [(role, name, own) for role, raw in raws.items() for name, own in _list_domains(raw)]
    alone = [_without_inputs(raws[role], name, own) for role, name, own in domains]
    open_parts = find_open_parts((raw.name, raw.parts, raw.group) for raw in alone if raw.group is not None)
    groups = [0 if raw.group is None else len({*raw.group.tolist()}) for raw in alone]
    parts_of = dict[int, Parts]()
    for at in sorted(range(len(alone)), key=groups.__getitem__):
        (role, _, own), raw = domains[at], alone[at]
        parts = _parts(raw, content[role][own.numpy()], seed, open_parts, repeat=role == "source")
        if raw.group is not None:
            for index, part in enumerate(PARTS):
                for each in {*raw.group[parts[part].numpy()].tolist()}:
                    open_parts[each] = open_parts[each] & {index} or open_parts[each]
        parts_of[at] = {part: own[rows] for part, rows in parts.items()}
    joined = dict[str, Parts]()
    for role, raw in raws.items():
        held = [parts_of[at] for at, (other, _, _) in enumerate(domains) if other == role]
        joined[role] = held[0] if raw.member is None else _mix(held, seed)
    return joined


def _without_inputs(raw: Raw, name: str, rows: Tensor) -> Raw:
    """These rows as a domain of this name. No input decides how it is split: none is read or copied."""
    light = raw._replace(name=name, x=torch.empty(len(raw.x), 0), texts=None, members=(), member=None)
    return light.take(rows)


def _mix(domains: Sequence[Parts], seed: int) -> Parts:
    """The rows of each part of all domains of a pool, in random order."""
    mixed = {part: torch.cat([each[part] for each in domains]) for part in PARTS}
    rng = Rng(seed)
    return {
        part: rows[torch.randperm(len(rows), generator=rng.child("pool", part).generator())]
        for part, rows in mixed.items()
    }


def _describe_division(raw: Raw, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the record says of groups, or of the first and the last time in each part; times are logged, too."""
    if raw.group is not None:
        return {"groups": {part: len({*raw.group[rows.numpy()].tolist()}) for part, rows in parts.items()}}
    if raw.time is None:
        return {}
    times = dict(zip(PARTS, tell_times(raw.time, [parts[part] for part in PARTS]), strict=True))
    told = ", ".join(f"{part} {first} to {last}" for part, (first, last) in times.items())
    log.info("%s is divided by time: %s", raw.name, told)
    return {"times": times}


def _parts(
    raw: Raw, content: NDArray[np.uint64], seed: int, open_parts: Mapping[str, frozenset[int]], repeat: bool
) -> Parts:
    """The rows of each part: as given, and what is missing cut from train. `open_parts` and `repeat`: see `cut_groups`.

    A given test part has the same order at every seed, so that runs can be compared row by row.
    """
    by_content = torch.from_numpy(np.argsort(content, kind="stable"))
    generator = Rng(seed).child("split", raw.name).generator()
    shuffled = by_content[torch.randperm(len(by_content), generator=generator)]
    given = raw.parts[shuffled]
    train, val, test = (shuffled[given == index] for index in range(len(PARTS)))
    test = by_content[torch.isin(by_content, test)]
    n = len(train)
    to_val = 0 if len(val) else int(VAL * n)
    to_test = 0 if len(test) else n - int(TRAIN * n) - int(VAL * n)
    if raw.group is not None:
        of_groups = Rng(seed).child("split", raw.name, "groups").generator()
        kept, cut_val, cut_test = cut_groups(
            train, raw.group, (to_val, to_test), of_groups, raw.name, open_parts, repeat
        )
    elif raw.time is not None:
        kept, cut_val, cut_test = cut_times(train, raw.time, (to_val, to_test), raw.name)
        cut_test = by_content[torch.isin(by_content, cut_test)]
    else:
        kept, cut_val, cut_test = train.split([n - to_val - to_test, to_val, to_test])
    parts = {"train": kept, "val": torch.cat([val, cut_val]), "test": torch.cat([test, cut_test])}
    for part, rows in parts.items():
        if len(rows) < LEAST:
            raise UserError(
                f"the {part} split of {raw.name} would hold {len(rows)} of its {len(raw.x)} rows; it needs {LEAST} or"
                " more"
            )
    return parts
