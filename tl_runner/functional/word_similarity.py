"""How alike two bags of words are, by the directions of their words' vectors."""

# Strict, but for what torch leaves untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import torch
from torch import Tensor
from torch.nn.functional import normalize


def word_similarity(
    source: Tensor,
    target: Tensor,
    source_counts: Tensor | None = None,
    target_counts: Tensor | None = None,
    length_normalised: bool = True,
) -> float:
    """(1/(n·m)) Σ_i Σ_j cos(u_i, v_j) over all pairs of a source word and a target word; from −1 to 1.

    It is the dot product of the two means of unit vectors, which takes n + m steps and not n·m. source u (k, d) and
    target v (l, d) are the vectors of words, or of distinct words with how often each occurs in source_counts (k,) and
    target_counts (l,), which add up to n and m. A vector of zeros has no direction: its cosines count as 0. Without
    `length_normalised` it is the plain sum over the pairs, which grows with the lengths of the texts.
    """
    one, n = _add_directions(source, source_counts)
    other, m = _add_directions(target, target_counts)
    total = (one @ other).item()
    return total / (n * m) if length_normalised else total


def _add_directions(vectors: Tensor, counts: Tensor | None) -> tuple[Tensor, float]:
    """The sum (d,) of the unit vectors, each as often as it occurs, and of how many; in float64."""
    weights = torch.ones(len(vectors)) if counts is None else counts
    if len(vectors) != len(weights) or not len(vectors):
        raise ValueError(f"{len(vectors)} vectors need a count each, got {len(weights)}")
    weights = weights.double().cpu()
    return weights @ normalize(vectors.double().cpu(), dim=1), weights.sum().item()
