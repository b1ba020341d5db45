"""Numbers in another notation are found, and what only looks like numbers is not."""

import time
from collections.abc import Sequence

import numpy as np
import pytest

from tl_runner.datasets.notation import another_notation, form, points_between_thousands

ASCII = "a number with a sign, digits or quotes that are not plain ASCII"
THOUSANDS, COMMA = "a number with separators between thousands", "a number with a decimal comma"
PERCENT, MONEY, UNIT = "a percentage", "an amount of money", "a number with a unit"
DATE, TIME, BOUND, REMARK = "a date", "a time", "a bound and not a number", "a number with a remark"


def column(cells: Sequence[object]) -> np.ndarray:
    return np.array([None if cell is None else str(cell) for cell in cells], dtype=object)


@pytest.mark.parametrize(
    ("what", "cells"),
    [
        (THOUSANDS, "1.100,00|1,100.00|-1,100|1'100|1’100|1.100.000|1,00,000.50"),
        (THOUSANDS, "1 100|1\u00a0100|1\u202f100,5|1\u2009100\u2009000"),
        (COMMA, "3,5|-3,5|,5|1,5e3|3·5|0,125"),
        (ASCII, "\u22123.5|– 3|- 3|１２|٣٤|'3.5|=\"3.5\"|3.5\u200b"),
        (PERCENT, "7%|3,5 %|-1.5\u00a0%|7％|3‰"),
        (MONEY, "€ 3.50|$3|3,50 €|-$1,100.00|CHF 20|20 EUR"),
        (DATE, "2024-01-31|31.01.2024|1.2.2024|31.12.24|1/31/24|31/1/2024|3-Jan-2024|Jan 31, 2024|3. Mai 2024"),
        (DATE, "2024-01-31T12:00:00Z|2024-01-31 12:00:00.5+02:00|31.1.2024 7:30|1/31/2024, 7:30 PM"),
        (TIME, "12:30|7:30 am|1:02:03.5|12h30|1h 30m|2 d 4 h"),
        (BOUND, "<0.1|> 65|≥3,5|<= 7|~5"),
        (REMARK, "1.5 (H)|3,5 (low)|12*|(3.50)|3.50-"),
        (UNIT, "12 kg|12kg|3,5 mg/dl|80 °C|5 µg|100 km/h|1,100 m|5 years old|22 kg/m²"),
    ],
)  # fmt: skip
def test_the_form_of_a_cell(what, cells):
    for cell in cells.split("|"):
        found = form(cell)
        assert found is not None and found.what == what, cell


@pytest.mark.parametrize("cell", ["1", "-1.5", ".5", "5.", "1e3", "+2E-4", "007"])
def test_plain_numbers_have_no_form(cell):
    assert form(cell) is None


CODES = {
    "identifiers": [f"A{i}" for i in range(40)],
    "ranges of years": [f"{i}-{i + 1} years" for i in range(40)],
    "ranges": [f"{i}–{i + 5}" for i in range(0, 200, 5)] + [">200"],
    "versions": [f"{i % 3}.{i % 7}.{i % 30}" for i in range(40)],
    "long versions": [f"1.{i % 12}.{i + 10}" for i in range(40)],
    "seasons": [f"{2000 + i % 20}-{(i + 1) % 20:02}" for i in range(40)],
    "British postcodes": [f"SW{i % 9}A {i % 7}AA" for i in range(40)],
    "Dutch postcodes": [f"{1000 + i} {'ABCDEFG'[i % 7]}{'XYZ'[i % 3]}" for i in range(40)],
    "Indian postcodes": [f"{110 + i} 001" for i in range(40)],
    "Swedish postcodes": [f"{110 + i} 0{i % 9}" for i in range(40)],
    "US postcodes": [f"{10000 + i}-{1000 + i}" for i in range(40)],
    "house numbers": [f"{i}{'abcd'[i % 4]}" if i % 3 else f"{i}" for i in range(1, 41)],
    "school classes": [f"{i % 13}{'abc'[i % 3]}" for i in range(40)],
    "seats": [f"{i}{'ABCDEF'[i % 6]}" for i in range(40)],
    "addresses": [f"192.168.{i}.{i % 7}" for i in range(40)],
    "telephones": [f"030 555 {100 + i}" for i in range(40)],
    "hexadecimal": [f"{i * 7919 + 65536:x}" for i in range(40) if not f"{i * 7919 + 65536:x}".isdigit()],
    "ratios": ["16:9", "4:3", "21:9", "3:2"] * 10,
    "cylinders": [f"{i % 4 + 2}x{i % 5}" for i in range(40)],
    "diagnoses": [f"V{i}.{i % 9}" if i % 3 else f"E{i}" for i in range(40)],
    "several answers": [f"{i % 3},{i % 5},{i % 7}" for i in range(40)],
    "some answers": ["1", "1,2", "2,3", "1,2,3"] * 10,
    "ages": ["<18", "18-25", "26-65", ">65"] * 10,
    "bounds of one number": ["<5", ">5"] * 20,
    "grades": ["1", "1-", "2+", "2", "2-", "3+"] * 7,
    "a scale": ["1 (low)", "2", "3 (mid)", "5 (high)"] * 10,
    "ordinals": ["1st", "2nd", "3rd", "4th"] * 10,
    "rooms": ["1 room", "2 rooms", "3 rooms"] * 14,
    "sizes": ["S", "M", "L", "XL", "2XL"] * 8,
    "words": ["red", "green 1", "no. 5"] * 14,
    "weekdays": ["Mon", "Tue", "Wed"] * 14,
}


@pytest.mark.parametrize("name", CODES)
def test_what_only_looks_like_numbers_is_not_taken_for_them(name):
    assert another_notation(column(CODES[name])) is None


def test_most_cells_decide_and_the_commonest_form_names_them():
    cells = column(["a", 1, None, "7 kg", "8 kg", *("9,5 kg", "900 g") * 5, *range(20, 30), "1,5"])
    found = another_notation(cells)
    assert found is not None and (found.what, found.first, found.count, found.likely) == (UNIT, 3, 13, True)
    assert another_notation(column([*"abcdefgh", "3,5", "4,5"])) is None
    assert another_notation(column(range(30))) is None and another_notation(column([None, "x"])) is None


def test_few_different_amounts_may_be_categories_but_not_decimal_commas():
    for cells, likely in (
        (["5 mg", "10 mg", "20 mg"] * 9, False),
        (["0%", "50%"] * 9, False),
        (["2024-01-01", "2024-02-01"] * 9, False),
        (["5 mg", "10 mg", "20 mg"], True),  # three rows that all differ
        (["0,5", "1,5"] * 9, True),
        (["\u22121", "1", "\u22122"] * 9, True),
    ):
        found = another_notation(column(cells))
        assert found is not None and found.likely is likely, cells


def test_points_between_thousands_are_told_from_three_decimals():
    assert points_between_thousands(["900", None, "1.100", "2.350", "17"]) == 2
    for cells in (
        ["900", "1.100", "2.35"],  # not three digits
        ["900", "0.250", "1.100"],  # nobody groups a 0
        ["1.100", "2.350", "7.125"],  # three decimals throughout
        ["900", "1.125", "2.375"],  # zeros at the end are left out
        ["0", "1.100", "2.350"],
        ["1e3", "1.100"],
        ["900", "17"],
        [],
    ):
        assert points_between_thousands(cells) is None, cells


@pytest.mark.parametrize("word", ["9b74c9897bac770ffc029102a200c5de.png", "5" + "a1" * 40 + "(sha1)_x"])
def test_names_made_of_hashes_take_no_time(word):
    """A pattern that tries all ways to part a word would not end before the sun."""
    started = time.monotonic()
    assert form(word) is None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("word", ["Q1 2014", "2014-Q3", "2014q4"])
def test_quarters_are_dates(word):
    found = form(word)
    assert found and found.what == DATE
