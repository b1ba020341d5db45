"""Texts of a user's own: read as written from tables and folders, and refused by place, whatever is in them."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tl_runner.datasets import text_columns
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.clean_text import clean_text
from tl_runner.datasets.content import text_digests
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.split import Drawn, Encoding, split_domains
from tl_runner.datasets.text import text
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import drop_locations, hash_data

CPU, NOTHING = torch.device("cpu"), Budget("count", 0)
Row = tuple[str, str | None]


def rows(name: str, n: int = 20) -> list[Row]:
    return [(f"{name} number {i}, as written", ("bad", "good")[i % 2]) for i in range(n)]


def as_csv(path: str, found: Iterable[Sequence[Any]], header: Sequence[str] = ("text", "label"), **options: Any) -> str:
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows([header, *found])
    return path


def as_lines(path: str, found: Iterable[Any]) -> str:
    lines = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in found]
    Path(path).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def as_folder(root: str, domain: str, found: Iterable[Row], part: str = "") -> str:
    for i, (content, label) in enumerate(found):
        folder = Path(root, domain, part, label or "unlabelled")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.txt").write_text(content, encoding="utf-8", newline="")
    return root


def texts_of(drawn: Drawn) -> list[str]:
    assert drawn.target.texts is not None
    return drawn.target.texts.tolist()


def names_of(drawn: Drawn) -> list[str]:
    assert drawn.target.names is not None
    return drawn.target.names.tolist()


def classes_of(drawn: Drawn) -> list[str | None]:
    return [None if y == UNKNOWN else drawn.target.classes[y] for y in drawn.target.y.tolist()]


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING")


def pair(target: Iterable[Sequence[Any]], **options: Any) -> Drawn:
    """A good source, and this target."""
    return text(0, source=as_csv("a.csv", rows("a")), target=as_csv("b.csv", target), **options)


SOURCE = rows("film")
LABELS = ("good", "bad", None, "good")
TARGET: list[Row] = [(each, LABELS[i % 4]) for i, (each, _) in enumerate(rows("gadget"))]


def from_files(ending: str) -> Callable[[], Drawn]:
    def read() -> Drawn:
        if ending == "csv":
            as_csv("a.csv", SOURCE)
            as_csv("b.csv", TARGET)
        elif ending == "tsv":
            as_csv("a.tsv", SOURCE, delimiter="\t")
            as_csv("b.tsv", TARGET, delimiter="\t")
        else:
            for name, side in (("a", SOURCE), ("b", TARGET)):
                as_lines(f"{name}.{ending}", [{"label": label, "text": each} for each, label in side])
        separator: Any = "tab" if ending == "tsv" else "comma"
        return text(0, source=f"a.{ending}", target=f"b.{ending}", separator=separator)

    return read


def from_one_file(ending: str) -> Callable[[], Drawn]:
    def read() -> Drawn:
        all_rows = [(*row, site) for site, side in (("a", SOURCE), ("b", TARGET)) for row in side]
        if ending == "csv":
            as_csv("all.csv", all_rows, ("text", "label", "site"))
        else:
            as_lines("all.jsonl", [dict(zip(("text", "label", "site"), row, strict=True)) for row in all_rows])
        return text(0, file=f"all.{ending}", domain="site", source="a", target="b")

    return read


def from_folders() -> Drawn:
    as_folder("root", "a", SOURCE)
    as_folder("root", "b", TARGET)
    return text(0, root="root", source="a", target="b")


@pytest.mark.parametrize(
    "read",
    [*map(from_files, ("csv", "tsv", "jsonl", "json", "ndjson")), *map(from_one_file, ("csv", "jsonl")), from_folders],
)
def test_the_same_texts_in_whatever_form_are_the_same_domains(read):
    drawn = read()
    assert drawn.source is not None and drawn.source.texts is not None
    assert sorted(zip(texts_of(drawn), map(str, classes_of(drawn)), strict=True)) == sorted(
        (each, str(label)) for each, label in TARGET
    )
    assert sorted(drawn.source.texts) == sorted(each for each, _ in SOURCE)
    assert (drawn.source.name, drawn.target.name) == ("a", "b")
    assert drawn.target.classes == drawn.source.classes == ("bad", "good")
    assert torch.equal(drawn.target.x, text_digests(texts_of(drawn)))
    assert drawn.notes["skipped"] == {"source": 0, "target": 0}
    assert len(set(names_of(drawn))) == 20


def test_rows_are_named_by_file_and_line_or_by_their_file():
    assert names_of(from_files("csv")()) == [f"b.csv:{line}" for line in range(2, 22)]
    assert names_of(from_files("jsonl")()) == [f"b.jsonl:{line}" for line in range(1, 21)]
    assert names_of(from_folders())[:2] == ["root/b/bad/001.txt", "root/b/bad/005.txt"]


def test_a_text_is_read_as_it_is_written():
    """Quotes, line ends, commas, emoji, words for a missing value, one word, and 40,000 words."""
    hostile = [
        'She said: "no, never",\nand left.', "👩‍👩‍👧 😀🇫🇷", "NA", "?", "null", "one", "=1+1", "مرحبا", "a\tb",
        "  x\u3000 ", "word " * 40_000, "1.0", "zero\u200bwidth", "line\u2028separator", "nel\x85in", "-", "#", "'",
    ]  # fmt: skip
    expected = [each.strip() for each in hostile]
    labels = [("bad", "good")[i % 2] for i in range(len(hostile))]
    assert texts_of(pair(zip(hostile, labels, strict=True))) == expected
    as_lines("b.jsonl", [{"text": each, "label": label} for each, label in zip(hostile, labels, strict=True)])
    assert texts_of(text(0, source="a.csv", target="b.jsonl")) == expected
    for i, each in enumerate(hostile):
        as_folder("root", "b", [(each, labels[i])], part=f"train/{labels[i]}/{i:03d}")
    as_folder("root", "a", rows("a"), part="train")
    assert sorted(texts_of(text(0, root="root", source="a", target="b"))) == sorted(expected)


def test_one_text_in_two_spellings_is_one():
    """é as one sign or two, the line ends of Windows and old Macs, a byte order mark, blanks around it."""
    spellings = ["caf\u00e9\nx", "cafe\u0301\r\nx", "\ufeffcaf\u00e9\rx", "  caf\u00e9\nx \n\n", "\ufeff caf\u00e9\nx"]
    assert {clean_text(each) for each in spellings} == {"caf\u00e9\nx"}
    assert len(text_digests([clean_text(each) for each in spellings]).unique(dim=0)) == 1
    assert len(text_digests(["a", "b", "A", "a ", ""]).unique(dim=0)) == 5


def test_a_byte_order_mark_is_no_part_of_a_name_or_text():
    as_csv("a.csv", rows("a"))
    Path("b.csv").write_bytes(b"\xef\xbb\xbf" + Path(as_csv("b.csv", rows("b"))).read_bytes())
    assert texts_of(text(0, source="a.csv", target="b.csv")) == [each for each, _ in rows("b")]
    lines = as_lines("b.jsonl", [{"text": each, "label": label} for each, label in rows("b")])
    Path(lines).write_bytes(b"\xef\xbb\xbf" + Path(lines).read_bytes().replace(b"\n", b"\r\n"))
    assert texts_of(text(0, source="a.csv", target=lines)) == [each for each, _ in rows("b")]


@pytest.mark.parametrize("empty", ["", "   ", "\n\n", "\ufeff", "\u200b \u200d"])
def test_an_empty_text_is_refused_or_skipped_and_counted(empty, caplog):
    found = [*rows("b"), (empty, "good"), ("last", "bad")]
    match = r"1 of the 22 texts of the target is empty: b\.csv:22\. Write them.*dataset\.on_empty=skip"
    with pytest.raises(UserError, match=match):
        pair(found)
    drawn = pair(found, on_empty="skip")
    assert drawn.notes["skipped"] == {"source": 0, "target": 1} and len(drawn.target.y) == 21
    assert names_of(drawn)[-1].startswith("b.csv:") and texts_of(drawn)[-1] == "last"
    assert "skipped, and not predicted: 1 of the 22 texts of the target is empty: b.csv:22" in told(caplog)
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", found)
    with pytest.raises(UserError, match=r"1 of the 22 texts of the target is empty: root/b/good/020\.txt"):
        text(0, root="root", source="a", target="b")
    drawn = text(0, root="root", source="a", target="b", on_empty="skip")
    assert drawn.notes["skipped"] == {"source": 0, "target": 1} and "root/b/good/020.txt" not in names_of(drawn)
    assert len(drawn.target.y) == len(names_of(drawn)) == len(texts_of(drawn)) == 21


def test_a_domain_without_any_text_is_refused_even_so():
    with pytest.raises(UserError, match=r"2 of the 2 texts of the target are empty: b\.csv:2, b\.csv:3\. Write them"):
        pair([("", "good"), (" ", "bad")], on_empty="skip")
    as_lines("b.jsonl", [{"label": "good"}, {"text": None, "label": "bad"}, {"text": "here", "label": "bad"}])
    with pytest.raises(UserError, match=r"2 of the 3 texts of the target are empty: b\.jsonl:1, b\.jsonl:2\."):
        text(0, source="a.csv", target="b.jsonl")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\0\0", "b.csv is no text but a ZIP archive"),
        (b"text,label\nn\0o,bad\n", "line 2 of b.csv holds a zero byte"),
        (b"", "b.csv is empty"),
        (b"text,label\n", "b.csv has a header and no rows"),
        (b'text,label\n"open,bad\nmore,good\n', "the row at line 2 of b.csv can't be read: .*quotes closed"),
        (b"text,label\nyes, it is,good\n", "line 2 of b.csv has 3 cells, the header 2: .*a comma without quotes"),
        (b"review,label\nno,bad\n", r"dataset.text=text: b.csv has no such column \(it has 'review', 'label'\)"),
        (b"text,text,label\na,b,bad\n", "b.csv has 2 columns of the name 'text'"),
    ],
)
def test_a_file_that_is_no_table_of_texts_is_refused(data, message):
    Path("b.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        text(0, source=as_csv("a.csv", rows("a")), target="b.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "label": "bad"', r"line 2 of b.jsonl is no JSON \(Expecting ',' delimiter at column"),
        ("{'text': 'x'}", "line 2 of b.jsonl is no JSON"),
        ('["x", "bad"]', "line 2 of b.jsonl holds a list, and each must hold an object"),
        ("5", "line 2 of b.jsonl holds a number"),
        ('{"text": 5, "label": "bad"}', "line 2 of b.jsonl: 'text' is a number and must be a text in quotes: 5"),
        ('{"text": {"en": "x"}, "label": "bad"}', """'text' is an object and must be a text in quotes: {"en": "x"}"""),
        ('{"text": ["x"], "label": "bad"}', "line 2 of b.jsonl: 'text' is a list"),
        ('{"text": true, "label": "bad"}', "'text' is true or false"),
        ('{"text": "x", "label": ["bad"]}', "line 2 of b.jsonl: 'label' is a list and must be a word or a number"),
        ('{"text": "x", "label": Infinity}', r"line 2 of b.jsonl is no JSON \(Infinity is no number\)"),
        ('{"text": "x", "text": "y"}', "it has the key 'text' twice"),
        ('{"text": "x\\ud83d", "label": "bad"}', r"line 2 of b.jsonl: 'text' holds half of a sign, '\\ud83d'"),
        ('{"text": ' + "[" * 100_000, r"line 2 of b.jsonl is no JSON \(too deeply nested\)"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", "line 2 of b.jsonl is no JSON"),
    ],
)
def test_a_line_that_holds_no_text_is_refused(line, message):
    as_lines("b.jsonl", [{"text": "fine", "label": "good"}, line])
    with pytest.raises(UserError, match=message):
        text(0, source=as_csv("a.csv", rows("a")), target="b.jsonl")


def test_a_document_and_an_empty_file_of_json_are_refused_with_the_remedy():
    as_csv("a.csv", rows("a"))
    as_lines("b.json", [json.dumps([{"text": "x", "label": "bad"}])])
    with pytest.raises(UserError, match=r"line 1 of b\.json holds a list.*jq -c '\.\[\]' OLD > NEW"):
        text(0, source="a.csv", target="b.json")
    as_lines("b.json", [json.dumps([{"text": "x", "label": "bad"}], indent=1)])
    with pytest.raises(UserError, match=r"line 1 of b\.json is no JSON.*jq -c"):
        text(0, source="a.csv", target="b.json")
    Path("b.json").write_text("\n \n")
    with pytest.raises(UserError, match=r"b\.json is empty: each of its lines must hold an object"):
        text(0, source="a.csv", target="b.json")
    as_lines("b.json", [{"review": "x", "label": "bad"}])
    with pytest.raises(UserError, match=r"dataset\.text=text: b\.json has no such column \(it has 'review', 'label'\)"):
        text(0, source="a.csv", target="b.json")


def test_labels_of_json_may_be_words_numbers_or_truths_and_missing():
    values: list[Any] = [0, 1, 1.0, "1", None, "", "NA", float("nan")]
    as_lines("b.jsonl", [{"text": f"b {i}", "label": value} for i, value in enumerate(values)])
    as_lines("a.jsonl", [{"text": f"a {i}", "label": i % 2} for i in range(9)])
    assert classes_of(text(0, source="a.jsonl", target="b.jsonl")) == ["0", "1", "1", "1", None, None, None, None]
    as_lines("a.jsonl", [{"text": f"a {i}", "label": i % 2 == 0} for i in range(9)])
    as_lines("b.jsonl", [{"text": f"b {i}", "label": i % 2 == 0} for i in range(9)])
    assert text(0, source="a.jsonl", target="b.jsonl").target.classes == ("false", "true")


def test_files_of_a_folder_that_are_no_text_are_refused_or_passed_over(caplog):
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", rows("b"))
    for name in ("notes.md", "page.html"):
        Path("root/b/good", name).write_text("x")
    Path("root/b/good/._001.txt").write_text("x")
    assert len(text(0, root="root", source="a", target="b").target.y) == 20
    assert "ignored 2 files without the extension .txt" in told(caplog)
    Path("root/b/good/001.txt").write_bytes(b"first\nZo\xeb")
    Path("root/b/good/003.txt").write_bytes(b"x\0y")
    with pytest.raises(
        UserError, match=r"line 2 of root/b/good/001\.txt is not UTF-8.*\(1 other file can't be read either\)"
    ):
        text(0, root="root", source="a", target="b")
    Path("root/b/good/001.txt").unlink()
    with pytest.raises(UserError, match=r"line 1 of root/b/good/003\.txt holds a zero byte"):
        text(0, root="root", source="a", target="b")


def test_a_target_without_labels_in_tables_and_folders(caplog):
    as_csv("a.csv", rows("a"))
    as_csv("b.csv", [(each,) for each, _ in rows("b")], ["text"])
    drawn = text(0, source="a.csv", target="b.csv")
    assert set(classes_of(drawn)) == {None} and drawn.target.classes == ("bad", "good")
    assert "the target has no labels" in told(caplog) and "there is no column 'label' in b.csv" in told(caplog)
    as_folder("root", "a", rows("a"))
    Path("root/b").mkdir()
    for i in range(9):
        Path(f"root/b/{i}.txt").write_text(f"b {i}")
    drawn = text(0, root="root", source="a", target="b")
    assert set(classes_of(drawn)) == {None} and names_of(drawn)[0] == "root/b/0.txt"
    assert "texts outside any class folder" in told(caplog)
    assert set(classes_of(text(0, source="a.csv", target=as_csv("c.csv", rows("c")), labelled="no"))) == {None}
    with pytest.raises(UserError, match=r"dataset\.label=label: b\.csv has no such column"):
        text(0, source="a.csv", target="b.csv", labelled="yes")
    with pytest.raises(UserError, match=r"dataset\.label=label: b\.csv has no such column"):
        text(0, source="b.csv", target="a.csv")
    with pytest.raises(UserError, match=r"1 of the 21 rows of s has no label in column 'label' \(s\.csv, lines 22\)"):
        text(0, source=as_csv("s.csv", [*rows("s"), ("x", "NA")]), target="a.csv")


def test_label_set_shared_classes_and_other_classes_are_as_in_csv():
    more = [*rows("b"), ("so so", "mixed"), ("meh", "mixed")]
    with pytest.raises(UserError, match="the target has classes that the source does not have: 'mixed'"):
        pair(more)
    assert pair(more, labels="differ").target.classes == ("bad", "good", "mixed")
    shared, stated = pair(more, labels="shared"), pair(more, label_set=("bad", "good"))
    assert texts_of(shared) == texts_of(stated) == [each for each, _ in rows("b")]
    assert shared.notes["left_out"] == stated.notes["left_out"] == {"source": 0, "target": 2}
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", more)
    drawn = text(0, root="root", source="a", target="b", label_set=("bad", "good"))
    assert drawn.notes["left_out"] == {"source": 0, "target": 2} and len(drawn.target.y) == 20


def test_a_test_part_and_scoring_by_labelled_rows():
    as_csv("test.csv", rows("test", 6))
    drawn = pair([(each, None) for each, _ in rows("b")], test="test.csv")
    _, answers, data = split_domains(drawn._replace(encoding=encoding), 0, NOTHING, CPU)
    assert data.rows["target"] == [16, 4, 6] and len(answers.open()) == 6
    assert answers.places and {*answers.places.of_test} == {f"test.csv:{line}" for line in range(2, 8)}
    as_csv("test.csv", [*rows("test", 6), ("", "good")])
    with pytest.raises(UserError, match=r"1 of the 7 texts of the target's test part is empty: test\.csv:8"):
        pair(rows("b"), test="test.csv")
    half = [(each, label if i % 2 else None) for i, (each, label) in enumerate(rows("b"))]
    drawn = pair([*half, ("one more", "bad")], score_on="labelled")
    assert split_domains(drawn._replace(encoding=encoding), 0, NOTHING, CPU)[2].rows["target"] == [8, 2, 11]
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", rows("b"))
    as_folder("root", "t", rows("t", 6))
    drawn = text(0, root="root", source="a", target="b", test="t")
    assert split_domains(drawn._replace(encoding=encoding), 0, NOTHING, CPU)[2].rows["target"] == [16, 4, 6]


def encoding(source: Any, target: Any = ()) -> Encoding:
    return Encoding(lambda texts: torch.tensor([[len(each)] for each in texts]), {"seen": len(source) + len(target)})


def test_a_divided_domain_keeps_its_parts():
    as_folder("root", "a", rows("a"))
    for part in ("train", "test"):
        as_folder("root", "b", rows(part, 10), part=part)
    drawn = text(0, root="root", source="a", target="b")
    assert split_domains(drawn._replace(encoding=encoding), 0, NOTHING, CPU)[2].rows["target"] == [8, 2, 10]


def test_a_source_may_be_in_the_weights():
    drawn = text(0, target=as_csv("b.csv", rows("b")))
    assert drawn.source is None and drawn.target.classes == ("bad", "good")
    assert split_domains(drawn._replace(encoding=encoding), 0, NOTHING, CPU)[2].domains["source"] is None
    as_folder("root", "b", rows("b"))
    assert text(0, root="root", target="b").source is None
    all_rows = [(*row, "b") for row in rows("b")]
    as_csv("all.csv", all_rows, ("text", "label", "site"))
    assert text(0, file="all.csv", domain="site", target="b").source is None
    unlabelled = as_csv("c.csv", [(each, None) for each, _ in rows("c")])
    with pytest.raises(UserError, match="20 rows of the target have no label, and there is no source"):
        text(0, target=unlabelled)


def test_copies_are_told_across_domains_and_within_one(caplog):
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", rows("train", 8), part="train")
    as_folder("root", "b", rows("val", 8), part="val")
    copies = [
        ("train number 1, as written", "bad"),
        ("train number 2, as written", "bad"),
        ("val number 1, as written", "bad"),
    ]
    as_folder("root", "b", [*copies, *rows("a", 1)], part="test")
    split_domains(text(0, root="root", source="a", target="b")._replace(encoding=encoding), 0, NOTHING, CPU)
    assert "1 of 20 texts of the target also occurs in the source" in told(caplog)
    assert "2 of 4 texts of the target's test split also occur in its train split" in told(caplog)
    assert "the source's test split" not in told(caplog)
    with pytest.raises(UserError, match="every text of the target also occurs in the source"):
        split_domains(pair(rows("a")[:12])._replace(encoding=encoding), 0, NOTHING, CPU)


def test_what_the_options_cannot_mean_is_refused():
    as_csv("a.csv", rows("a"))
    as_folder("root", "a", rows("a"))
    with pytest.raises(UserError, match=r"dataset=text takes two files.*or folders \(dataset\.root=FOLDER.*none of th"):
        text(0)
    with pytest.raises(UserError, match=r"dataset\.file=a\.csv"):
        text(0, file="a.csv", source="x", target="y")
    with pytest.raises(UserError, match=r"and dataset\.text is for tables: leave one of them out"):
        text(0, root="root", source="a", target="b", text="body")
    with pytest.raises(UserError, match=r"dataset\.file is for tables"):
        text(0, root="root", file="a.csv", target="b")
    with pytest.raises(UserError, match=r"column 'text' is named twice, in dataset\.text and in dataset\.label"):
        text(0, source="a.csv", target="b.csv", label="text")
    with pytest.raises(UserError, match=r"dataset\.target=b: 'root' holds 'a'"):
        text(0, root="root", source="a", target="b")
    with pytest.raises(UserError, match=r"dataset\.source and dataset\.target are both a\.csv"):
        text(0, source="a.csv", target="a.csv")
    with pytest.raises(UserError, match=r"dataset\.source=root/a is a folder: .*dataset\.root=\S*root and .*, a$"):
        text(0, source="root/a", target="root/b")
    with pytest.raises(UserError, match=r"dataset\.target=b\.csw: there is no such file"):
        text(0, source="a.csv", target="b.csw")


def test_a_run_is_the_content_of_the_files_that_it_reads(tmp_path):
    def digest(**options: Any) -> str | None:
        return hash_data({"_target_": "text", **options}, Contents()).digest

    as_csv("a.csv", rows("a"))
    as_csv("b.csv", rows("b"))
    as_folder("root", "a", rows("a"))
    as_folder("root", "b", rows("b"))
    tables, folders = {"source": "a.csv", "target": "b.csv"}, {"root": "root", "source": "a", "target": "b"}
    first = digest(**tables), digest(**folders), digest(file="a.csv", domain="site", source="a", target="b")
    assert None not in first and len({*first}) == 3
    assert digest(source=f"{tmp_path}/a.csv", target="b.csv") == first[0]
    assert drop_locations({"_target_": "text", "source": f"{tmp_path}/a.csv"})["source"] == "a.csv"
    assert drop_locations({"_target_": "text", **folders}) == {"_target_": "text", "source": "a", "target": "b"}
    Path("b.csv").write_text(Path("b.csv").read_text() + "one more,good\n")
    Path("root/b/good/001.txt").write_text("changed")
    as_folder("root", "other", rows("c"))
    assert digest(**tables) != first[0] and digest(**folders) != first[1]
    assert digest(file="a.csv", domain="site", source="a", target="b") == first[2]


def test_texts_for_prediction_are_read_alike():
    """What a person wants predicted has no label."""
    as_lines("new.jsonl", [{"text": "x"}, {"text": "NA"}])
    columns = text_columns.TextColumns("text", "label", None, Dialect(missing=("NA",)))
    table = columns.read("new.jsonl", "new.jsonl")
    assert table.cells["text"].tolist() == ["x", "NA"] and table.places() == ["new.jsonl:1", "new.jsonl:2"]


def test_a_separator_is_for_csv_alone_and_that_is_said(tmp_path, caplog):
    files = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for file in files:
        rows = [{"text": f"{file.stem} number {i}", "label": str(i % 2)} for i in range(20)]
        file.write_text("\n".join(map(json.dumps, rows)))
    text(0, source=str(files[0]), target=str(files[1]), separator="tab")
    assert "dataset.separator=tab does nothing" in caplog.text
