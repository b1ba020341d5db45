"""The similarity of two bags of words: all pairs, one by one, by other code."""

import pytest
import torch
from scipy.spatial.distance import cosine
from sklearn.metrics.pairwise import cosine_similarity

from tl_runner.functional.word_similarity import word_similarity


def vectors(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(seed)) * 3 + shift


def test_it_is_the_nested_loop_over_all_pairs():
    u, v = vectors(13, 0, 0.5), vectors(9, 1, 0.3)
    pairs = [1 - cosine(one.double().numpy(), other.double().numpy()) for one in u for other in v]
    assert word_similarity(u, v) == pytest.approx(sum(pairs) / (13 * 9), rel=1e-12)
    assert word_similarity(u, v, length_normalised=False) == pytest.approx(sum(pairs), rel=1e-12)
    assert word_similarity(u, v) == pytest.approx(cosine_similarity(u.double(), v.double()).mean(), rel=1e-12)


def test_counts_stand_for_repeated_words():
    u, v = vectors(5, 2), vectors(4, 3)
    of_u, of_v = torch.tensor([1, 4, 2, 1, 3]), torch.tensor([2, 1, 1, 5])
    counted = word_similarity(u, v, of_u, of_v)
    assert counted == pytest.approx(word_similarity(u.repeat_interleave(of_u, 0), v.repeat_interleave(of_v, 0)))
    assert counted != pytest.approx(word_similarity(u, v), abs=1e-3)


def test_texts_twice_as_long_are_as_similar_where_length_is_normalised():
    u, v = vectors(6, 4, 1.0), vectors(6, 5, 1.0)
    twice = torch.cat([u, u])
    assert word_similarity(twice, v) == pytest.approx(word_similarity(u, v))
    plain = word_similarity(u, v, length_normalised=False)
    assert word_similarity(twice, v, length_normalised=False) == pytest.approx(2 * plain)


def test_it_knows_directions_alone_and_is_symmetric():
    u, v = vectors(6, 6), vectors(8, 7)
    scale = torch.linspace(0.1, 9, 6)[:, None]
    assert word_similarity(u * scale, v) == pytest.approx(word_similarity(u, v), rel=1e-5)  # scaled in float32
    assert word_similarity(v, u) == pytest.approx(word_similarity(u, v))
    one = torch.tensor([[2.0, 0.0]])
    assert [word_similarity(one, torch.tensor([[x, y]])) for x, y in ((5.0, 0.0), (0.0, 1.0), (-1.0, 0.0))] == [
        1,
        0,
        -1,
    ]
    assert word_similarity(torch.cat([one, torch.zeros(1, 2)]), one) == 0.5  # no direction, no cosine


def test_each_vector_needs_its_count():
    with pytest.raises(ValueError, match="3 vectors need a count each, got 2"):
        word_similarity(vectors(3, 0), vectors(3, 0), torch.ones(2))
    with pytest.raises(ValueError, match="0 vectors"):
        word_similarity(torch.empty(0, 7), vectors(3, 0))


def test_a_hundred_thousand_words_take_no_table_of_pairs():
    n = 100_000  # whose pairs would take 80 GB
    assert 0.0 < word_similarity(vectors(n, 8, 1.0), vectors(n, 9, 1.0)) < 1.0
