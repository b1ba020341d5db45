"""Words and n-grams as tokens: no sign of a text that says something vanishes, and what is cut or unknown is told."""

import json
import logging
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from tl_runner.errors import UserError
from tl_runner.models.tokenizers import rebuild_tokenizer
from tl_runner.models.tokens import list_ids
from tl_runner.models.word_tokenizer import (
    MASK,
    PAD,
    UNKNOWN,
    NgramTokenizer,
    WordTokenizer,
    fit_ngrams,
    fit_words,
    list_ngrams,
    split_words,
)

TEXTS = ["A dull, dull film", "a great film!", "great GREAT fun"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't STOP—it’s ‘3.5’ foo_bar", ["don't", "stop", "it's", "3", "5", "foo", "bar"]),
        ("Cafe\u0301 CAFÉ naïve", ["café", "café", "naïve"]),  # one spelling of an accent
        ("我爱 films カナ 한국어", ["我", "爱", "films", "カ", "ナ", "한국어"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # vowels that are marks
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("ok\U0001f525\U0001f525 \u2764\ufe0f\u2764", ["ok", "\U0001f525", "\U0001f525", "\u2764", "\u2764"]),
        ("\U0001f44d\U0001f3fd", ["\U0001f44d\U0001f3fd"]),  # with a skin tone
        ("\U0001f469\u200d\U0001f469\u200d\U0001f467", ["\U0001f469\u200d\U0001f469\u200d\U0001f467"]),  # a family
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"]),  # two flags
        ("\U0001fadf", ["\U0001fadf"]),  # newer than some tables of signs
        ("!!! … -- ''", []),
        ("", []),
    ],
)
def test_texts_are_split_into_words(text, tokens):
    assert split_words(text) == tokens


def test_plain_words_are_those_of_scikit_learn():
    texts = ["The plot was slow, but the cast: wonderful.", "UNWATCHABLE (twice)! 42 times", "über Straße été"]
    assert [split_words(text) for text in texts] == [*map(CountVectorizer().build_analyzer(), texts)]


def test_a_vocabulary_is_the_most_frequent_words_of_the_source(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = fit_words(TEXTS, ["a broken lamp", "great"], vocabulary=3, length=3)
    assert tokenizer.words == ("great", "a", "dull")  # 3 times, then twice by the alphabet; film has no room
    assert tokenizer.size == 6 and tokenizer.facts == {
        "kind": "words", "tokens": 6, "length": 3, "cut": 1, "unknown": 0.5,
    }  # fmt: skip
    assert tokenizer(["Great film", "", "dull " * 10_000]).tolist() == [[3, UNKNOWN, PAD], [PAD] * 3, [5, 5, 5]]
    assert "1 of 5 training texts have more than 3 words, and what follows is not read" in caplog.text
    assert "50 % of the words of the target's texts are unknown: backbone.vocabulary_from=all" in caplog.text
    ids = list_ids(tokenizer)
    assert (ids.size, ids.pad, ids.mask, ids.special) == (6, PAD, MASK, (PAD,))


def test_all_training_texts_can_give_the_vocabulary(caplog):
    tokenizer = fit_words(TEXTS, ["a broken lamp"], vocabulary_from="all")
    assert {"broken", "lamp"} <= {*tokenizer.words} and tokenizer.unknown_share == 0 and not caplog.text
    assert {"broken", "a broken"} <= {*fit_ngrams(TEXTS, ["a broken lamp"], vocabulary_from="all").terms}


def test_ngrams_are_all_runs_of_words():
    assert list_ngrams(["a", "b", "c"], 2) == ["a", "b", "c", "a b", "b c"] and list_ngrams(["a"], 3) == ["a"]
    tokenizer = fit_ngrams(TEXTS, (), ngrams=2, length=4)
    assert tokenizer.length == 4 + 3 and list_ids(tokenizer).mask is None
    told = tokenizer(["a dull lamp", "one", "a a a a a a"])
    numbers = {term: at for at, term in enumerate(tokenizer.terms, 1)}
    assert told[0].tolist() == [numbers["a"], numbers["dull"], numbers["a dull"]] + [PAD] * 4
    assert not told[1].any() and told[2].tolist() == [numbers["a"]] * 4 + [PAD] * 3  # four words are read


def test_the_weights_of_ngrams_are_those_of_scikit_learn():
    ours_to_split: dict[str, Any] = {"tokenizer": split_words, "token_pattern": None}
    theirs: Any = TfidfVectorizer(ngram_range=(1, 2), **ours_to_split).fit(TEXTS)
    ours = fit_ngrams(TEXTS, ())
    assert {*ours.terms} == {*theirs.vocabulary_} and ours.idf is not None
    expected = [theirs.idf_[theirs.vocabulary_[term]] for term in ours.terms]
    assert ours.idf.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tokenizer", [fit_words(TEXTS, ()), fit_ngrams(TEXTS, (), ngrams=3)])
def test_a_tokenizer_is_rebuilt_of_what_a_run_keeps(tokenizer: WordTokenizer | NgramTokenizer):
    again = rebuild_tokenizer(json.loads(json.dumps(tokenizer.state())))
    texts = [*TEXTS, "\U0001f525 unknown", ""]
    assert torch.equal(again(texts), tokenizer(texts)) and again(texts).dtype == torch.int64
    assert (again.size, again.length, again.pad) == (tokenizer.size, tokenizer.length, tokenizer.pad)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocabulary": 0}, "vocabulary"),
        ({"length": 0}, "length"),
        ({"vocabulary_from": "target"}, "vocabulary_from takes source or all, got 'target'"),
    ],
)
def test_options_that_can_not_be_are_refused(options, words):
    for fit in (fit_words, fit_ngrams):
        with pytest.raises(UserError, match=words):
            fit(TEXTS, (), **options)


def test_texts_without_a_word_are_refused():
    with pytest.raises(UserError, match="no training text holds a word"):
        fit_words(["!!!", ""], ())
