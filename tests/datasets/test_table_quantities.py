"""dataset=table dataset.task=regression: values read as written, refused by line, unlabelled where a cell is empty."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.table import table as csv
from tl_runner.errors import UserError

CPU = torch.device("cpu")


def write(path: str, prices: list[object], shift: float = 0.0) -> str:
    rows = [f"{i + shift},{i % 3},{price}" for i, price in enumerate(prices)]
    Path(path).write_text("\n".join(["size,rooms,price", *rows]) + "\n")
    return path


def prices(n: int = 30) -> list[object]:
    return [round(100 + 3.5 * i, 2) for i in range(n)]


def read(first: list[object], second: list[object], **options):
    files = {"source": write("a.csv", first), "target": write("b.csv", second, 0.5)}
    return csv(0, **files, label="price", task="regression", numeric=("size", "rooms"), **options)


def test_values_are_those_of_the_cells():
    drawn = read(prices(), ["1e3", "-7.25", *prices(28)])
    assert drawn.source and drawn.source.y.tolist() == prices() and drawn.source.classes == ()
    assert drawn.target.y[:2].tolist() == [1000.0, -7.25] and drawn.target.quantity == "price"


def test_target_rows_without_a_value_are_unlabelled():
    drawn = read(prices(), ["", "NA", *prices(28)])
    assert torch.isnan(drawn.target.y[:2]).all() and torch.isfinite(drawn.target.y[2:]).all()
    pair, _, info = split_domains(drawn, 0, Budget.parse("all"), CPU)
    assert info.labelled and sum(info.labelled) == 28
    assert pair.granted and pair.held_out and len(pair.granted.y) + len(pair.held_out.y) == info.labelled[0]
    without = read(prices(), prices(), labelled="no")
    assert torch.isnan(without.target.y).all()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("cheap", r"column 'price': line 4 of a.csv holds 'cheap', which is no finite number \(1 of 30 rows\)"),
        ("1.100,50", r"holds '1.100,50'.*write plain numbers"),
        ("12 €", r"holds '12 €'"),
        ("", r"1 of the 30 rows of a has no label in column 'price' \(a.csv, lines 4\)"),
    ],
)
def test_a_cell_that_is_no_number_is_refused_with_its_line(cell, message):
    first = prices()
    first[2] = f'"{cell}"'
    with pytest.raises(UserError, match=message):
        read(first, prices())


@pytest.mark.parametrize("option", [{"labels": "shared"}, {"label_set": ("a",)}])
def test_options_about_classes_are_refused(option):
    with pytest.raises(UserError, match=f"{next(iter(option))}.* is about classes"):
        read(prices(), prices(), **option)


def test_a_copy_of_a_domain_is_refused_by_its_values_too():
    files = write("a.csv", prices()), write("b.csv", prices())
    with pytest.raises(UserError, match="a and b hold the same rows"):
        csv(0, source=files[0], target=files[1], label="price", task="regression", numeric=("size",))
    other = write("c.csv", np.array(prices())[::-1].tolist())
    assert csv(0, source=files[0], target=other, label="price", task="regression", numeric=("size",)).source
