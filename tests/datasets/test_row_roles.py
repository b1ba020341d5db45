"""Columns that divide the rows: a split column, groups that stay whole, time."""

import logging
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.group_time_split import cut_groups, cut_times
from tl_runner.datasets.split import PARTS, split_domains
from tl_runner.datasets.table import table as table_of
from tl_runner.errors import UserError

table: Any = table_of  # whose source is never None
CPU, NOTHING = torch.device("cpu"), Budget("count", 0)
N = 60
HEADER = "x,part,who,day,label"
WAYS: list[dict[str, Any]] = [{"group": "who"}, {"time": "day"}, {"split": "part"}]


def rows(shift: float, n: int = N, labels: str = "ny") -> list[list[str]]:
    """A number, a part, one of 12 people, a day of two months and a label; the label knows nothing of the rest."""
    parts = ["train"] * 4 + ["valid", "Test"]
    return [
        [f"{i / 7 + shift}", parts[i % 6], f"p{i % 12}", f"2024-{1 + i % 2:02}-{1 + i * 7 % 28:02}", labels[i // 5 % 2]]
        for i in range(n)
    ]


def write(name: str, body: Sequence[Sequence[str]]) -> None:
    Path(name).write_text("\n".join([HEADER, *map(",".join, body)]))


def divide(seed: int = 0, budget: Budget = NOTHING, target: Any = None, **options: Any) -> Any:
    """The pair, its answers and the record of two files; columns that are not used are dropped."""
    write("a.csv", rows(0.0))
    write("b.csv", rows(100.5) if target is None else target)
    named = {options.get(key) for key in ("split", "group", "time")}
    dropped = tuple(name for name in ("part", "who", "day") if name not in named)
    drawn = table(0, source="a.csv", target="b.csv", drop=dropped, **options)
    return split_domains(drawn, seed, budget, CPU)


def lines(answers: Any) -> dict[str, list[int]]:
    """Which lines of the target's file are in each part."""
    places = answers.places
    return {
        part: [int(places.names[row].rpartition(":")[2]) for row in getattr(places, part).tolist()] for part in PARTS
    }


def column(answers: Any, index: int, body: Sequence[Sequence[str]] | None = None) -> dict[str, list[str]]:
    """What a column holds in each part of the target."""
    body = rows(100.5) if body is None else body
    return {part: [body[line - 2][index] for line in found] for part, found in lines(answers).items()}


def test_a_split_column_is_followed_and_is_no_feature():
    pair, answers, data = divide(split="part")
    assert column(answers, 1) == {"train": ["train"] * 40, "val": ["valid"] * 10, "test": ["Test"] * 10}
    assert pair.shape == (1,) and data.rows == {"source": [40, 10, 10], "target": [40, 10, 10]}
    assert lines(divide(seed=5, split="part")[1])["test"] == lines(answers)["test"]  # the same order, too


def test_a_part_that_the_column_does_not_name_is_cut_from_train():
    body = [[x, "train" if part != "Test" else part, *rest] for x, part, *rest in rows(100.5)]
    _, answers, data = divide(split="part", target=body)
    assert data.rows["target"] == [40, 10, 10] and {*column(answers, 1, body)["test"]} == {"Test"}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts_and_shares_are_about_met(seed):
    _, answers, data = divide(seed, group="who")
    found = {part: {*words} for part, words in column(answers, 2).items()}
    assert all(not found[one] & found[two] for one, two in combinations(PARTS, 2))
    assert data.rows["target"] == [35, 10, 15] or data.rows["target"] == [40, 10, 10]
    assert data.notes["divided"]["target"]["groups"] == {part: len(people) for part, people in found.items()}


def test_groups_are_drawn_by_the_seed_and_not_by_inputs_labels_or_order():
    def tested(seed: int, body: Sequence[Sequence[str]] = rows(100.5)) -> set[str]:
        return {*column(divide(seed, group="who", target=body)[1], 2, body)["test"]}

    assert len({frozenset(tested(seed)) for seed in range(6)}) > 1
    changed = [[f"{float(x) * -3 + 1}", part, who, day, "yn"[label == "y"]] for x, part, who, day, label in rows(7.0)]
    assert tested(1) == tested(1, changed) == tested(1, changed[::-1])


def test_a_part_that_groups_leave_far_from_its_share_is_said(caplog):
    body = [[x, part, f"p{min(i // 25, 2)}", *rest] for i, (x, part, _, *rest) in enumerate(rows(100.5))]
    with caplog.at_level(logging.WARNING):
        _, answers, _ = divide(group="who", target=body)
    assert all(len({*words}) == 1 for words in column(answers, 2, body).values())
    assert re.search(r"split of b has 25 of its 60 rows where about 12 were wanted: groups .*there are 3", caplog.text)


def test_groups_are_cut_as_an_exhaustive_search_would_where_sizes_allow():
    """Ten groups of one size: the shares are met exactly, whatever the order."""
    names = np.array([f"g{i % 10}" for i in range(100)], dtype=object)
    for seed in range(10):
        cut = cut_groups(torch.arange(100), names, (20, 20), torch.Generator().manual_seed(seed), "d")
        assert [len(part) for part in cut] == [60, 20, 20]
        assert sorted(torch.cat(cut).tolist()) == [*range(100)]


def test_time_orders_the_split_and_a_day_is_in_one_part(caplog):
    with caplog.at_level(logging.INFO):
        _, answers, data = divide(time="day")
    found = column(answers, 3)
    assert max(found["train"]) < min(found["val"]) and max(found["val"]) < min(found["test"])
    assert data.rows["target"] == [36, 12, 12] or abs(data.rows["target"][2] - 12) <= 3
    assert data.seeds.kind == "fixed" and data.notes["divided"]["target"]["times"]["test"][1] == max(found["test"])
    assert re.search(r"b is divided by time: train 2024-01-01 to 2024-\d\d-\d\d, val 2024", caplog.text)
    assert lines(divide(seed=3, time="day")[1])["test"] == lines(answers)["test"]


def test_time_may_be_a_number():
    body = [[x, part, who, str(100 - i), label] for i, (x, part, who, _, label) in enumerate(rows(100.5))]
    write("a.csv", [[x, part, who, str(i), label] for i, (x, part, who, _, label) in enumerate(rows(0.0))])
    write("b.csv", body)
    drawn = table(0, source="a.csv", target="b.csv", time="day", drop=("part", "who"))
    _, answers, _ = split_domains(drawn, 0, NOTHING, CPU)
    assert sorted(lines(answers)["test"]) == [*range(2, 14)]  # the first lines have the largest numbers


@pytest.mark.parametrize("wanted", [(20, 20), (0, 20), (20, 0), (1, 1)])
def test_cuts_in_time_are_next_to_where_they_should_be(wanted):
    """Against a search over all pairs of cuts."""
    times = np.sort(np.random.default_rng(0).integers(0, 30, 100)).astype(float)
    cut = cut_times(torch.arange(100), times, wanted, "d")
    ends = [0, *(i for i in range(1, 100) if times[i] != times[i - 1]), 100]
    last = 100 if not wanted[1] else min(ends[1:-1], key=lambda end: abs(end - (100 - wanted[1])))
    first = last if not wanted[0] else min((e for e in ends[1:] if e < last), key=lambda e: abs(e - 100 + sum(wanted)))
    assert [len(part) for part in cut] == [first, last - first, 100 - last]


BAD: dict[str, tuple[dict[str, Any], dict[int, str], str]] = {
    "an unknown part": ({"split": "part"}, {1: "later"}, "line 4 of b.csv holds 'later', and dataset.split takes t"),
    "no part": ({"split": "part"}, {1: ""}, "column 'part': line 4 of b.csv has no value, and dataset.split needs one"),
    "no group": ({"group": "who"}, {2: "NA"}, "column 'who': line 4 of b.csv has no value, and dataset.group needs"),
    "no time": ({"time": "day"}, {3: ""}, "column 'day': line 4 of b.csv has no value, and dataset.time=day orders"),
    "no date": ({"time": "day"}, {3: "5.1.24"}, "line 4 of b.csv holds '5.1.24', which is no date: .* numbers, or"),
    "no column": ({"group": "whom"}, {}, "dataset.group=whom: a.csv has no such column"),
    "two uses": ({"group": "who", "split": "who"}, {}, "'who' is named twice, in dataset.split and in dataset.group"),
    "time, group": ({"group": "who", "time": "day"}, {}, "dataset.time=day and dataset.group=who: .* Leave one out"),
    "time, split": ({"split": "part", "time": "day"}, {}, "dataset.time=day and dataset.split=part: .* Leave one out"),
    "split, test": ({"split": "part", "test": "c.csv"}, {}, "both say which rows are tested: leave one out"),
    "split, score_on": (
        {"split": "part", "score_on": "labelled"}, {4: ""}, "dataset.score_on=labelled .* it has one already"
    ),
    "straddling": ({"split": "part", "group": "who"}, {2: "p0"}, "b: group 'p0' has rows in train and in|in .* and in"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_contradicts_or_is_missing_is_refused(name):
    options, change, message = BAD[name]
    body = rows(100.5)
    for index, word in change.items():
        body[2][index] = word
        if name == "straddling":
            body[4][index] = word
    with pytest.raises(UserError, match=message):
        divide(target=body, **options)


def test_too_few_groups_or_times_are_refused():
    body = rows(100.5)
    cases: list[tuple[int, dict[str, Any], str]] = [
        (2, {"group": "who"}, r"b has 2 groups \(p0, p1\) for 3 parts, and a group is in one alone"),
        (3, {"time": "day"}, r"b has 2 different times for 3 parts"),
    ]
    for index, options, message in cases:
        few = [
            [*row[:index], ("p0", "p1")[i % 2] if index == 2 else f"2024-01-0{1 + i % 2}", *row[index + 1 :]]
            for i, row in enumerate(body)
        ]
        with pytest.raises(UserError, match=message):
            divide(target=few, **options)


@pytest.mark.parametrize("options", WAYS)
def test_labels_of_the_target_do_not_matter_for_the_split(options):
    permuted = [[*row[:-1], rows(0)[(i * 7) % N][-1]] for i, row in enumerate(rows(100.5))]
    removed = [[*row[:-1], ""] for row in rows(100.5)]
    found = [lines(divide(target=body, **options)[1]) for body in (rows(100.5), permuted, removed)]
    assert found[0] == found[1] == found[2]


def some_labelled(every: int = 4) -> list[list[str]]:
    return [[*row[:-1], row[-1] if i % every == 0 else ""] for i, row in enumerate(rows(100.5))]


def test_all_labels_granted_move_whole_groups_into_train():
    body = some_labelled(every=24)  # of person 0 alone
    _, answers, data = divide(group="who", target=body, budget=Budget("labelled"))
    found = {part: {*words} for part, words in column(answers, 2, body).items()}
    assert all(not found[one] & found[two] for one, two in combinations(PARTS, 2))
    assert "p0" in found["train"] and data.granted == data.labelled[0] == 3
    with pytest.raises(UserError, match=r"granted=labelled moves labelled rows .* dataset.time tests on the latest"):
        divide(time="day", target=body, budget=Budget("labelled"))


def test_granted_labels_come_from_train_whatever_divides_the_rows():
    for options in WAYS:
        pair, _, data = divide(budget=Budget("count", 3), **options)
        assert data.granted == 6 and pair.granted is not None


def test_labelled_rows_that_are_scored_must_not_cut_groups():
    whole = [[*row[:-1], row[-1] if row[2] in ("p0", "p1", "p2") else ""] for row in rows(100.5)]
    _, answers, _ = divide(group="who", target=whole, score_on="labelled")
    assert {*column(answers, 2, whole)["test"]} == {"p0", "p1", "p2"}
    with pytest.raises(UserError, match=r"b: group 'p0' has rows in .*dataset.score_on=labelled"):
        divide(group="who", target=some_labelled(every=5), score_on="labelled")


def test_rows_of_a_test_file_must_be_of_other_groups():
    write("a.csv", rows(0.0))
    write("b.csv", rows(100.5))
    others = [[x, part, f"q{who}", *rest] for x, part, who, *rest in rows(50.25, 12)]
    options: dict[str, Any] = {"source": "a.csv", "target": "b.csv", "group": "who", "drop": ("part", "day")}
    write("c.csv", others)
    _, answers, _ = split_domains(table(0, **options, test="c.csv"), 0, NOTHING, CPU)
    assert {name.partition(":")[0] for name in answers.places.of_test} == {"c.csv"}
    write("c.csv", rows(50.25, 12))
    with pytest.raises(UserError, match="group 'p0' has rows in train and in test"):
        split_domains(table(0, **options, test="c.csv"), 0, NOTHING, CPU)


def test_rows_of_classes_that_are_left_out_take_their_facts_along():
    body = [[*row[:-1], "other" if i % 10 == 3 else row[-1]] for i, row in enumerate(rows(100.5))]
    _, answers, _ = divide(split="part", target=body, label_set=("n", "y"))
    assert column(answers, 1, body)["test"] == ["Test"] * len(lines(answers)["test"])
    assert "other" not in {word for words in column(answers, 4, body).values() for word in words}


def test_a_class_that_a_part_of_the_source_lacks_is_said(caplog):
    write("b.csv", rows(100.5))
    write("a.csv", [[*row[:-1], "n" if row[1] == "Test" else row[-1]] for row in rows(0.0)])
    drawn = table(0, source="a.csv", target="b.csv", split="part", drop=("who", "day"))
    with caplog.at_level(logging.WARNING):
        split_domains(drawn, 0, NOTHING, CPU)
    assert "the test split of a holds no row of class y" in caplog.text and "of b holds" not in caplog.text
