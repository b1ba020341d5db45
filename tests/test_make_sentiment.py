"""`scripts/make_sentiment`: what it leaves out and mends is counted; another package is refused."""

import csv
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

loader = SourceFileLoader("make_sentiment", str(Path(__file__).parent.parent / "scripts/make_sentiment"))
spec = spec_from_loader("make_sentiment", loader)
assert spec
make_sentiment = module_from_spec(spec)
loader.exec_module(make_sentiment)


def row(text: str, label: int | None) -> dict[str, object]:
    return {"text": text, "class": label}


def test_rows_without_a_label_and_those_that_occurred_before_are_left_out_and_counted():
    rows = [row("Good.", 1), row(" Bad.  ", 0), row("Good. ", 1), row("Oh\x85well", 0), row("", None)]
    kept, counts = make_sentiment.clean(rows)
    assert kept == [("Good.", "positive"), ("Bad.", "negative"), ("Oh…well", "negative")]
    assert counts == {"kept": 3, "duplicates": 1, "unlabelled": 1, "mended": 1}


def test_a_text_with_both_labels_is_an_error():
    with pytest.raises(ValueError, match=r"'Good\.' is both negative and positive"):
        make_sentiment.clean([row("Good.", 1), row("Good.", 0)])


def test_what_is_written_can_be_read(tmp_path):
    rows = [('He said "no", twice', "negative"), ("two\nlines", "positive")]
    make_sentiment.write(rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [(each["text"], each["label"]) for each in csv.DictReader(file)] == rows


def test_another_package_is_refused(tmp_path):
    (other := tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"is not sentiment@5\.0\.2"):
        make_sentiment.read_package(other)
