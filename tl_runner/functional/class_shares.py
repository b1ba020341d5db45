"""The target's class shares without its labels, where these alone differ: p_t(x|y) = p_s(x|y), label shift.

From probabilities of one model: `source` (n, C) on labelled source rows that it was not trained on, with their `labels`
(n,), and `target` (m, C) on target rows. Shares are (C,), none below 0, with the sum 1; all in float64.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.functional.estimated_accuracy import TINY

STEPS, ENOUGH = 2000, 1e-9  # of expectation maximisation, and the change of shares at which it ends
DRAWS, SEED = 200, 0  # of the bootstrap
PORTION = 20  # draws at a time
LEVEL = 0.05  # of an interval


def count_shares(labels: Tensor, classes: int) -> Tensor:
    """The shares of these labels (n,)."""
    return torch.bincount(labels.cpu(), minlength=classes).double() / len(labels)


def total_variation(shares: Tensor, others: Tensor) -> float:
    """½ Σ |p − q|: the least share of rows that would have to change their class."""
    return 0.5 * (shares - others).abs().sum().item()


def confusion(source: Tensor, labels: Tensor) -> Tensor:
    """C_ij = P_s(predict i, label j), by probabilities: (C, C) with the sum 1."""
    by_label = torch.zeros(source.shape[-1], source.shape[-1], dtype=torch.double)
    return by_label.index_add_(0, labels, source.double()).T / len(labels)


def bbse(target: Tensor, source: Tensor, labels: Tensor) -> Tensor:
    """Black-box shift estimation: C w = q, q the mean prediction on the target (Lipton, Wang & Smola, ICML 2018).

    w_j = p_t(j)/p_s(j) by the pseudo-inverse, so that a class without a row, or two that are never told apart, do no
    harm; the shares w ∘ p_s are clipped at 0 and normalised.
    """
    return _solve_bbse(confusion(source, labels), target.double().mean(0))


def _solve_bbse(joint: Tensor, q: Tensor) -> Tensor:
    """The shares of confusions (…, C, C), of which column j sums to p_s(j), and mean predictions (…, C)."""
    weights = torch.linalg.lstsq(joint, q[..., None], driver="gelsd").solution[..., 0]  # the pseudo-inverse's
    return _normalise(weights * joint.sum(-2))


def rlls(target: Tensor, source: Tensor, labels: Tensor) -> Tensor:
    """Regularised learning under label shifts: min ‖C w − q‖² + ρ‖w − 1‖² (Azizzadenesheli et al., ICLR 2019).

    ρ is the variance of an entry of C w − q by the number of rows, (1/n + 1/m) · mean_i q_i (1 − q_i): the estimate
    that a Gaussian prior w ~ N(1, 1) leads to. With few rows, or classes that are not told apart, the shares stay near
    the source's.
    """
    joint, q = confusion(source, labels), target.double().mean(0)
    strength = (1 / len(source) + 1 / len(target)) * (q * (1 - q)).mean()
    unit = torch.eye(len(q), dtype=torch.double)
    weights = torch.linalg.solve(joint.T @ joint + strength * unit, joint.T @ q + strength)
    return _normalise(weights * count_shares(labels, len(q)))


def mlls(target: Tensor, source: Tensor, labels: Tensor) -> Tensor:
    """The most likely shares, by expectation maximisation (Saerens et al. 2002), of calibrated probabilities.

    Calibrated on the source by a temperature and a bias for each class (Alexandari, Kundaje & Shrikumar, ICML 2020).
    """
    scale, bias = fit_bias_and_scale(source, labels)
    calibrated = (scale * target.double().clamp_min(TINY).log() + bias).softmax(-1)
    prior = count_shares(labels, source.shape[-1])
    ratio = calibrated / prior.where(prior > 0, torch.inf)  # a class without a row has no share to give
    shares = prior
    for _ in range(STEPS):
        posterior = ratio * shares
        found = (posterior / posterior.sum(-1, keepdim=True)).mean(0)
        if (found - shares).abs().max() < ENOUGH:
            return found
        shares = found
    return shares


def fit_bias_and_scale(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """β and b (C,) of the least cross-entropy of softmax(β log p + b) on labelled rows: a convex problem.

    The ridge of 1/n on b keeps that of a class without a row finite.
    """
    z = probabilities.double().clamp_min(TINY).log()
    known = torch.ones(1 + z.shape[-1], dtype=torch.double)
    known[1:] = 0
    known.requires_grad_()
    solver = torch.optim.LBFGS([known], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def loss() -> Tensor:
        solver.zero_grad()
        found = F.cross_entropy(known[0] * z + known[1:], labels) + known[1:].square().sum() / (2 * len(z))
        found.backward()
        return found

    solver.step(loss)  # pyright: ignore[reportArgumentType]  (it takes the gradient as it finds it)
    return known.detach()[0].clamp_min(0), known.detach()[1:]


ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"bbse": bbse, "rlls": rlls, "mlls": mlls}


def bootstrap_bbse(target: Tensor, source: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The ends (C,) and (C,) of each share's interval by `bbse`, at 95 % for all of them together (Bonferroni).

    A draw is how often it holds each row: the means of `bbse` are products with these counts.
    """
    generator, classes = torch.Generator().manual_seed(SEED), source.shape[-1]
    source, target, found = source.double(), target.double(), []
    for _ in range(DRAWS // PORTION):
        counts = [[_draw_counts(len(side), generator) for side in (source, target)] for _ in range(PORTION)]
        of_source, of_target = (torch.stack(side).double() for side in zip(*counts, strict=True))
        columns = [of_source[:, labels == c] @ source[labels == c] for c in range(classes)]
        found.append(_solve_bbse(torch.stack(columns, -1) / len(source), of_target @ target / len(target)))
    tail = LEVEL / (2 * classes)
    low, high = torch.cat(found).quantile(torch.tensor([tail, 1 - tail], dtype=torch.double), dim=0)
    return low, high


def _draw_counts(rows: int, generator: torch.Generator) -> Tensor:
    """How often each of so many rows is in a sample of as many, with replacement."""
    return torch.randint(rows, (rows,), generator=generator).bincount(minlength=rows)


def _normalise(shares: Tensor) -> Tensor:
    """None below 0 and with the sum 1: equal ones where nothing is left."""
    clipped = shares.clamp_min(0)
    total = clipped.sum(-1, keepdim=True)
    return torch.where(total > 0, clipped / total, 1 / shares.shape[-1])
