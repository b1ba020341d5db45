"""CSV files as people have them: each is read rightly, or refused with the cause, the column and the line."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tl_runner.datasets import table
from tl_runner.datasets.dialect import Dialect
from tl_runner.errors import UserError
from tl_runner.preprocessing.batching import Input
from tl_runner.preprocessing.tables import Columns

csv: Any = table.table  # whose source is never None
ROWS = 44
Cell = Callable[[int], Any]


def words(*values: object) -> Cell:
    return lambda i: values[i % len(values)]


def drawn(
    source: Cell = lambda i: i / 3,
    target: Cell | None = None,
    label: Cell = lambda i: "ny"[i % 2],
    other: Cell | None = None,
    **options: Any,
) -> Any:
    """Two files with a column `it` of these cells, a number and a label (`other`: the target's)."""
    for name, cell, label_of, k in (("a", source, label, 7), ("b", target or source, other or label, 5)):
        rows = [f'"{cell(i)}",{i / k + 10 * k},{label_of(i)}\n' for i in range(ROWS)]
        Path(f"{name}.csv").write_text("it,x,label\n" + "".join(rows), encoding="utf-8")
    return csv(0, source="a.csv", target="b.csv", **options)


def facts(found: Any) -> dict[str, Any]:
    """What the encoding knows of the column `it`."""
    return {column["name"]: column for column in found.encoding(found.source.x).facts["columns"]}["it"]


PLAIN = "write plain numbers such as 1100.5, with a decimal point"

REFUSED: dict[str, tuple[Cell, str]] = {
    "3,5": (lambda i: f"{i},5", r"line 2 of a.csv holds '0,5', a number with a decimal comma \(in 44 of 44 rows"),
    "1.100,00": (lambda i: f"{i + 1}.100,00", r"line 2 of a.csv holds '1.100,00', .* separators between thousands"),
    "1,100.00": (lambda i: f"{i + 1},100.00", r"line 2 of a.csv holds '1,100.00', .* separators between thousands"),
    "1,100 beside 900": (lambda i: f"{i + 1},100" if i > 30 else i * 7, r"line 33 of a.csv holds '32,100', "),
    "1.100 beside 900": (lambda i: f"{i}.250" if i > 30 else i * 7, r"line 33 of .*'31.250' beside .* read as 31.25\."),
    "1.100.000": (lambda i: f"{i + 1}.100.000", r"'1.100.000', .* separators between thousands"),
    "1 100": (lambda i: f"{i + 1} 100", r"line 2 of a.csv holds '1 100', .* separators between thousands"),
    "1 100, no-break": (lambda i: f"{i + 1}\u00a0100", r"line 2 of a.csv holds '1\\xa0100', .* between thousands"),
    "1'100": (lambda i: f"{i + 1}'100", r"line 2 of a.csv holds \"1'100\", .* separators between thousands"),
    "7%": (lambda i: f"{i}%", r"line 2 of a.csv holds '0%', a percentage"),
    "3,5 %": (lambda i: f"{i},5 %", r"line 2 of a.csv holds '0,5 %', a percentage"),
    "€ 3.50": (lambda i: f"€ {i}.50", r"line 2 of a.csv holds '€ 0.50', an amount of money"),
    "$3": (lambda i: f"$ {i}", r"line 2 of a.csv holds '\$ 0', an amount of money"),
    "12 kg": (lambda i: f"{i} kg", r"line 2 of a.csv holds '0 kg', a number with a unit"),
    "31.01.2024": (lambda i: f"{i % 28 + 1:02}.01.2024", r"'01.01.2024', a date .*write ISO .*dataset.dates"),
    "1/31/24": (lambda i: f"1/{i % 28 + 1}/24", r"line 2 of a.csv holds '1/1/24', a date"),
    "12:30": (lambda i: f"12:{i:02}", r"line 2 of a.csv holds '12:00', a time .*such as minutes"),
    "<0.1": (lambda i: f"<0.{i}" if i % 3 else i / 10, r"line 3 of a.csv holds '<0.1', a bound .*write the bound"),
    "1.5 (H)": (lambda i: f"{i / 2} (H)" if i % 3 else i, r"line 3 of a.csv holds '0.5 \(H\)', a number with a remark"),
    "long minus": (lambda i: f"\u2212{i}" if i % 3 else i / 7, r"line 3 of a.csv holds '−1', a number with a sign"),
    "wide digits": (lambda i: chr(0xFF10 + i % 10), r"line 2 of a.csv holds '０', a number with .* not plain ASCII"),
    "- for a gap": (lambda i: "-" if i % 3 else i / 7, r"15 different numbers, and '-' in 29 of 44 .*line 3.* '-'\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_in_another_notation_are_refused_unless_they_are_named(name):
    cell, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as refused:
        drawn(cell)
    assert "column 'it'" in str(refused.value) and "dataset.categorical=[it]" in str(refused.value)
    assert facts(drawn(cell, categorical=("it",)))["kind"] == "categorical"
    assert drawn(cell, drop=("it",)).source.x.shape == (ROWS, 1)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            lambda i: f"{i}.5",
            lambda i: f"{i},5",
            rf"line 2 of b.csv holds '0,5', .*comma: set dataset.dec.* or {PLAIN}",
        ),
        (lambda i: f"{i},5", lambda i: f"{i}.5", "line 2 of a.csv holds '0,5', a number with a decimal comma"),
        (lambda i: i, lambda i: f"{i}.250" if i % 2 else 70, "line 3 of b.csv holds '1.250' beside whole numbers"),
        (lambda i: i * 2, lambda i: "7 kg", r"line 2 of b.csv holds '7 kg', .*but a number with a unit"),
        (lambda i: i / 3, words(""), r"has no value in the target \(b.csv\): each cell is empty, or a word for"),
        (words("u", "v"), words("NA", ""), r"has no value in the target \(b.csv\).*dataset.drop=\[it\]"),
        (words(""), lambda i: i / 3, r"has no value in the source \(a.csv\)"),
        (words(""), words("?"), r"has no value in the source \(a.csv\) and no value in the target \(b.csv\)"),
        (words("True", "False"), words("TRUE", "FALSE"), r"'False' \(source\) and 'FALSE' \(target\), 'True' \(so"),
        (words("True", "False"), words(1, 0), r"'False' \(source\) and '0' \(target\), 'True' \(source\) and '1'"),
        (words("yes", "no"), words("Y", "N"), r"'no' \(source\) and 'N' \(target\), 'yes' \(source\) and 'Y'"),
        (words("New York", "Ulm"), words("new  york", "ULM"), r"'New York' \(source\) and 'new  york' \(target\)"),
        (words("Köln", "Ulm"), words("Ko\u0308ln"), r"'K\\xf6ln' \(source\) and 'Ko\\u0308ln' \(target"),
    ],
)
def test_a_column_that_one_side_alone_writes_so_is_refused(source, target, message):
    with pytest.raises(UserError, match=rf"column 'it'.*{message}"):
        drawn(source, target)


CODES: dict[str, tuple[Cell, Cell, str]] = {  # of both sides, and what is said of which cell
    "in the source": (lambda i: f"{i * 37 % 100:05}", lambda i: i * 3, "line 2 of a.csv holds '00000', .* number 0"),
    "in the target": (lambda i: i * 7 % 30, lambda i: f"{i * 7:03}", "line 2 of b.csv holds '000', .* number 0"),
    "in the last row": (lambda i: "00417" if i == ROWS - 1 else i / 3, lambda i: i, "line 45 of a.csv holds '00417'"),
    "with blanks": (
        lambda i: " 0417 " if i == 3 else i / 7,
        lambda i: i,
        "line 5 of a.csv holds '0417', .* number 417",
    ),
    "with gaps": (words("", "NA", "07", "1.5"), lambda i: i, "line 4 of a.csv holds '07', .* number 7"),
}


@pytest.mark.parametrize("name", CODES)
def test_numbers_that_begin_with_0_are_said_unless_an_option_tells_what_they_are(name, caplog):
    source, target, message = CODES[name]
    with caplog.at_level(logging.WARNING):
        assert facts(drawn(source, target, drop=("x",)))["kind"] == "numeric"
    said = [each for each in caplog.messages if "number" in each and "column 'it'" in each]
    assert len(said) == 1 and re.search(rf"{message}.*set dataset.categorical=\[it\]; dataset.numeric=\[it\]", said[0])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        drawn(source, target, numeric=("it",))
        drawn(source, target, categorical=("it",))
    assert "read as the number" not in caplog.text


def test_numbers_that_begin_with_0_and_a_point_are_not_said(caplog):
    with caplog.at_level(logging.WARNING):
        drawn(lambda i: f"0.{i:03}", lambda i: ("0", "0.5", "-0", "0e1", "100", "1.007")[i % 6])
    assert "read as the number" not in caplog.text


def test_codes_of_which_one_side_lost_the_zeros_are_refused():
    with pytest.raises(UserError, match=r"'01' \(source\) and '1' \(target\)"):
        drawn(words("01", "02"), words("1", "2"), categorical=("it",))


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (lambda i: f"{i}e3", "numeric"),
        (lambda i: f" {i / 4}\u00a0", "numeric"),  # blanks around a number are none of its own
        (lambda i: f"+.{i}", "numeric"),
        (lambda i: f"{i / 8:.3f}", "numeric"),
        (lambda i: f"A{i % 12}", "categorical"),
        (lambda i: f"{i % 9}-{i % 9 + 1} years", "categorical"),
        (lambda i: f"1.{i % 12}.{i % 30}", "categorical"),
        (lambda i: f"SW{i % 9}A 1AA", "categorical"),
        (lambda i: f"{1000 + i % 20} {'ABCDE'[i % 5]}X", "categorical"),
        (words("<18", "18-65", ">65"), "categorical"),
        (words("a", "A", "b", "B"), "categorical"),
    ],
)
def test_numbers_and_codes_are_read_without_a_word(cell, kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert facts(drawn(cell))["kind"] == kind
    assert not caplog.messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": words("5 mg", "10 mg")}, "line 2 of a.csv holds '5 mg', a number with a unit .*2 different val"),
        ({"source": words("u", "v"), "target": words("u", "V")}, r"spelling: 'v' \(source\) and 'V' \(target\)"),
        ({"source": words("Ulm", "ulm", "Bonn")}, r"of the source \(a.csv\) .* in case or spacing: 'Ulm', 'ulm'"),
        ({"label": words("yes", "Yes", "no")}, "classes of the target differ only in case or spacing: 'Yes', 'yes'"),
        (
            {"label": words("yes", "no"), "other": words("Yes", "No"), "labels": "differ"},
            r"dataset.labels=differ: these classes .* only in spelling.*: 'no' \(source\) and 'No' \(target\), 'y",
        ),
        ({"label": lambda i: i % 21 * 5}, "'label' holds 21 different .*, from 0 to 100: they train as 21 unordered"),
        ({"label": words(0.5, 1, 1.5)}, "column 'label' holds 3 different .*, from 0.5 to 1.5"),
        ({"label": lambda i: f"{i % 12} kg"}, "holds 12 different .*train as 12 unordered classes"),
    ],
)  # fmt: skip
def test_what_may_be_meant_so_is_said(options, message, caplog):
    with caplog.at_level(logging.WARNING):
        drawn(**options)
    assert any(re.search(message, said) for said in caplog.messages), caplog.messages


@pytest.mark.parametrize("label", [lambda i: i % 10, words(-1, 1), words("1.0", "2.0", "3"), lambda i: "ABCDE"[i % 5]])
def test_few_whole_numbers_are_classes_without_a_word(label, caplog):
    with caplog.at_level(logging.WARNING):
        drawn(label=label)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("label", "other", "message"),
    [
        (
            words("yes", "no"),
            words("Yes", "No"),
            r"differ only in spelling.*: 'no' \(source\) and 'No' \(target\), 'ye",
        ),
        (words("True", "False"), words(1, 0), r"differ only in spelling.*: 'False' \(source\) and '0' \(target\)"),
        (
            words("EU", "NA"),
            None,
            r"lines 3, 5, .*take them out, or, if 'NA' is a class, set dataset.missing=.*'N/A', ",
        ),
        (words("EU", ""), None, r"lines 3, 5, .*take them out; of the target alone"),
        (lambda i: f"{i % 21},5", None, r"'label' of a.csv has 21 different values .*regression"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_the_cause(label, other, message):
    with pytest.raises(UserError, match=message):
        drawn(label=lambda i: f'"{label(i)}"', other=other)


def test_na_is_a_class_or_a_domain_where_it_is_no_word_for_a_missing_value():
    kept = ("N/A", "NaN", "NULL", "?")
    assert drawn(label=words("EU", "NA"), missing=kept).source.classes == ("EU", "NA")
    Path("all.csv").write_text("site,x,label\n" + "".join(f"{'EN'[i % 2]}A,{i / 7},{i // 2 % 2}\n" for i in range(40)))
    one: dict[str, Any] = {"file": "all.csv", "domain": "site", "source": "EA", "target": "NA"}
    with pytest.raises(UserError, match=r"NA: there is no such value .*NA is a word for a missing .*missing=.*'N/A', "):
        csv(0, **one)
    assert len(csv(0, **one, missing=kept).target.x) == 20


BODY = [f"{i / 3},{'uv'[i % 2]},{'ny'[i // 2 % 2]}" for i in range(20)]


def files(top: str, rows: Sequence[str] = BODY, encoding: str = "utf-8") -> None:
    for name, shift in (("a", ""), ("b", "1")):
        text = "\r\n".join([top + "it,c,label", *(shift + row for row in rows), ""])
        Path(f"{name}.csv").write_bytes(text.encode(encoding))


@pytest.mark.parametrize(
    ("top", "rows", "message"),
    [
        ("sep=;\r\n", BODY, "line 1 of a.csv says that ';' separates its cells.*: set dataset.separator=semicolon"),
        ('"sep=^"\r\n', BODY, "line 1 of a.csv says that '\\^' separates .*possible: comma, semicolon, tab, pipe"),
        ("# made by x\r\n", BODY, "line 1 of a.csv holds '# made by x' alone, line 2 has 3 .*is it a comment"),
        ("# made\r\n# again\r\n", BODY, "line 1 of a.csv holds '# made': is it a comment"),
        ("# on 1, 2\r\n", BODY, "line 1 of a.csv holds '# on 1, 2': is it a comment"),
        ("# made, by, x\r\n", BODY, "no such column .*Is its first line a comment, as its # says"),
        ("Report\r\n\r\n", BODY, "line 1 of a.csv holds 'Report' alone, line 3 has 3 cells: is it a title"),
        ("", [*BODY, "# the end"], "line 22 of a.csv has 1 cell, the header 3: is it a comment, as its # says"),
        ("", [row.replace(",", ";") for row in BODY], "line 2 of a.csv has 1 cell, the header 3: is it cut off"),
    ],
)
def test_lines_above_and_below_the_table_are_refused_with_the_cause(top, rows, message):
    files(top, rows)
    with pytest.raises(UserError, match=message):
        csv(0, source="a.csv", target="b.csv", separator="comma")


def test_a_first_line_for_excel_is_passed_over_where_it_is_right_and_lines_count_as_in_an_editor():
    files("")
    plain = csv(0, source="a.csv", target="b.csv")
    for top in ("sep=,\r\n", '\ufeff"SEP=,"\r\n', "sep=,,\r\n"):
        files(top)
        found = csv(0, source="a.csv", target="b.csv")
        assert torch.equal(found.source.x, plain.source.x) and found.source.names[0] == "a.csv:3"


def test_a_header_may_begin_with_a_hash():
    files("#c,", [f"{i % 3},{row}" for i, row in enumerate(BODY)])
    assert facts(csv(0, source="a.csv", target="b.csv"))["kind"] == "numeric"


FACTS = {
    "columns": [
        {"name": "age", "kind": "numeric", "median": 40.0, "mean": 40.0, "sd": 10.0, "gaps": True},
        {"name": "flag", "kind": "categorical", "categories": ["False", "True"]},
    ]
}
TABLE = Columns(FACTS, Dialect(missing=("NA",)))


def new(*rows: str, top: str = "") -> str:
    Path("new.csv").write_text("\n".join([top + "age,flag", *rows]), encoding="utf-8")
    return "new.csv"


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ('"3,5"', "a number with a decimal comma"),
        ('"1.100,00"', "a number with separators between thousands"),
        ("12 kg", "a number with a unit"),
        ("7%", "a percentage"),
        ("31.01.2024", "a date"),
        ("\u22123", "a number with a sign"),
    ],
)
def test_a_finished_run_refuses_numbers_in_another_notation(cell, what):
    with pytest.raises(
        UserError, match=rf"column 'age': new.csv:3 holds '.*', which is no finite .*1 of 2.*but {what}.*write"
    ):
        TABLE(new("50,True", f"{cell},True"))
    with pytest.raises(UserError, match=rf"column 'age': row 1:1 holds .*but {what}"):
        TABLE({"age": cell.strip('"'), "flag": "True"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["50,TRUE"], "'flag': TRUE not seen in training, treated as missing. It spelled 'TRUE' as 'True'"),
        (
            ["50,1", "20,0"],
            "0, 1 not seen in training, treated as missing. It spelled '0' as 'False', '1' as 'True': write it so",
        ),
        (["1.250,True", "900,True"], "'age': new.csv:2 holds '1.250' beside .*, which is read as 1.25"),
        ([",True"] * 10, "column 'age' has no value in any of the 10 rows: all are taken as missing"),
        (["1,NA"] * 10, "column 'flag' has no value in any of the 10 rows"),
    ],
)  # fmt: skip
def test_a_finished_run_says_what_a_file_writes_otherwise(rows, message, caplog):
    with caplog.at_level(logging.WARNING):
        TABLE(new(*rows))
    assert any(re.search(message, said) for said in caplog.messages), caplog.messages


def test_a_finished_run_reads_past_the_line_for_excel_and_refuses_a_comment():
    (portion,) = TABLE.portions([Input(Path(new("50,True", top="sep=,\n")))], 8)
    assert portion.names == ["new.csv:3"]
    with pytest.raises(UserError, match=r"line 1 of new.csv holds '# made by x' alone, .*is it a comment"):
        TABLE(new("50,True", top="# made by x\n"))
    with pytest.raises(UserError, match=r"has no column 'age'.*Is its first line a comment"):
        TABLE(new("50,True", top="# made, by x\n"))
