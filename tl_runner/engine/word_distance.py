"""How alike the words of two domains are: a property of their training texts, whatever the network."""

from pathlib import Path
from typing import NamedTuple

from tl_runner.engine.assembly import Assembly
from tl_runner.errors import UserError
from tl_runner.functional.word_similarity import word_similarity
from tl_runner.models.word_vectors import read_vectors, train_vectors


class WordsCompared(NamedTuple):
    """The similarity of source and target, from −1 to 1, and where the vectors are from."""

    similarity: float
    told: str


def compare_words(assembled: Assembly, file: Path | None) -> WordsCompared:
    """By the vectors in this file, or by some that are trained on both domains' texts, without their labels.

    Raises `UserError` where the rows are no texts, or a domain has no word that has a vector.
    """
    text, source, target = assembled.text, assembled.pair.source, assembled.pair.target
    if text is None:
        raise UserError("distance=word2vec compares texts, and this dataset has none: use dataset=reviews or text")
    if source is None:
        raise UserError("distance=word2vec compares two domains, and this task has no source domain")
    rows = (*text.source, *text.target)
    vectors = read_vectors(file) if file else train_vectors(rows, assembled.parts.settings.seed)
    one, other = vectors.look_up(text.source), vectors.look_up(text.target)
    sides = ((source.name, one), (target.name, other))
    for name, bag in sides:
        if not len(bag.vectors):
            why = f"{file} knows none of its words" if file else "none of its training texts holds a word"
            raise UserError(f"distance=word2vec can't compare {name}: {why}")
    if file:
        shares = " and ".join(f"{100 * bag.known:.0f} % of the words of {name}" for name, bag in sides)
        told = f"from {file}, which knows {shares}"
    else:
        told = f"trained on the {len(rows)} training texts of both domains, without labels, in {vectors.seconds:.1f} s"
    return WordsCompared(word_similarity(one.vectors, other.vectors, one.counts, other.counts), told)
