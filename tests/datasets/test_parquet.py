"""Tables in Parquet files: what CSV holds reads alike; other kinds of columns are read as asked, or refused."""

import datetime as dt
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.read_table import read_table
from tl_runner.datasets.table import table as table_of
from tl_runner.errors import UserError

pa: Any = pytest.importorskip("pyarrow")
table: Any = table_of  # whose source is never None


def write(name: str, **columns: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), name)


def read(name: str = "a.parquet", literal: Any = (), drop: Any = (), **options: Any) -> Any:
    return read_table(name, name, Dialect.parse(**{"missing": ("NA",), **options}), literal=literal, drop=drop)


def test_numbers_words_and_gaps_are_as_in_a_csv_file():
    write(
        "a.parquet",
        x=[1.5, None, float("nan")],
        n=pa.array([1, 2, None], pa.int32()),
        d=pa.array([Decimal("1.50"), Decimal("2.25"), None]),
        c=["u", " NA ", ""],
        k=pa.array(["u", "v", "u"]).dictionary_encode(),
        b=[True, False, None],
        words=["1.5", "2", "NA"],
        empty=pa.nulls(3),
    )
    found = {name: cells.tolist() for name, cells in read().cells.items()}
    assert [*map(repr, found["x"])] == ["1.5", "nan", "nan"] and [*map(repr, found["n"])] == ["1.0", "2.0", "nan"]
    assert [*map(repr, found["d"])] == ["1.5", "2.25", "nan"] and [*map(repr, found["words"])] == ["1.5", "2.0", "nan"]
    assert found["c"] == ["u", None, None] and found["k"] == ["u", "v", "u"] and found["b"] == ["True", "False", None]
    assert np.isnan(found["empty"]).all()
    assert read(literal=["n"]).cells["n"].tolist() == ["1", "2", None]
    assert read().places()[0] == "a.parquet:1" and read().where(2) == "row 3 of a.parquet"


GAPS: dict[str, tuple[Any, tuple[str, ...], list[float]]] = {
    "whole": ([1, -999, 3], ("-999",), [1.0, np.nan, 3.0]),
    "with decimals": ([1.5, -999.0, -999.5], ("-999",), [1.5, np.nan, -999.5]),
    "written otherwise": ([1, -999, 3], ("-9.990e2", "NA"), [1.0, np.nan, 3.0]),
    "decimal": ([Decimal("1.50"), Decimal("-99.90"), None], ("-99.9",), [1.5, np.nan, np.nan]),
    "32 bits": (pa.array([1.5, -99.9, 2.5], pa.float32()), ("-99.9",), [1.5, np.nan, 2.5]),
    "beyond the largest": ([1.5, 1e38, 2.5], ("1e38",), [1.5, np.nan, 2.5]),
    "beyond 32 bits": (pa.array([1.5, 2.5], pa.float32()), ("-1e300",), [1.5, 2.5]),
    "the least whole number": ([1, -(2**63), 3], (str(-(2**63)),), [1.0, np.nan, 3.0]),
    "no number": ([1, -999, 3], ("NA",), [1.0, -999.0, 3.0]),
}


@pytest.mark.parametrize("name", GAPS)
def test_numbers_that_stand_for_a_missing_value_are_none(name):
    values, missing, expected = GAPS[name]
    write("a.parquet", it=values, x=[1.0] * len(values))
    found = read(missing=missing).cells["it"]
    assert found.dtype == np.float64 and [*map(repr, found.tolist())] == [*map(repr, expected)]
    words = read(missing=missing, literal=["it"]).cells["it"].tolist()
    assert [word is None for word in words] == np.isnan(expected).tolist()


def test_a_missing_label_is_no_class_whatever_its_type():
    for k, kind in ((0, pa.int64()), (1, pa.float64()), (2, pa.string())):
        label = pa.array([1, 2, -999, 1] * 5).cast(kind)
        write("a.parquet", x=[i / 7 for i in range(20)], label=pa.array([1, 2] * 10).cast(kind))
        write("b.parquet", x=[i / 7 + 5 for i in range(20)], label=label)
        drawn = table(0, source="a.parquet", target="b.parquet", missing=("-999",))
        assert drawn.target.classes == ("1", "2") and drawn.target.y.tolist() == [0, 1, -1, 0] * 5, k


def test_true_and_false_may_be_missing_as_in_a_csv_file():
    write("a.parquet", b=[True, False, None], x=[1.0, 2.0, 3.0])
    assert read(missing=("false",)).cells["b"].tolist() == ["True", None, None]
    assert read(missing=("0",)).cells["b"].tolist() == ["True", "False", None]


@pytest.mark.parametrize(
    ("values", "days"),
    [
        ([dt.date(2024, 2, 29)], 19782.0),
        ([dt.datetime(2024, 2, 29, 12)], 19782.5),
        (pa.array([dt.datetime(2024, 2, 29, 12)], pa.timestamp("ns", "UTC")), 19782.5),
        (pa.array([dt.datetime(2024, 2, 29, 12)], pa.timestamp("ms", "Europe/Berlin")), 19782.5),  # kept in UTC
        (["2024-02-29 06:00"], 19782.25),
    ],
)
def test_dates_are_days_where_they_are_named(values, days):
    write("a.parquet", day=values, x=[1.0])
    assert read(dates=("day",)).cells["day"].tolist() == [days]
    if not isinstance(values[0], str):
        with pytest.raises(UserError, match=r"'day' of a.parquet holds dates .*dataset.dates=\[day\]; dataset.drop="):
            read()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2]], r"column 'it' of a.parquet holds list<.*: a cell must be .*dataset.drop=\[it\]"),
        ([{"u": 1}], "column 'it' of a.parquet holds struct"),
        ([b"\x00"], "column 'it' of a.parquet holds binary"),
        ([dt.time(3)], "column 'it' of a.parquet holds times"),
        ([float("inf")], "column 'it': row 1 of a.parquet holds inf, which is no finite number"),
        ([1e300], r"column 'it': row 1 of a.parquet holds 1e\+300, which is beyond ±1e\+30, more than is"),
    ],
)
def test_other_columns_are_refused_unless_they_are_left_out(values, message):
    write("a.parquet", it=values, x=[1.0])
    with pytest.raises(UserError, match=message):
        read()
    assert [*read(drop=["it"]).cells] == ["x"]


def test_whole_numbers_that_floats_round_are_said(caplog):
    write("a.parquet", id=[1, 2**53 + 1], x=[1.0, 2.0])
    with caplog.at_level(logging.WARNING):
        read()
    assert "column 'id': row 2 of a.parquet holds 9007199254740993" in caplog.text


def test_texts_of_digits_that_begin_with_0_are_said(caplog):
    for name, cells in (("a.parquet", ["00417", "3391", None] * 4), ("b.parquet", [str(i) for i in range(1, 13)])):
        write(
            name, zip=pa.array(cells).dictionary_encode(), x=[i / 7 + ord(name[0]) for i in range(12)], label=[0, 1] * 6
        )
    with caplog.at_level(logging.WARNING):
        table(0, source="a.parquet", target="b.parquet")
    assert "column 'zip': row 1 of a.parquet holds '00417', which is read as the number 417" in caplog.text


def test_files_that_are_no_parquet_or_without_pyarrow_are_refused(monkeypatch):
    Path("a.parquet").write_text("x,c\n1,u\n")
    with pytest.raises(UserError, match=r"a.parquet can't be read as Parquet"):
        read()
    with pytest.raises(UserError, match=r"b.parquet: there is no such file – did you mean 'a.parquet'"):
        read("b.parquet")
    write("a.parquet", x=pa.array([], pa.float64()), c=pa.array([], pa.string()))
    with pytest.raises(UserError, match=r"a.parquet has a header and no rows"):
        read()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"a.parquet: Parquet files are read by pyarrow.*pip install 'tl_runner\[parq"):
        read()


def test_the_same_rows_in_parquet_and_csv_are_the_same_domain():
    columns = {
        "x": [i / 7 for i in range(40)],
        "n": [*range(100, 140)],
        "c": ["uvw"[i % 3] for i in range(40)],
        "label": [i % 2 for i in range(40)],
    }
    write("a.parquet", **columns)
    rows = zip(*columns.values(), strict=True)
    Path("a.csv").write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
    Path("b.csv").write_text(Path("a.csv").read_text().replace("\n0.", "\n3."))
    drawn = [table(0, source=f"a.{end}", target="b.csv", numeric=("n",)) for end in ("parquet", "csv")]
    assert drawn[0].source.x.equal(drawn[1].source.x) and drawn[0].source.classes == drawn[1].source.classes
