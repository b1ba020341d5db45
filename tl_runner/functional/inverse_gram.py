"""How far apart the inverse Gram matrices of two domains' features are, by angle and by scale (DARE-GRAM)."""

import torch
from torch import Tensor

TINY = 1e-5  # of the largest: a smaller eigenvalue, or column, is noise of float32


def inverse_gram_distances(source: Tensor, target: Tensor, share: float = 0.9) -> tuple[Tensor, Tensor]:
    """The angle in [0, 2] and the scale ≥ 0 between features (…, n, d) and (…, m, d), each (…).

    With A = (1, f) the solution of least squares is (AᵀA)⁻¹Aᵀy: what is compared of the domains is the inverse of
    AᵀA (d+1, d+1), cut to its k leading eigenvalues λ, for as many as either domain needs to have more than this
    share of their sum, two at least. angle = mean over columns j of |1 − cos(G⁺_s,j, G⁺_t,j)|; scale =
    ‖λ_s,1..k − λ_t,1..k‖₂ / k. AᵀA grows with the rows, so the target's is taken as of n rows.

    A column that is 0 in both inverses counts as the same direction, in one of them as another. Nejjar, Wang & Fink,
    CVPR 2023. Their code counts from 0, and only those that do not exceed the share: where more than two are needed,
    its scale is over k − 2 eigenvalues, and its inverses keep k − 2 or k − 1, as rounding has it.
    """
    with torch.autocast(source.device.type, enabled=False):
        rows = source.shape[-2], target.shape[-2]
        grams = extended_gram(source.float()), extended_gram(target.float()) * (rows[0] / rows[1])
        values = [torch.linalg.eigvalsh(gram).flip(-1).clamp_min(0) for gram in grams]
        kept = torch.maximum(*(count_leading(each.detach(), share) for each in values))
        inverses = [invert_leading(gram, each.detach(), kept) for gram, each in zip(grams, values, strict=True)]
        leading = torch.arange(values[0].shape[-1], device=kept.device) < kept[..., None]
        scale = torch.linalg.vector_norm((values[0] - values[1]) * leading, dim=-1) / kept
        return (1 - cosines(*inverses)).abs().mean(-1), scale


def extended_gram(features: Tensor) -> Tensor:
    """AᵀA of A = (1, f), with a column of ones for a head's bias; (…, n, d) -> (…, d + 1, d + 1)."""
    ones = features.new_ones(*features.shape[:-1], 1)
    rows = torch.cat([ones, features], -1)
    return rows.mT @ rows


def count_leading(values: Tensor, share: float) -> Tensor:
    """The least number of eigenvalues (…, d), in falling order, that have more than this share of their sum; (…)."""
    shares = values.cumsum(-1) / values.sum(-1, keepdim=True)
    return ((shares <= share).sum(-1) + 1).clamp(2, values.shape[-1])


def invert_leading(gram: Tensor, values: Tensor, kept: Tensor) -> Tensor:
    """The pseudo-inverse (…, d, d) of a symmetric matrix by its `kept` leading eigenvalues, of `values` (…, d) all.

    The cut lies in the middle between the last that is kept and the next, and at `TINY` of the largest at least: where
    the batch has fewer directions than the other domain needs, there is nothing to invert. The gradient is that of
    `torch.linalg.pinv`: eigenvalues that are cut off count as 0, and where they lie close to the cut it stays finite.
    """
    last = values.gather(-1, kept[..., None] - 1)[..., 0]
    following = torch.cat([values, torch.zeros_like(values[..., :1])], -1).gather(-1, kept[..., None])[..., 0]
    cut = ((last + following) / (2 * values[..., 0])).clamp_min(TINY)
    return torch.linalg.pinv(gram, rtol=cut, hermitian=True)


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """The cosine of each column of one matrix with that of the other, (…, d, c) twice -> (…, c).

    Of columns that are 0 it is 1 if both are, else 0, and no gradient comes of it.
    """
    lengths = [torch.linalg.vector_norm(matrix, dim=-2) for matrix in (one, other)]
    there = [length > TINY * length.detach().amax(-1, keepdim=True) for length in lengths]
    both = there[0] & there[1]
    products = torch.where(both, lengths[0] * lengths[1], 1.0)
    return torch.where(both, (one * other).sum(-2) / products, (there[0] == there[1]).to(products))
