"""The ratio p_t(x) / p_s(x) by kernels, without a density of either domain: what each source row should weigh.

Pure functions of the rows: source (n, d) and target (m, d) float tensors -> weights (n,), finite, none below 0. With
`others` (k, d), source rows that the estimate does not see, their weights follow: (n + k,). All use
the Gaussian kernel k(a, b) = exp(−‖a−b‖² / 2σ²); σ is given, or tried out, in units of the median distance of the rows.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tl_runner.functional.losses import squared_distances
from tl_runner.rng import Rng

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # that cross-validation tries for σ
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # and for λ
CHUNK = 1024  # rows of a block of distances
SAMPLE = 1000  # rows of each side that the median distance is taken of
FLOOR = 1e-12  # of a ratio within a logarithm
STIFFNESS = 100.0  # of kmm's bounds on the sum of the weights, which may be passed by as little as a hundredth


def ulsif(
    source: Tensor, target: Tensor, seed: int, centres: int = 100, folds: int = 5, others: Tensor | None = None
) -> Tensor:
    """Unconstrained least-squares importance fitting (Kanamori, Hido & Sugiyama, JMLR 2009): `rulsif` at α = 0.

    The authors set negative numbers of θ to 0, not negative weights, and leave out one row of each side in turn, in
    closed form. Of N(0, 1) and N(.7, 1), 1,501 and 700 rows, ten draws, their form misses the target's mean by −.053,
    this one by −.014; with ratios clipped, leaving one out (−.007, rank .985) is as good as five folds (rank .989).
    """
    return rulsif(source, target, seed, 0.0, centres, folds, others)


def rulsif(
    source: Tensor,
    target: Tensor,
    seed: int,
    alpha: float = 0.1,
    centres: int = 100,
    folds: int = 5,
    others: Tensor | None = None,
) -> Tensor:
    """The relative ratio r_α = p_t / (α p_t + (1−α) p_s), which 1/α bounds (Yamada et al., NeurIPS 2011).

    w = max(0, θᵀφ(x)), φ_l(x) = k(x, c_l) with `centres` target rows c drawn at random, θ = (H + λI)⁻¹ h with
    H = α mean_t φφᵀ + (1−α) mean_s φφᵀ and h = mean_t φ: the least mean square distance to r_α. σ and λ have the least
    ½θᵀHθ − hᵀθ on held-out rows, in `folds` parts of both domains.
    """
    chance = Rng(seed).generator()
    parts = [torch.randperm(len(rows), generator=chance).tensor_split(folds) for rows in (source, target)]
    ridges = torch.tensor(RIDGES, dtype=torch.float64)

    def moments(phi_s: Tensor, phi_t: Tensor) -> tuple[Tensor, Tensor]:
        return alpha * _second(phi_t) + (1 - alpha) * _second(phi_s), phi_t.mean(0)

    tried = []
    for phi_s, phi_t, phi_o in _kernels(source, target, others, centres, chance):
        score = torch.zeros(len(ridges), dtype=torch.float64)
        for out_s, out_t in zip(*parts, strict=True):
            theta = _ridge(*moments(_without(phi_s, out_s), _without(phi_t, out_t)), ridges)
            second, first = moments(phi_s[out_s], phi_t[out_t])
            score += 0.5 * ((theta @ second) * theta).sum(-1) - theta @ first
        least = score.min(0)
        tried.append((float(least.values), ridges[least.indices], phi_s, phi_t, phi_o))
    _, ridge, phi_s, phi_t, phi_o = min(tried, key=lambda each: each[0])
    theta = _ridge(*moments(phi_s, phi_t), ridge[None])[0]
    return torch.cat([phi_s @ theta, phi_o @ theta]).clamp_min(0.0)


def kliep(
    source: Tensor, target: Tensor, seed: int, centres: int = 100, folds: int = 5, others: Tensor | None = None
) -> Tensor:
    """Kullback–Leibler importance estimation (Sugiyama et al., NeurIPS 2008): max Σ_t log w(x), mean_s w = 1.

    w = Σ_l α_l k(x, c_l), α ≥ 0, with `centres` target rows c drawn at random; σ has the largest mean log w on held-out
    target rows, in `folds` parts.
    """
    chance = Rng(seed).generator()
    parts = torch.randperm(len(target), generator=chance).tensor_split(folds)
    tried = []
    for phi_s, phi_t, phi_o in _kernels(source, target, others, centres, chance):
        of_mean_1 = phi_s.mean(0).clamp_min(FLOOR)  # each kernel as a ratio of its own: its source rows have mean 1
        ratios = phi_t / of_mean_1
        held_out = [torch.log(ratios[out] @ mixture(_without(ratios, out)) + FLOOR).mean() for out in parts]
        tried.append((float(sum(held_out)), phi_s / of_mean_1, ratios, phi_o / of_mean_1))
    _, on_source, on_target, on_others = max(tried, key=lambda each: each[0])
    shares = mixture(on_target)
    return torch.cat([on_source @ shares, on_others @ shares])


def mixture(ratios: Tensor) -> Tensor:
    """The shares γ (c,) ≥ 0, of sum 1, that maximise mean_j log Σ_l γ_l ratios_jl; ratios (m, c) ≥ 0.

    That is the least Σγ − mean log(ratios γ) over γ ≥ 0 alone: a larger or smaller sum never pays there.
    """
    from scipy.optimize import minimize

    a = ratios.double().numpy()
    rows, columns = a.shape

    def loss(shares: np.ndarray) -> tuple[float, np.ndarray]:
        value = a @ shares + FLOOR
        return shares.sum() - np.log(value).mean(), 1 - (1 / value) @ a / rows

    found = minimize(
        loss, np.full(columns, 1 / columns), jac=True, method="L-BFGS-B", bounds=[(0, None)] * columns,
        options={"maxiter": 1000, "ftol": 1e-12},
    )  # fmt: skip
    return torch.as_tensor(found.x / found.x.sum())


def kmm(
    source: Tensor, target: Tensor, bandwidth: float = 1.0, bound: float = 1000.0, others: Tensor | None = None
) -> Tensor:
    """Kernel mean matching (Huang et al., NeurIPS 2006): the weighted source's mean is the target's, as kernels see it.

    min_w ½wᵀKw − κᵀw, K_ij = k(x_i, x_j), κ_i = n/m Σ_j k(x_i, x_j^t), 0 ≤ w ≤ `bound`, |Σw − n| ≤ nε with
    ε = (√n−1)/√n. σ is `bandwidth` times the median distance. K is nearly singular, so many w are as good as optimal:
    the search sets out from w = 1, and ends at weights as smooth as the kernel. Memory: n² float32. A row that is not
    among those has no weight: `others` are matched to the target by themselves.
    """
    if others is not None:
        return torch.cat([kmm(rows, target, bandwidth, bound) for rows in (source, others)])
    from scipy.optimize import minimize

    n, m = len(source), len(target)
    scale = -2 * (bandwidth * _median_distance(source, target)) ** 2
    kernel, kappa = torch.empty(n, n), torch.empty(n, dtype=torch.float64)
    for rows in torch.arange(n).split(CHUNK):
        kernel[rows] = squared_distances(source[rows], source).div_(scale).exp_()
        kappa[rows] = squared_distances(source[rows], target).div_(scale).exp_().double().sum(1) * (n / m)
    linear = kappa.numpy()
    slack = n - n**0.5  # n ε

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        matched = (kernel @ torch.as_tensor(w, dtype=kernel.dtype)).double().numpy()
        excess = w.sum() - np.clip(w.sum(), n - slack, n + slack)
        value = 0.5 * w @ matched - linear @ w + 0.5 * STIFFNESS * excess**2
        return value / n, (matched - linear + STIFFNESS * excess) / n

    found = minimize(
        loss, np.ones(n), jac=True, method="L-BFGS-B", bounds=[(0, bound)] * n,
        options={"maxiter": 500, "ftol": 1e-12, "maxcor": 30},
    )  # fmt: skip
    return torch.as_tensor(found.x)


def _kernels(
    source: Tensor, target: Tensor, others: Tensor | None, centres: int, chance: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """φ of the source (n, c), the target (m, c) and other rows (k, c) in float64, for each width that is tried."""
    chosen = target[torch.randperm(len(target), generator=chance)[:centres]]
    others = source[:0] if others is None else others
    distances = [squared_distances(rows, chosen).double() for rows in (source, target, others)]
    unit = _median_distance(source, target)
    for width in WIDTHS:
        phi_s, phi_t, phi_o = (torch.exp(squares / (-2 * (width * unit) ** 2)) for squares in distances)
        yield phi_s, phi_t, phi_o


def _median_distance(source: Tensor, target: Tensor) -> float:
    """Of rows of both domains, evenly picked; 1 where all are the same."""
    some = torch.cat([rows[:: -(-len(rows) // SAMPLE)] for rows in (source, target)])
    above = torch.ones(len(some), len(some), dtype=torch.bool).triu(1)
    return float(squared_distances(some, some)[above].median().sqrt()) or 1.0


def _without(rows: Tensor, out: Tensor) -> Tensor:
    kept = torch.ones(len(rows), dtype=torch.bool)
    kept[out] = False
    return rows[kept]


def _second(phi: Tensor) -> Tensor:
    return phi.mT @ phi / len(phi)


def _ridge(second: Tensor, first: Tensor, ridges: Tensor) -> Tensor:
    """(second + λI)⁻¹ first for each of these λ: (c, c), (c,), (k,) -> (k, c)."""
    values, vectors = torch.linalg.eigh(second)
    return ((first @ vectors) / (values.clamp_min(0.0) + ridges[:, None])) @ vectors.mT
