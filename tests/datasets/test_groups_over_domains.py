"""Groups that several domains have: all of their rows are in one part, and shares are met as nearly as that allows."""

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.part_names import PARTS
from tl_runner.datasets.pool import pool
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.domains import UNKNOWN, Domain
from tl_runner.errors import UserError

CPU, NOTHING = torch.device("cpu"), Budget("count", 0)
Patients = dict[str, list[dict[str, int]]]  # by domain, of train, val and test: how many rows each patient has


def domain(name: str, start: int, patients: Iterable[int], each: int = 4, part: Any = None) -> Raw:
    """Rows of these patients, whose input numbers them; `part` says of a patient where it was given."""
    group = np.array([f"p{patient}" for patient in patients for _ in range(each)], dtype=object)
    n = len(group)
    given = None if part is None else torch.tensor([PARTS.index(part(int(name[1:]))) for name in group])
    x = torch.arange(start, start + n, dtype=torch.float32)[:, None]
    return Raw(name, x, torch.arange(n) % 2, ("n", "y"), given, group=group)


def groups(raw: Raw) -> list[str]:
    assert raw.group is not None
    return raw.group.tolist()


def split(sources: Sequence[Raw], target: Raw, seed: int = 0, budget: Budget = NOTHING) -> Patients:
    """Who is in which part of each domain."""
    pair, _, _ = split_domains(Drawn(pool(sources), target, {}), seed, budget, CPU)
    whose = {float(x): (raw.name, who) for raw in (*sources, target) for x, who in zip(raw.x, groups(raw), strict=True)}
    found: Patients = {raw.name: [{}, {}, {}] for raw in (*sources, target)}
    for side in (pair.source, pair.target):
        assert isinstance(side, Domain)
        for at, rows in enumerate((side.train, side.val, side.test)):
            for x in rows.take(torch.arange(len(rows))).flatten().tolist():
                name, who = whose[x]
                found[name][at][who] = found[name][at].get(who, 0) + 1
    return found


def in_two_splits(found: Patients) -> set[str]:
    """Patients of which one split of any domain has rows, and another split of any domain."""
    of_part = [set().union(*(parts[at] for parts in found.values())) for at in range(3)]
    return set().union(*(one & two for one, two in combinations(of_part, 2)))


def shares(parts: list[dict[str, int]]) -> list[float]:
    total = sum(sum(part.values()) for part in parts)
    return [sum(part.values()) / total for part in parts]


OVERLAPS: dict[str, list[range]] = {
    "the same": [range(50), range(50), range(50)],
    "a chain": [range(40), range(30, 70), range(60, 100)],
    "few in the target": [range(50), range(25, 75), range(22, 28)],
    "few in a source": [range(50), range(5), range(50)],
    "two pairs": [range(30), range(30), range(100, 130)],
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", OVERLAPS)
def test_a_group_is_in_one_part_over_all_domains(name, seed):
    sources = [domain("AB"[k], 1000 * k, who) for k, who in enumerate(OVERLAPS[name][:2])]
    found = split(sources, domain("C", 5000, OVERLAPS[name][2]), seed)
    assert not in_two_splits(found)
    for parts in found.values():
        n = sum(map(len, parts))
        # a group is 1/n of the rows, and each cut may miss by one
        assert shares(parts) == pytest.approx([0.6, 0.2, 0.2], abs=max(0.1, 1 / n)), parts
    assert all(set(part.values()) == {4} for parts in found.values() for part in parts)  # whole groups


def test_groups_of_one_domain_are_drawn_as_if_it_were_alone():
    one, other, target = domain("A", 0, range(20)), domain("B", 1000, range(20, 45)), domain("C", 5000, range(50, 80))
    together = split([one, other], target)
    for raw in (one, other):
        assert split([raw], target) == {name: together[name] for name in (raw.name, "C")}
    assert split([one], domain("D", 5000, range(90, 99)))["A"] == together["A"]


def test_a_seed_draws_which_groups_are_tested():
    tested = {tuple(split([domain("A", 0, range(30))], domain("C", 5000, range(30)), s)["C"][2]) for s in range(5)}
    assert len(tested) == 5


def test_domains_without_groups_are_split_as_they_are():
    plain = domain("A", 0, range(30))._replace(group=None)
    of_group = split_domains(Drawn(plain, domain("C", 5000, range(30)), {}), 0, NOTHING, CPU)[0].source
    of_none = split_domains(Drawn(plain, plain._replace(name="C", x=plain.x + 5000), {}), 0, NOTHING, CPU)[0].source
    assert of_group.test.take(torch.arange(24)).equal(of_none.test.take(torch.arange(24)))


def by_tens(patient: int) -> str:
    return "test" if patient % 10 == 0 else "train"


def test_parts_that_one_domain_was_given_hold_in_the_others():
    """The target's test patients are tested in the source, too, which nothing divides, or drawn from what is left."""
    target = domain("C", 5000, range(40), part=by_tens)
    found = split([domain("A", 0, range(50))], target)
    assert {*found["C"][2]} == {"p0", "p10", "p20", "p30"} and {*found["C"][2]} <= {*found["A"][2]}
    assert not in_two_splits(found) and shares(found["A"]) == pytest.approx([0.6, 0.2, 0.2], abs=0.05)
    found = split([domain("A", 0, range(40), part=by_tens)], domain("C", 5000, range(20, 60)))
    assert {"p20", "p30"} <= {*found["C"][2]} and not in_two_splits(found)


def test_groups_that_were_given_to_different_parts_are_refused():
    source = domain("A", 0, range(40), part=lambda patient: "test" if patient % 10 == 1 else "train")
    with pytest.raises(UserError, match=r"C: group 'p\d+' has rows in (train|test) of A and in (train|test) of C, as"):
        split([source], domain("C", 5000, range(40), part=by_tens))


def test_a_target_that_is_all_in_a_sources_train_split_is_refused():
    every = domain("A", 0, range(50), part=lambda patient: ("train", "val", "test")[max(0, patient - 47)])
    with pytest.raises(UserError, match=r"C has 10 groups .*none is left for its test split: .*settle 10 of them"):
        split([every], domain("C", 5000, range(10)))


def test_a_source_that_can_only_test_on_groups_of_the_target_says_so(caplog):
    target = domain("C", 5000, range(30), part=lambda patient: "test" if patient > 24 else "train")
    with caplog.at_level(logging.WARNING):
        found = split([domain("A", 0, range(25))], target)
    assert "the test split of A has groups that other domains have in another split (p" in caplog.text
    assert {*found["C"][2]} == {f"p{who}" for who in range(25, 30)} and shares(found["A"])[2] > 0.1
    assert in_two_splits(found) == {*found["A"][2]}  # none but these


def test_granted_labels_take_the_rows_of_their_groups_in_the_source_along():
    target = domain("C", 5000, range(40))
    chosen = torch.tensor([name in {f"p{who}" for who in range(0, 40, 5)} for name in groups(target)])
    some = target._replace(y=torch.where(chosen, target.y, UNKNOWN))
    sources = [domain("A", 0, range(20)), domain("B", 1000, range(10, 50))]
    before, after = split(sources, some), split(sources, some, budget=Budget("labelled"))
    moved = {f"p{who}" for who in range(0, 40, 5)}
    assert not in_two_splits(after)
    for name, parts in after.items():
        there = set().union(*before[name]) & moved
        assert there <= {*parts[0]} and set().union(*parts) == set().union(*before[name])
        assert {*parts[2]} == {*before[name][2]} - moved  # the others stay
    given = domain("A", 0, range(20), part=lambda patient: "test" if patient in (5, 7, 9) else "train")
    with pytest.raises(
        UserError, match=r"rows of A of the same groups into its own: those of group 'p5' were given to"
    ):
        split([given], some, budget=Budget("labelled"))
    few = domain("A", 0, [0, 5, 10, 15, 20, 25])
    with pytest.raises(UserError, match=r"which leaves 0 of the 24 rows of A for (val|test); it needs 2 or more"):
        split([few], some, budget=Budget("labelled"))
