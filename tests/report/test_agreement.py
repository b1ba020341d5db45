"""How far seeds agree on the rows that they share, by hand and in the tables of a target without labels."""

from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tl_runner.report.agreement import compare_seeds


def setting(tmp_path: Path, *tables: dict[str, str] | None) -> Any:
    """A setting whose runs, a seed each, kept these classes by row; None: no table."""
    scored = {}
    for seed, table in enumerate(tables):
        folder = tmp_path / str(seed)
        folder.mkdir()
        scored[seed] = SimpleNamespace(folder=folder, data=SimpleNamespace(quantity=None))
        if table is not None:
            lines = [
                "path,predicted,probability,cat,dog",
                *(f"{row},{said},0.9,0.9,0.1" for row, said in table.items()),
            ]
            (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return SimpleNamespace(scored=scored)


ONE = {"a.png": "cat", "b.png": "cat", "c.png": "dog", "d.png": "dog"}


def test_the_share_is_the_mean_over_pairs_of_seeds_on_the_rows_that_both_have(tmp_path):
    two = {**ONE, "a.png": "dog"}  # 3 of 4
    three = {"a.png": "cat", "b.png": "dog"}  # with one 1 of 2, with two 0 of 2
    # The heading counts as a row that all share: it must not.
    assert compare_seeds(setting(tmp_path, ONE, two, three)) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)


def test_without_two_tables_or_a_common_row_nothing_is_said(tmp_path):
    for name, tables in {"one": (ONE,), "none": (ONE, None), "others": (ONE, {"z.png": "cat"})}.items():
        (tmp_path / name).mkdir()
        assert isnan(compare_seeds(setting(tmp_path / name, *tables)))
