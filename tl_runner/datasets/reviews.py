"""Reviews of films and of gadgets, made on the spot: each domain has words of praise and blame that only it uses."""

from typing import Literal

import numpy as np
import torch
from numpy.random import Generator

from tl_runner.datasets.content import text_digests
from tl_runner.datasets.review_words import DEGREES, DOMAINS, OPINIONS, PEOPLE, SHARED, TIMES, DomainWords
from tl_runner.datasets.shifts import mislabel
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.errors import UserError, check_range, nearest
from tl_runner.rng import Rng

CLASSES = ("negative", "positive")
SENTENCES = (4, 5, 6, 7, 8)  # of a review
STORY = 0.3  # of the sentences, whose words say nothing of the class
MIXED = 0.1  # of the opinions, which are of the other class: reviews praise one thing and blame another


def reviews(
    seed: int,
    source: Literal["films", "gadgets"] = "films",
    samples: int = 600,
    overlap: float = 0.3,
    label_noise: float = 0.0,
) -> Drawn:
    """Reviews, `samples` of each domain, as negative or positive; what is not the source is the target.

    A review is a few sentences: some tell a story, the others hold an opinion each. `overlap` is the share of opinions
    whose word both domains know; the others' is the domain's own. Both kinds stand side by side, so that what the own
    words mean can be learnt from reviews without labels. `label_noise` is the share of the source's reviews that get
    the other label, at random.
    """
    if source not in DOMAINS:
        raise UserError(f"dataset.source={source}: possible: {', '.join(DOMAINS)}{nearest(source, DOMAINS)}")
    check_range(10, samples=samples)
    check_range(0, 1, overlap=overlap, label_noise=label_noise)
    target = next(name for name in DOMAINS if name != source)

    def raw(name: str, noise: float) -> Raw:
        rng = Rng(seed).child("reviews", name)
        draw = rng.numpy()
        y = draw.integers(len(CLASSES), size=samples)
        texts = [_write(DOMAINS[name], int(label), overlap, draw) for label in y]
        y = mislabel(y, len(CLASSES), noise, rng.child("label noise").numpy())
        return Raw(name, text_digests(texts), torch.from_numpy(y), CLASSES, texts=np.array(texts, dtype=object))

    return Drawn(raw(source, label_noise), raw(target, 0.0), {"overlap": overlap}, fresh=True)


def _write(words: DomainWords, label: int, overlap: float, draw: Generator) -> str:
    """A review of this class."""
    count = int(draw.choice(SENTENCES))
    opinions = draw.random(count) >= STORY
    opinions[draw.integers(count)] = True  # one at least
    return " ".join(
        _state_opinion(words, label, overlap, draw) if opinion else _tell_story(words, draw) for opinion in opinions
    )


def _state_opinion(words: DomainWords, label: int, overlap: float, draw: Generator) -> str:
    felt = 1 - label if draw.random() < MIXED else label
    known = SHARED if draw.random() < overlap else words.opinions
    return _finish(
        _pick(OPINIONS, draw).format(
            word=_pick(known[felt], draw),
            opposite=_pick(known[1 - felt], draw),
            aspect=_pick(words.aspect, draw),
            item=_pick(words.item, draw),
            degree=_pick(DEGREES, draw),
        )
    )


def _tell_story(words: DomainWords, draw: Generator) -> str:
    return _finish(_pick(words.story, draw).format(time=_pick(TIMES, draw), person=_pick(PEOPLE, draw)))


def _finish(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _pick(words: tuple[str, ...], draw: Generator) -> str:
    return words[int(draw.integers(len(words)))]
