"""Texts as words, or as n-grams of words: tokenizers that are fitted on training texts and need no library."""

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, groupby, islice
from typing import Any, ClassVar, Literal
from unicodedata import category, normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_runner.errors import UserError, check_range

log = logging.getLogger(__name__)

VocabularyFrom = Literal["source", "all"]
PAD, UNKNOWN, MASK = 0, 1, 2  # ids that are no word
MANY = 0.1  # of the target's words: a share of unknown ones from which on it is worth a warning

CJK = (  # scripts without spaces between words: ideographs and the radicals they are made of, kana
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003fffd"
)
EMOJI = "\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
FLAG = "\U0001f1e6-\U0001f1ff"  # letters, two of which are a flag
BEHIND_EMOJI = "\U0001f3fb-\U0001f3ff\u20e3\U000e0020-\U000e007f"  # skin tones, keycaps, tags
VARIANT = "\ufe0f"  # asks for a coloured emoji: ❤ and ❤️ are one token


def split_words(text: str) -> list[str]:
    """The tokens of a text, in lower case.

    A token is a run of letters and digits of any script with their accents, in which an apostrophe may stand (don't,
    l'eau); or one Chinese character or Japanese kana; or one emoji, with what belongs to it (a skin tone, a family of
    several joined, a flag). Blanks, punctuation and other signs part tokens and are none. Scripts without spaces other
    than these (Thai, Khmer) make a token of a whole phrase: backbone=transformer reads them.
    """
    return _pattern().findall(normalize("NFC", text.lower()).replace(VARIANT, "").replace("\u2019", "'"))


@cache
def _pattern() -> re.Pattern[str]:
    """What `split_words` finds. Python's \\w has no marks, of which the vowels of Indic scripts are some."""
    marks = _join_ranges(code for code in range(sys.maxunicode + 1) if category(chr(code))[0] == "M")
    letter = rf"[^\W_{CJK}{EMOJI}]"
    word = rf"{letter}[{marks}]*"
    emoji = rf"[{EMOJI}][{BEHIND_EMOJI}]*"
    return re.compile(
        rf"[{FLAG}]{{2}}|{emoji}(?:\u200d{emoji})*|[{CJK}][{marks}]*|(?:{word})+(?:['\u200c\u200d](?:{word})+)*"
    )


def _join_ranges(codes: Iterable[int]) -> str:
    """Rising numbers of characters as the inside of a character class."""
    runs = (list(run) for _, run in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


class WordTokenizer:
    """The first `length` words of a text, by their numbers: 0 padding, 1 an unknown word, 2 a word to be guessed.

    `words` are those that it knows, whose numbers follow. `cut` counts the training texts that are longer, `unknown` is
    the share of the target's words that it does not know.
    """

    kind: ClassVar[str] = "words"
    pad: ClassVar[int] = PAD
    mask: ClassVar[int] = MASK
    special: ClassVar[tuple[int, ...]] = (PAD,)  # ids that stand for no piece of a text

    def __init__(self, words: Sequence[str], length: int):
        self.words, self.length = tuple(words), length
        self.cut, self.unknown = 0, 0.0
        self._ids = {word: at for at, word in enumerate(self.words, start=MASK + 1)}

    @property
    def size(self) -> int:
        return MASK + 1 + len(self.words)

    @property
    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokens": self.size, "length": self.length, "cut": self.cut, "unknown": self.unknown}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = ([self._ids.get(word, UNKNOWN) for word in islice(split_words(text), self.length)] for text in texts)
        return pad_rows(rows, len(texts), self.length)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": list(self.words), "length": self.length}


class NgramTokenizer:
    """The n-grams of 1 to `ngrams` words in the first `reads` words of a text, by their numbers; unknown ones are none.

    `terms` are those that it knows, words with a space between them, whose numbers are 1, 2, …; 0 is padding. `idf` (n,) are
    their weights where it has just been fitted: those of a finished run are in the weights of its network.
    """

    kind: ClassVar[str] = "ngrams"
    pad: ClassVar[int] = PAD

    def __init__(self, terms: Sequence[str], ngrams: int, reads: int, idf: NDArray[np.float64] | None = None):
        self.terms, self.ngrams, self.reads, self.idf = tuple(terms), ngrams, reads, idf
        self.cut, self.unknown = 0, 0.0
        self._ids = {term: at for at, term in enumerate(self.terms, start=1)}

    @property
    def size(self) -> int:
        return 1 + len(self.terms)

    @property
    def length(self) -> int:
        """How many n-grams `reads` words have."""
        return sum(max(0, self.reads - n) for n in range(self.ngrams))

    @property
    def facts(self) -> dict[str, Any]:
        told = {"kind": self.kind, "tokens": self.size, "ngrams": self.ngrams, "length": self.reads}
        return {**told, "cut": self.cut, "unknown": self.unknown}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        found = (list_ngrams(split_words(text)[: self.reads], self.ngrams) for text in texts)
        return pad_rows(
            ([self._ids[term] for term in row if term in self._ids] for row in found), len(texts), self.length
        )

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "terms": list(self.terms), "ngrams": self.ngrams, "reads": self.reads}


def list_ngrams(words: Sequence[str], longest: int) -> list[str]:
    """All runs of 1 to `longest` words, the short ones first; the words of a run have a space between them."""
    return [" ".join(words[at : at + n]) for n in range(1, longest + 1) for at in range(len(words) - n + 1)]


def pad_rows(rows: Iterable[Sequence[int]], count: int, length: int) -> Tensor:
    """So many rows of ids, none longer than `length`, as (n, length) int64 with padding at the end."""
    ids = torch.full((count, length), PAD)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return ids


def fit_words(
    source: Sequence[str],
    target: Sequence[str],
    vocabulary: int = 10000,
    length: int = 128,
    vocabulary_from: VocabularyFrom = "source",
) -> WordTokenizer:
    """A tokenizer that knows the `vocabulary` most frequent words of the source's training texts, or of all of them."""
    check_range(1, vocabulary=vocabulary, length=length)
    of_source, of_target = ([split_words(text) for text in texts] for texts in (source, target))
    fitted = _choose(of_source, of_target, vocabulary_from)
    tokenizer = WordTokenizer(rank_terms(fitted, vocabulary), length)
    tokenizer.cut = warn_of_cut(of_source + of_target, length)
    tokenizer.unknown = warn_of_unknown(of_target, tokenizer.words, vocabulary_from)
    return tokenizer


def fit_ngrams(
    source: Sequence[str],
    target: Sequence[str],
    ngrams: int = 2,
    vocabulary: int = 10000,
    length: int = 256,
    vocabulary_from: VocabularyFrom = "source",
) -> NgramTokenizer:
    """A tokenizer that knows the `vocabulary` most frequent n-grams of the source's training texts, or of all of them.

    idf_t = ln((1 + n) / (1 + n_t)) + 1, where n_t of these n texts hold the n-gram t.
    """
    check_range(1, ngrams=ngrams, vocabulary=vocabulary, length=length)
    of_source, of_target = ([split_words(text) for text in texts] for texts in (source, target))
    fitted = [list_ngrams(row[:length], ngrams) for row in _choose(of_source, of_target, vocabulary_from)]
    terms = rank_terms(fitted, vocabulary)
    texts_with = Counter(chain.from_iterable(map(set, fitted)))
    counts = np.array([texts_with[term] for term in terms])
    tokenizer = NgramTokenizer(terms, ngrams, length, np.log((1 + len(fitted)) / (1 + counts)) + 1)
    tokenizer.cut = warn_of_cut(of_source + of_target, length)
    tokenizer.unknown = warn_of_unknown(of_target, terms, vocabulary_from)
    return tokenizer


def rank_terms(rows: Iterable[Sequence[str]], most: int) -> list[str]:
    """The most frequent terms of these texts, equally frequent ones by the alphabet."""
    counted = Counter(chain.from_iterable(rows))
    if not counted:
        raise UserError("no training text holds a word: there is nothing to learn from")
    return sorted(counted, key=lambda term: (-counted[term], term))[:most]


def warn_of_cut(rows: Sequence[Sequence[str]], length: int) -> int:
    """How many of these texts, as lists of words, are longer than what is read; a warning where there are some."""
    cut = sum(len(row) > length for row in rows)
    if cut:
        log.warning(
            "%d of %d training texts have more than %d words, and what follows is not read: backbone.length=N reads N",
            cut, len(rows), length,
        )  # fmt: skip
    return cut


def warn_of_unknown(target: Sequence[Sequence[str]], known: Iterable[str], vocabulary_from: VocabularyFrom) -> float:
    """The share of the target's words that are not among the known ones; a warning where it is large."""
    counted, known = Counter(chain.from_iterable(target)), {*known}
    unknown = sum(count for word, count in counted.items() if word not in known) / max(1, counted.total())
    if unknown > MANY:
        mend = "vocabulary=N keeps more" if vocabulary_from == "all" else "vocabulary_from=all knows those of its texts"
        log.warning("%.0f %% of the words of the target's texts are unknown: backbone.%s", 100 * unknown, mend)
    return round(unknown, 4)


def _choose(source: list[list[str]], target: list[list[str]], vocabulary_from: VocabularyFrom) -> list[list[str]]:
    if vocabulary_from not in ("source", "all"):
        raise UserError(f"backbone.vocabulary_from takes source or all, got {vocabulary_from!r}")
    return source + target if vocabulary_from == "all" else source
