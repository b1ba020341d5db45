"""Texts of files as token ids: what is read, how rows are named, and what is refused in words."""

from pathlib import Path

import pytest
import torch

from tl_runner.datasets.dialect import Dialect
from tl_runner.errors import UserError
from tl_runner.models.word_tokenizer import WordTokenizer
from tl_runner.preprocessing.batching import Input
from tl_runner.preprocessing.recorded import read_preprocessing
from tl_runner.preprocessing.texts import Texts
from tl_runner.storage.sections import DataInfo

TOKENIZER = WordTokenizer(["good", "bad"], 4)
READ = Texts(TOKENIZER, "review")
GOOD, BAD = [3, 0, 0, 0], [4, 0, 0, 0]


@pytest.fixture
def files() -> dict[str, Path]:
    """One file of each kind, in the working folder."""
    contents = {
        "one.txt": "\ufeffGood\r\n",
        "two.csv": 'stars,review\n5,"Good,\nbad"\n1,bad\n2,\n',
        "three.jsonl": '{"review": "bad"}\n\n{"review": "  good "}\n',
        "none.txt": " \n",
    }
    for name, content in contents.items():
        Path(name).write_bytes(content.encode())
    Path("latin.txt").write_bytes("größe".encode("latin-1"))
    return {name: Path(name) for name in (*contents, "latin.txt")}


def test_texts_and_files_become_token_ids(files):
    assert READ("Good", "bad bad bad bad bad").tolist() == [GOOD, [4, 4, 4, 4]]
    assert READ(files["one.txt"], files["three.jsonl"], "bad").tolist() == [GOOD, BAD, GOOD, BAD]
    assert READ("good").dtype == torch.int64 and READ.numbers == 4


def test_rows_are_named_by_file_and_line_and_what_can_not_be_read_is_told(files):
    inputs = [Input(file) for file in files.values()]
    whole = next(READ.portions(inputs, 100))
    assert whole.names == ["one.txt", "two.csv:2", "two.csv:4", "three.jsonl:1", "three.jsonl:3"]
    assert whole.x.tolist() == [GOOD, [3, 4, 0, 0], BAD, BAD, GOOD]
    assert {*whole.bad} == {"two.csv:5", "none.txt", "latin.txt"} and "is not UTF-8" in whole.bad["latin.txt"]
    assert whole.bad["none.txt"] == "it is empty: there is nothing to predict"
    parts = [*READ.portions(inputs, 3)]
    assert [len(part.names) + len(part.bad) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.x for part in parts]), whole.x) and not [*READ.portions([], 3)]


def test_lines_of_a_table_are_taken_in_their_order(files):
    part = next(READ.portions([Input(files["two.csv"], [4, 2])], 9))
    assert part.names == ["two.csv:4", "two.csv:2"] and part.x.tolist() == [BAD, [3, 4, 0, 0]]
    with pytest.raises(UserError, match="no row at line 3"):
        next(READ.portions([Input(files["two.csv"], [3])], 9))


def test_what_is_no_text_is_refused(files):
    for given, words in (
        ((), "name at least one text"),
        (("good", " "), "text 2 of 2 is empty"),
        ((files["latin.txt"],), "not UTF-8"),
    ):
        with pytest.raises(UserError, match=words):
            READ(*given)
    with pytest.raises(UserError, match=r"two\.csv has no such column – did you mean 'review'"):
        Texts(TOKENIZER, "reviews")(files["two.csv"])


def test_random_inputs_are_texts_of_any_length():
    x = READ.random(200, 0.0, 1.0, torch.Generator().manual_seed(0))
    assert x.shape == (200, 4) and x.dtype == torch.int64 and int(x.max()) < TOKENIZER.size and int(x.min()) >= 0
    lengths = (x != TOKENIZER.pad).sum(1)
    assert {*lengths.tolist()} == {1, 2, 3, 4}
    assert torch.equal(x != TOKENIZER.pad, torch.arange(4) < lengths[:, None])  # padding at the end alone


def test_a_record_tells_the_column_and_the_separator():
    data = DataInfo(shape=[4], input="text")
    assert read_preprocessing(data, {"text": "review", "separator": "tab"}, TOKENIZER) == Texts(
        TOKENIZER, "review", Dialect("tab")
    )
    found = read_preprocessing(data, {}, TOKENIZER)
    assert found == Texts(TOKENIZER) and found.facts["tokenizer"] == TOKENIZER.state()
    assert {".txt", ".csv", ".jsonl"} <= found.endings
