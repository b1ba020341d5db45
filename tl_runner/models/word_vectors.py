"""Vectors of words: read from a file of word2vec's format, or trained on texts; by the library gensim.

No pickle is read: gensim's own files are refused, since reading one runs what it says.
"""

import time
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.models.word_tokenizer import split_words

SIZE = 100  # of a vector that is trained here
EPOCHS = 5  # at least
SEEN = 500_000  # words in all epochs together, at least: after fewer, all vectors lie in one direction
PICKLES = (b"\x80", b"PK\x03\x04", b"\x93NUMPY")  # how gensim's, torch's and NumPy's files begin
FORMAT = "word2vec's format begins with a line of two numbers, how many words there are and how long their vectors"


class Bag(NamedTuple):
    """The vectors (k, d) of the distinct words of texts, how often each occurs (k,), and the share that has one."""

    vectors: Tensor
    counts: Tensor
    known: float


class WordVectors(NamedTuple):
    """A vector for each of some words; `seconds` of training, None of vectors that were read."""

    by_word: Any  # gensim's KeyedVectors
    seconds: float | None = None

    def look_up(self, texts: Iterable[str]) -> Bag:
        """The words of these texts that have a vector."""
        counted = Counter(chain.from_iterable(map(split_words, texts)))
        known = [word for word in counted if word in self.by_word]
        vectors = self.by_word[known] if known else np.empty((0, self.by_word.vector_size))
        counts = torch.tensor([counted[word] for word in known], dtype=torch.double)
        return Bag(torch.from_numpy(vectors), counts, counts.sum().item() / max(1, counted.total()))


@lru_cache(maxsize=1)  # several backbones are screened on the same texts
def train_vectors(texts: tuple[str, ...], seed: int) -> WordVectors:
    """Vectors of the words of these texts, by word2vec (Mikolov et al., 2013): the same in every process.

    By skip-grams, which take fewer texts than gensim's default to tell words apart; and of few texts in more epochs.
    """
    library = _import_library()
    started = time.monotonic()
    rows = [split_words(text) for text in texts]
    if not (words := sum(map(len, rows))):
        raise UserError("no training text holds a word: there is nothing to learn vectors from")
    found = library.Word2Vec(
        rows,
        vector_size=SIZE,
        epochs=max(EPOCHS, ceil(SEEN / words)),
        sg=1,
        min_count=1,
        seed=seed,
        workers=1,
        hashfxn=_hash_word,
    )
    return WordVectors(found.wv, time.monotonic() - started)


@lru_cache(maxsize=1)
def read_vectors(file: Path) -> WordVectors:
    """The vectors in a file of word2vec's format, text or binary, also packed by gzip as FILE.gz."""
    said = f"vectors={file}"
    library = _import_library()
    try:
        with _open(file) as opened:
            header, rest = opened.readline(200), opened.read(1_000_000)
    except OSError as error:
        raise UserError(f"{said} can't be read: {error.strerror or error}") from error
    if header.startswith(PICKLES):
        raise UserError(
            f"{said} is not of word2vec's format, but a file that gensim, torch or NumPy saved for themselves: it may"
            " be a pickle, and to read one is to run what it says. KeyedVectors.save_word2vec_format(FILE) writes one"
            " that is read here"
        )
    numbers = header.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"{said}: {FORMAT}; this one begins with {_shorten(header)}")
    words, size = map(int, numbers)
    try:
        found = library.KeyedVectors.load_word2vec_format(
            str(file), binary=not _is_text(rest, size), unicode_errors="replace"
        )
    except Exception as error:  # whatever the library meets in a file that is cut off, or whose header is wrong
        raise UserError(
            f"{said} can't be read: its first line promises {words} words with vectors of {size} numbers, and"
            f" {type(error).__name__}: {error}"
        ) from error
    if not np.isfinite(found.vectors).all():
        raise UserError(f"{said} holds numbers that are not finite")
    return WordVectors(found)


def _is_text(rest: bytes, size: int) -> bool:
    """Whether what follows the first line is the text format: a word and so many numbers a line."""
    line = rest.partition(b"\n")[0].decode("utf-8", "replace").rstrip().split(" ")
    try:
        return len([float(number) for number in line[-size:]]) == size < len(line)
    except ValueError:
        return False


def _open(file: Path) -> Any:
    """As gensim does: by gzip, where the name says so."""
    import gzip

    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _hash_word(word: str) -> int:
    """Python's own hash of a text differs from process to process."""
    return crc32(word.encode())


def _shorten(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _import_library() -> Any:
    try:
        import gensim.models
    except ImportError as error:
        raise UserError("distance=word2vec needs gensim: pip install 'tl_runner[word2vec]'") from error
    return gensim.models
