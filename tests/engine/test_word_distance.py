"""tl-screen distance=word2vec: real vectors by gensim, of texts that are known to the word."""

import csv
import io
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed

from tl_runner import config
from tl_runner.cli.tl_screen import main
from tl_runner.engine import screen
from tl_runner.engine.assembly import Assembly, assemble
from tl_runner.engine.screen import Distance
from tl_runner.engine.word_distance import compare_words
from tl_runner.errors import UserError
from tl_runner.models.word_tokenizer import split_words
from tl_runner.models.word_vectors import read_vectors, train_vectors
from tl_runner.storage.provenance import collect_provenance
from tl_runner.storage.record import describe_run

gensim = pytest.importorskip("gensim.models")

SMALL = ["dataset.samples=60", "device=cpu", "threads=1", "pretrain=none"]
TEXTS = ["dataset=reviews", "backbone=bag_of_embeddings", *SMALL]


def assembled(*words: str) -> Assembly:
    record = describe_run(*composed(*words))
    record.environment = collect_provenance()
    return assemble(record, config.load_parts(record.config), torch.device("cpu"), needs_granted=False)


def kept(words: dict[str, list[float]], file: str, binary: bool = False) -> Path:
    """A file of word2vec's format, as gensim writes it."""
    vectors = gensim.KeyedVectors(len(next(iter(words.values()))))
    vectors.add_vectors([*words], np.array([*words.values()], dtype=np.float32))
    vectors.save_word2vec_format(file, binary=binary)
    return Path(file)


def test_the_similarity_is_that_of_all_pairs_of_words_of_the_training_texts():
    """With vectors for a few words, and by a loop over all that occur."""
    data = assembled(*TEXTS)
    assert data.text and len(data.text.source) == len(data.text.target) == 36
    numbers = np.random.default_rng(0).normal(size=(5, 3)).tolist()
    known = dict(zip(["the", "film", "gadget", "battery", "was"], numbers, strict=True))
    file = kept(known, "few.txt")
    words = [[word for text in of for word in split_words(text)] for of in (data.text.source, data.text.target)]
    sides = [[known[word] for word in of if word in known] for of in words]
    unit = [[np.array(v) / np.linalg.norm(v) for v in side] for side in sides]
    by_loop = np.mean([one @ other for one in unit[0] for other in unit[1]])
    found = compare_words(data, file)
    assert found.similarity == pytest.approx(by_loop, abs=1e-5)  # the file has float32 in decimals
    of_films, of_gadgets = (round(100 * len(side) / len(of)) for side, of in zip(sides, words, strict=True))
    assert found.told == (
        f"from few.txt, which knows {of_films} % of the words of films and {of_gadgets} % of the words of gadgets"
    )


@pytest.mark.parametrize("name", ["words.txt", "words.bin", "words.txt.gz", "words.bin.gz"])
def test_both_forms_of_word2vecs_format_are_told_apart(name):
    words = {"film": [0.5, -1.5, 3.25], "naïve": [1.0, 2.0, 3.0], "電池": [0.0, 0.125, -8.0]}
    found = read_vectors(kept(words, name, binary=".bin" in name))
    assert {word: found.by_word[word].tolist() for word in words} == words and found.seconds is None
    bag = found.look_up(["Film naïve film", "unknown"])
    assert (bag.vectors.tolist(), bag.counts.tolist(), bag.known) == ([words["film"], words["naïve"]], [2, 1], 0.75)


FEW = ("a good film with a good plot", "a bad gadget with a bad battery")


def test_two_processes_train_the_same_vectors_and_another_seed_others():
    """Python's hash of a text is another in each of them."""
    code = f"""from tl_runner.models.word_vectors import train_vectors
print(train_vectors({FEW}, 0).look_up({FEW}).vectors.tolist())"""
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
    here, other = (train_vectors(FEW, seed).look_up(FEW).vectors.tolist() for seed in (0, 1))
    assert there.strip() == str(here) != str(other)


def test_texts_that_share_more_words_are_more_alike():
    """By 0.03 and more; two seeds differ by 0.005."""
    more = [*TEXTS, "dataset.samples=300"]
    found = [compare_words(assembled(*more, f"dataset.overlap={share}"), None).similarity for share in (0, 0.5, 1)]
    assert found == sorted(found) and found[2] - found[0] > 0.03, found


def test_labels_have_no_part_in_it():
    one = compare_words(assembled(*TEXTS), None)
    noisy = compare_words(assembled(*TEXTS, "dataset.label_noise=0.5"), None)
    assert one.similarity == noisy.similarity
    assert one.told.startswith("trained on the 72 training texts of both domains, without labels, in ")


def test_it_is_had_beside_the_other_scores_for_every_stage():
    record = describe_run(*composed(*TEXTS))
    points = screen.screen(record, ("all",), Distance("word2vec"))
    with pytest.raises(StopIteration) as end:
        next(points)
    found = end.value.value
    assert len(found) > 1 and len({each.scores["words"] for each in found}) == 1
    assert {"logme", "a_distance", "mmd"} <= found[0].scores.keys() and "trained on" in found[0].words


@pytest.fixture
def typed(capsys, monkeypatch):
    """tl-screen as it is typed, in this process: its exit code, what it prints and what it complains of."""
    logger, handlers = logging.getLogger("tl_runner"), [*logging.getLogger("tl_runner").handlers]

    def screen_by(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tl-screen", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as end:
            main()
        logger.handlers[:] = handlers
        return int(end.value.code or 0), *capsys.readouterr()

    return screen_by


def test_candidates_are_sorted_by_it_and_it_is_a_column(typed):
    words = [*TEXTS, "dataset.source=films,gadgets", "distance=word2vec", "--by", "words"]
    code, text, told = typed(*words, "--format", "csv")
    assert code == 0 and told.count("word vectors trained on the 72 training texts") == 2
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["source"] for row in rows] == ["films", "gadgets"] and all(float(row["words"]) > 0 for row in rows)
    code, table, _ = typed(*TEXTS, "distance=word2vec", "--by", "words")
    assert code == 0 and "best first by words, which needs no labels" in table and "words: mean cosine of" in table
    without = typed(*TEXTS)[1]
    assert "words: " not in without


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distance=word2vec", "dataset=blobs", "backbone=linear"], "this dataset has none: use dataset=reviews"),
        (["distance=word2vac"], "distance=word2vac: possible: word2vec – did you mean 'word2vec'?"),
        (["distance="], "distance=: possible: word2vec"),
        (["vectors=words.txt"], "it needs distance=word2vec"),
        (["distance=word2vec", "vectors="], "vectors takes a file"),
        (["distance=word2vec", "vectors=nowhere.txt"], "vectors=nowhere.txt can't be read: No such file"),
        (["distances=word2vec"], "unknown key distances – did you mean 'distance'?"),
    ],
)  # fmt: skip
def test_wrong_words_get_one_line(words, message, typed):
    code, out, told = typed(*TEXTS, *words)
    assert code == 1 and out == "" and message in told
    assert [line for line in told.splitlines() if line.startswith("error: ")] == told.splitlines()[-1:]


class Harmful:
    def __reduce__(self):
        return (Path("harmed").mkdir, ())


def test_a_pickle_is_refused_unread():
    Path("own.kv").write_bytes(pickle.dumps(Harmful()))
    gensim.KeyedVectors(3).save("empty.kv")
    for name in ("own.kv", "empty.kv"):
        with pytest.raises(UserError, match=f"vectors={name} is not of word2vec's format, but a file that gensim"):
            read_vectors(Path(name))
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "word2vec's format begins with a line of two numbers.*begins with ''"),
        (b"film 0.1 0.2 0.3\nplot 0.1 0.2 0.3\n", "begins with 'film 0.1 0.2 0.3'"),
        (b"3 2\nfilm 0.1 0.2\n", "promises 3 words with vectors of 2 numbers, and"),
        (b"2 3\nfilm 0.1 0.2\nplot 0.1 0.2\n", "promises 2 words with vectors of 3 numbers, and"),
        (b"1 2\nfilm nan 0.2\n", "holds numbers that are not finite"),
    ],
)
def test_a_file_of_another_kind_or_cut_off_is_refused(content, message, request):
    file = Path(f"{request.node.callspec.indices['content']}.txt")  # each of another name: what was read is kept
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_vectors(file)


def test_vectors_of_other_words_are_refused():
    file = kept({"xyzzy": [1.0, 0.0]}, "other.txt")
    with pytest.raises(UserError, match=r"can't compare films: other\.txt knows none of its words"):
        compare_words(assembled(*TEXTS), file)


def test_texts_without_words_have_no_vectors():
    with pytest.raises(UserError, match="no training text holds a word"):
        train_vectors(("…", "!!"), 0)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    train_vectors.cache_clear()
    with pytest.raises(UserError, match=r"needs gensim: pip install 'tl_runner\[word2vec\]'"):
        train_vectors(("a film",), 0)
