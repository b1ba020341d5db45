"""How files are written: separators, encodings, signs of numbers, dates, gzip, several files."""

import gzip
import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_runner.datasets import column_reading, delimited
from tl_runner.datasets.cells import observed
from tl_runner.datasets.columns import parse_numbers
from tl_runner.datasets.dates import parse_date
from tl_runner.datasets.dialect import NUMBER, Dialect
from tl_runner.datasets.read_table import read_table
from tl_runner.datasets.table import table as table_of
from tl_runner.errors import UserError

table: Any = table_of  # whose source is never None


def read(name: str = "a.csv", literal: Sequence[str] = (), only: Any = None, **options: Any) -> Any:
    return read_table(name, name, Dialect.parse(**{"missing": ("NA",), **options}), literal=literal, only=only)


def columns(text: str | bytes, name: str = "a.csv", **options: Any) -> dict[str, list[Any]]:
    """The cells of a file of this text, by column."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return {column: cells.tolist() for column, cells in read(name, **options).cells.items()}


PLAIN = {"x": [1.5, 2.0], "c": ["u", "v"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_separators_encodings_and_ends_of_lines_are_found(sign, end, encoding):
    lines = [sign.join(row) for row in (["x", "c", "größe"], ["1.5", "u", "3"], ["2", "Zoë", "4"])]
    found = columns((end.join(lines) + end).encode(encoding))
    assert found == {"x": [1.5, 2.0], "c": ["u", "Zoë"], "größe": [3.0, 4.0]}
    assert read().lines.tolist() == [2, 3]
    word = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}[sign]
    assert read().found["separator"] == word
    for said in (word, sign):
        assert read(separator=said).header == ("x", "c", "größe")


def test_what_is_found_is_said_with_the_key_that_decides_it(caplog):
    with caplog.at_level(logging.INFO):
        columns("x;c\n1.5;u\n2;Zoë\n".encode("cp1252"))
        columns("x,c\n1.5,€\n".encode("cp1252"), "b.csv")
        columns("x,c\n1.5,u\n".encode("utf-16"), "c.csv")
    assert "a.csv: a semicolon divides its cells (dataset.separator=semicolon)" in caplog.text
    assert re.search(r"a.csv is not UTF-8, and read as latin-1: line 3 .*'Zoë'.*dataset.encoding names", caplog.text)
    assert "b.csv is not UTF-8, and read as cp1252" in caplog.text  # € is not in Latin-1
    assert "c.csv is utf-16, by the mark that begins it (dataset.encoding=utf-16)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        columns("x,c\n1.5,Zoë\n")
    assert not caplog.messages


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("a;b,c;label\n1;2;no\n3;4;yes\n", ("a", "b,c", "label")),  # the rows decide
        ("text,label\none; two; three,no\nfour,yes\n", ("text", "label")),
        ('"a;b",c\n1,2\n', ("a;b", "c")),
        ("x;y\n1,5;2,5\n3,5;4,5\n", ("x", "y")),
        ("text\na, b\n", None),
        ("a;b,c\n1;2,3\n", "may be|not clear: comma .2 columns, in 100% of the rows., semicolon .2 columns"),
    ],
)
def test_the_header_and_then_the_rows_tell_the_separator(text, header):
    Path("a.csv").write_text(text)
    if isinstance(header, tuple):
        assert read().header == header
    else:
        with pytest.raises(UserError, match=header or "line 1 of a.csv holds 'text' alone, line 2 has 2 cells"):
            read(only={"text"} if header is None else None)


def test_a_line_for_excel_tells_the_separator():
    assert columns("sep=|\r\nx|c\r\n1,5|u\r\n2|v\r\n", decimal="comma") == PLAIN
    assert read(decimal=",").lines.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("cells", "options", "values"),
    [
        (["3,5", "-,25", "1e3", "+7,"], {"decimal": "comma"}, [3.5, -0.25, 1000.0, 7.0]),
        (["1.234,5", "900", "1.234.567"], {"decimal": ",", "thousands": "."}, [1234.5, 900.0, 1234567.0]),
        (["1,234.5", "900.25", "1,234,567"], {"thousands": "comma"}, [1234.5, 900.25, 1234567.0]),
        (["1 234,5", "1\u00a0234,5", "1\u202f234"], {"decimal": "comma", "thousands": " "}, [1234.5, 1234.5, 1234.0]),
        (["1'234.5", "1’234"], {"thousands": "apostrophe"}, [1234.5, 1234.0]),
        ([" 1.5 ", "NA", "na", "2"], {}, [1.5, np.nan, np.nan, 2.0]),
        (["-999", "1", "-999.5"], {"missing": ("-999",)}, [np.nan, 1.0, -999.5]),
        (["-999.0", "1", "-9.99e2"], {"missing": ("-999",)}, [np.nan, 1.0, np.nan]),
        (["-999", " -999.00 ", "1"], {"missing": ("-999.0", "NA")}, [np.nan, np.nan, 1.0]),
        (["-999,0", "1,5", "-999"], {"missing": ("-999",), "decimal": "comma"}, [np.nan, 1.5, np.nan]),
        (["-99,9", "1,5"], {"missing": ("-99.9",), "decimal": "comma"}, [np.nan, 1.5]),
        (["1.000", "1", "1.000,0"], {"missing": ("1.000",), "decimal": ",", "thousands": "."}, [np.nan, 1.0, np.nan]),
        (["1e31", "1", "1E+31"], {"missing": ("1e31",)}, [np.nan, 1.0, np.nan]),
        (["-999.0", "u", "1"], {"missing": ("-999",)}, [None, "u", "1"]),
        (["-999", "1.250", "2.500"], {"missing": ("-999",)}, [np.nan, 1.25, 2.5]),
        (["", "1_0"], {}, [None, "1_0"]),
        (["inf", "1"], {}, ["inf", "1"]),
        (["1e400", "1"], {}, ["1e400", "1"]),
        (["0x10", "1"], {}, ["0x10", "1"]),
        (["nan", "1"], {"missing": ()}, ["nan", "1"]),
    ],
)
def test_numbers_are_what_the_keys_say(cells, options, values):
    found = columns("x|k\n" + "".join(f"{cell}|1\n" for cell in cells), separator="pipe", **options)["x"]
    assert [*map(repr, found)] == [*map(repr, values)]


def test_missing_numbers_in_literal_columns_are_categories_written_so_or_with_decimals_of_zero():
    found = columns("c,k\n-999,1\n-999.0,1\n-9990e-1,1\n-0999,1\nu,1\n", literal=["c"], missing=("-999.00",))
    assert found["c"] == [None, None, "-9990e-1", "-0999", "u"]


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (
            ["3,5", "1.5"],
            {"decimal": "comma"},
            "line 3 of a.csv holds '1.5', which is no number with dataset.decimal=c",
        ),
        (
            ["1.23,5", "1.5"],
            {"decimal": "comma", "thousands": "point"},
            "line 3 .*'1.5', which is no .*dataset.thousands=point",
        ),
    ],
)
def test_a_number_that_the_keys_forbid_is_refused(cells, options, message):
    with pytest.raises(UserError, match=f"column 'x': {message}.*dataset.categorical=.x."):
        columns("x|k\n" + "".join(f"{cell}|1\n" for cell in cells), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "semikolon"}, r"dataset.separator takes auto, comma \(','\), .* – did you mean 'semicolon'\?"),
        ({"decimal": "."}, None),
        ({"decimal": ";"}, "dataset.decimal takes point"),
        ({"decimal": "comma", "thousands": ","}, "are the same sign"),
        ({"encoding": "utf-9"}, r"dataset.encoding=utf-9: there is no such encoding – did you mean 'utf-8'\?"),
        ({"encoding": "base64"}, "dataset.encoding=base64: there is no such encoding"),
        ({"encoding": "latin-1"}, None),
    ],
)
def test_words_and_signs_are_checked(options, message):
    if message is None:
        assert Dialect.parse(**options)
    else:
        with pytest.raises(UserError, match=message):
            Dialect.parse(**options)


def test_an_encoding_that_is_named_is_used_and_must_fit():
    Path("a.csv").write_bytes("x,c\n1,Łódź\n".encode("cp1250"))
    assert read(encoding="cp1250").cells["c"].tolist() == ["Łódź"]
    with pytest.raises(UserError, match=r"line 2 of a.csv is not utf-8: dataset.encoding names another, auto looks"):
        read(encoding="utf-8")
    Path("a.csv").write_bytes(b"x,c\n1,\x81\n")
    with pytest.raises(UserError, match=r"line 2 of a.csv is not UTF-8: convert .*dataset.encoding=cp1252"):
        read()


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "a.csv is empty"),
    "blank lines": (b"\n\n", "a.csv is empty"),
    "header only": (b"x,c\n", "has a header and no rows"),
    "a zero byte": (b"x,c\n1,u\n2,\0\n", "line 3 of a.csv holds a zero byte"),
    "Parquet": (b"PAR1....", "a.csv is no text but a Parquet file: name it so"),
    "xls": (b"\xd0\xcf\x11\xe0....", "an old Excel or Word file"),
    "ragged, short": (b"x,c\n1,u\n2\n", "line 3 of a.csv has 1 cell, the header 2: is it cut off"),
    "ragged, long": (b'x,c\n"1\n1",u\n2,v,w\n', "line 4 of a.csv has 3 cells, the header 2"),
    "a separator at some ends": (b"x,c\n1,u,\n", "line 2 of a.csv has 3 cells, .*: it ends in a comma, and the header"),
    "separators at all ends": (b"x,c,\n1,u,\n", "column 3 of a.csv has no name. Does each line end in a separator"),
    "an index": (b",x\n0,1\n1,2\n", "column 1 of a.csv has no name. Does it number the rows"),
    "columns of one name": (b"x,x\n1,2\n", "a.csv has 2 columns of the name 'x'"),
    "an open quote": (b'x,c\n1,"u\n2,v\n', "the row at line 2 of a.csv can't be read: .*quotes closed"),
    "a cut archive": (gzip.compress(b"x,c\n1,u\n")[:-9], "a.csv can't be unpacked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_with_what_it_is(name):
    data, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        columns(data)


def test_archives_are_told_apart():
    for inside, message in (("xl/workbook.xml", "an Excel workbook"), ("a.csv", "a ZIP archive: unpack it first")):
        with zipfile.ZipFile("a.csv", "w") as archive:
            archive.writestr(inside, "x")
        with pytest.raises(UserError, match=message):
            read()


def test_gzip_is_read_whatever_its_name(caplog):
    packed = gzip.compress(b"x;c\n1.5;u\n2;v\n")
    with caplog.at_level(logging.INFO):
        assert columns(packed, "a.csv.gz") == PLAIN and "gzip" not in caplog.text
        assert columns(packed) == PLAIN
    assert "a.csv is a gzip file, whatever its name" in caplog.text
    assert read("a.csv.gz").name == "a" and read("a.csv.gz").places() == ["a.csv.gz:2", "a.csv.gz:3"]
    with pytest.raises(UserError, match=r"b.csv.gz ends in .gz and is no gzip file"):
        columns("x,c\n1,u\n", "b.csv.gz")


def test_lines_count_as_in_an_editor_beside_quoted_ends_and_blank_lines():
    text = 'x,c\r\n\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n\r\n2,v\r\n'
    assert columns(text) == {"x": [1.0, 2.0], "c": ['two\r\nlines, "quoted"', "v"]}
    assert read().lines.tolist() == [3, 7]


@pytest.mark.parametrize("cells", [3, 7, 50, 100_000])
@pytest.mark.parametrize("late", ["word", "1e999", "12345678901234567891", "0.5"])
def test_however_many_cells_are_taken_at_once_the_table_is_one(cells, late, monkeypatch):
    """A column that turns to text late is text from its beginning, as it was written."""
    monkeypatch.setattr(delimited, "CELLS", cells)
    rows = [f"{i}.250,{i},{i % 3}.0" for i in range(1, 300)]
    Path("a.csv").write_text("\n".join(["x,y,c", *rows, f"1,{late},2.0"]))
    found = read(literal=["c"]).cells
    assert found["c"].tolist() == [row.rpartition(",")[2] for row in rows] + ["2.0"]
    assert found["x"].dtype == object and found["x"][0] == "1.250"  # beside `1` it may be 1250
    plain = late == "0.5"
    assert (found["y"].dtype == np.float64) == plain and found["y"][0] == (1.0 if plain else "1")


def test_columns_that_turn_to_text_late_cost_one_more_reading_of_the_rows_before(monkeypatch):
    """Twenty columns of numbers, each with a word in another portion of ten rows, or all in the last."""
    records, taken = delimited._records, []

    def count(*given: Any) -> Any:
        for record in records(*given):
            taken.append(record[0])
            yield record

    monkeypatch.setattr(delimited, "CELLS", 1)  # at least 100 rows are taken at once
    monkeypatch.setattr(delimited, "_records", count)
    names = [f"x{k}" for k in range(20)]
    for turns in ([100 * k + 50 for k in range(20)], [2099] * 20):
        cells = [["-" if i == turns[k] else f"{i + k / 8}" for k in range(20)] for i in range(2100)]
        Path("a.csv").write_text("\n".join(map(",".join, [names, *cells])))
        taken.clear()
        found = read().cells
        assert all(found[name].tolist() == [row[k] for row in cells] for k, name in enumerate(names))
        assert len(taken) <= 2 + 2100 + max(turns) // 100 * 100


def test_whole_numbers_that_floats_round_are_said_and_others_are_not(caplog):
    for name, end in (("a", 1), ("b", 3)):
        rows = [f"{9007199254740992 + i * end},{2**60 * (i + end)},{i / 7 + end},{i % 2}" for i in range(20)]
        Path(f"{name}.csv").write_text("\n".join(["id,even,x,label", *rows]))
    with caplog.at_level(logging.WARNING):
        table(0, source="a.csv", target="b.csv")
    assert re.search(r"column 'id': line 3 of a.csv holds 9007199254740993: whole .*dataset.drop=\[id\]", caplog.text)
    assert "'even'" not in caplog.text


CELLS = ["1", "-2.5", "+.5", "7.", "1e5", "1E-3", "1e", "e1", "-", "+", ".", "", " 3 ", "1_0", "inf", "nan", "NaN"]
CELLS += ["0x1", "1e31", "-1e31", "1e30", "1 2", "１", "1\n2", "1\n", "--1", "1-2", "1e+5", "infinity", "1d5", "NA"]
CELLS += ["00", "1,5", "1.5.2"]


@pytest.mark.parametrize("others", [["1"], ["0.5", "u"]])
def test_columns_hold_what_each_cell_alone_is(others):
    """The fast way by whole columns, against the pattern of a number and float() by cell."""
    for cell in CELLS:
        Path("a.csv").write_text("x|k\n" + "".join(f'"{each}"|1\n' for each in (cell, *others)), encoding="utf-8")
        values, text = parse_numbers(read(separator="pipe", missing=()).cells["x"])
        word = cell.strip()
        number = NUMBER.fullmatch(word) is not None and abs(float(word)) <= column_reading.LARGEST
        assert text[0] == (not number and word != ""), cell
        assert values[0] == float(word) if number else np.isnan(values[0]), cell


@pytest.mark.parametrize(
    ("word", "days"),
    [
        ("1970-01-01", 0.0),
        ("2024-02-29", 19782.0),
        ("2024-02-29 12:00", 19782.5),
        ("2024-02-29T12:00:00.000", 19782.5),
        ("2024-02-29T12:00:00Z", 19782.5),
        ("2024-02-29T12:00:00+12:00", 19782.0),
        ("2024-02-29 12:00:00 UTC", 19782.5),
        ("1969-12-31T18:00", -0.25),
        ("2023-02-29", None),
        ("2024-2-9", None),
        ("29.02.2024", None),
        ("20240229", None),
        ("2024-02-29T25:00", None),
        ("2024-W05-1", None),
    ],
)
def test_a_date_is_days_since_1970(word, days):
    assert parse_date(word) == days


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2024-01-31", "31.01.2024"], "line 3 of a.csv holds '31.01.2024', which is no date: dataset.dates takes ISO"),
        (["2024-01-31T10:00Z", "2024-01-31T10:00"], "line 2 of a.csv .* has a time zone, and line 3 .* has none"),
        (["2024-01-31", "soon"], "line 3 of a.csv holds 'soon', which is no date"),
    ],
)
def test_mixed_dates_are_refused_by_line(cells, message):
    with pytest.raises(UserError, match=f"column 'x': {message}"):
        columns("x,k\n" + "".join(f"{cell},1\n" for cell in cells), dates=("x",))


def test_dates_become_numbers_and_gaps_stay():
    found = columns("day,k\n2024-02-29,1\nNA,2\n2024-03-01 06:00,3\n", dates=("day",))
    assert [*map(repr, found["day"])] == ["19782.0", "nan", "19783.25"]


def test_a_domain_of_several_files_is_one_table_by_a_pattern_or_a_folder(caplog):
    Path("d").mkdir()
    for name, text in (
        ("2024-1.csv", "x,c,k\n1,u,1\n2,v,2\n"),
        ("2024-2.csv.gz", "c;x;k\nw;3;4a\n"),  # other columns' order, other sign, a column of text here alone
        ("2023-1.csv", "x,c,k\n9,9,9\n"),
    ):
        data = text.encode()
        Path("d", name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    Path("d/README.md").write_text("x")
    Path("d/.hidden.csv").write_text("x")
    found = read("d/2024-*")
    assert {name: cells.tolist() for name, cells in found.cells.items()} == {
        "x": [1.0, 2.0, 3.0], "c": ["u", "v", "w"], "k": ["1", "2", "4a"],
    }  # fmt: skip
    assert found.places() == ["d/2024-1.csv:2", "d/2024-1.csv:3", "d/2024-2.csv.gz:2"]
    assert found.where(2) == "line 2 of d/2024-2.csv.gz" and found.take(np.array([2])).places() == found.places()[2:]
    assert found.found["separator"] == "comma, semicolon"
    assert len(read("d/")) == 4 and read("d").name == "d"
    assert "d: read 3 tables; not read: README.md" in caplog.text
    Path("d/2024-1.csv").write_text("x,c,k\n01,u,1\n2,v,02\n")
    Path("d/2024-2.csv.gz").write_bytes(gzip.compress(b"c,x,k\nw,003,04\n"))
    assert read("d/2024-*").codes == {"x": ("line 2 of d/2024-1.csv", "01"), "k": ("line 3 of d/2024-1.csv", "02")}


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        (
            "d/*.csv",
            "x,c\n1,2\n",
            r"d/a.csv has columns that d/b.csv does not have: k. The files of a domain \(d/\*.csv",
        ),
        ("d/*.csv", "x,c,k,l\n1,2,3,4\n", r"d/b.csv has columns that d/a.csv does not have: l"),
        ("d/*.tsv", "x,c,k\n1,2,3\n", r"d/\*.tsv: no file is named so"),
        ("e", "x,c,k\n1,2,3\n", r"e: the folder holds no table \(such as .parquet"),
        ("d", "x,c,k\n1,2\n", "line 2 of d/b.csv has 2 cells"),
    ],
)
def test_files_of_a_domain_that_do_not_fit_are_refused_by_file_and_column(name, other, message):
    for folder in "de":
        Path(folder).mkdir()
    Path("d/a.csv").write_text("x,c,k\n1,2,3\n")
    Path("d/b.csv").write_text(other)
    with pytest.raises(UserError, match=message):
        read(name)


def test_rows_of_several_files_are_refused_by_file_and_line():
    for folder, k in (("d", 7), ("e", 5)):
        Path(folder).mkdir()
        for name in "ab":
            rows = [f"{i / k + ord(name)},{i % 2}" for i in range(20)]
            Path(folder, f"{name}.csv").write_text("\n".join(["x,label", *rows]))
    drawn = table(0, source="d", target="e/*.csv")
    assert (drawn.source.name, len(drawn.source.x), drawn.target.names[20]) == ("d", 40, "e/b.csv:2")
    Path("e/b.csv").write_text(Path("e/b.csv").read_text() + "\nabc,1\n")
    with pytest.raises(UserError, match=r"column 'x': line 22 of e/b.csv holds 'abc'"):
        table(0, source="d", target="e/*.csv")
    Path("d/b.csv").write_text(Path("d/b.csv").read_text() + "\n1.5,\n")
    with pytest.raises(UserError, match=r"1 of the 41 rows of d has no label .*\(d, lines d/b.csv:22\)"):
        table(0, source="d", target="e/a.csv")


def test_columns_in_the_same_notation_give_the_same_rows():
    """The content of rows, by which they are split and known, does not depend on how a file is written."""
    rows = [[f"{i / 7 + 1000:.4f}", f"2024-01-{i % 28 + 1:02}", "uvw"[i % 3], "ny"[i % 2]] for i in range(40)]
    header = ["x", "day", "c", "label"]

    def write(name: str, rows: Sequence[Sequence[str]], sign: str, encoding: str = "utf-8") -> None:
        text = "\r\n".join(sign.join(row) for row in [header, *rows])
        Path(name).write_bytes(gzip.compress(text.encode(encoding)) if name.endswith("gz") else text.encode(encoding))

    write("a.csv", rows, ",")
    write("b.csv", rows[:20], ",")
    german = [[f"{int(x[:-5]):,}".replace(",", ".") + "," + x[-4:], *rest] for x, *rest in rows]
    write("g.csv.gz", german, ";", "utf-16")
    write("h.csv.gz", german[:20], ";", "latin-1")
    plain = table(0, source="a.csv", target="b.csv", dates=("day",))
    other = table(0, source="g.csv.gz", target="h.csv.gz", dates=("day",), decimal="comma", thousands="point")
    assert plain.source.x.equal(other.source.x) and plain.target.x.equal(other.target.x)
    assert plain.source.x[0, 1] == 19723  # 2024-01-01


def test_observed_cells_are_those_with_a_value():
    assert observed(np.array([1.0, np.nan])).tolist() == [1.0]
    assert observed(np.array(["", None], dtype=object)).tolist() == [""]
