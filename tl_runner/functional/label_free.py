"""How good a checkpoint may be, judged without target labels: pure functions of predictions and source losses.

Predictions are class probabilities (n, C) of unlabelled target rows. Each value is a plain number.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.functional import losses

SHARPNESS = 0.05  # the temperature of `density`, as in its paper


def information(predicted: Tensor) -> float:
    """H(mean p) − mean H(p) in nats, from 0 to log C: confident rows of different classes (Bridle et al. 1991)."""
    return losses.row_entropy(predicted.mean(0)).item() - entropy(predicted)


def entropy(predicted: Tensor) -> float:
    """mean H(p) in nats, from 0 to log C. A model that says one class of all rows is at its best, 0."""
    return losses.row_entropy(predicted).mean().item()


def classes_used(predicted: Tensor) -> float:
    """How many classes are predicted, in effect: exp H(histogram of the argmax), from 1 to C."""
    histogram = torch.bincount(predicted.argmax(-1), minlength=predicted.shape[-1]) / len(predicted)
    return losses.row_entropy(histogram).exp().item()


def relative_nuclear_norm(predicted: Tensor) -> float:
    """‖P‖_* / √(n·C), from 1/√(n·C) up to 1 for confident rows in equal parts (Cui et al., CVPR 2020; n ≥ C)."""
    return (torch.linalg.svdvals(predicted.double()).sum() / predicted.numel() ** 0.5).item()


def density(predicted: Tensor) -> float:
    """Soft neighbourhood density: mean entropy of softmax_j≠i(⟨p_i, p_j⟩ / 0.05) of the rows p at length 1, in nats.

    High where each row has many like it (SND; Saito et al., ICCV 2021). A model that says one class of all rows is at
    its best, log(n−1): the reason why it is offered here, and never a default.
    """
    rows = F.normalize(predicted.double(), dim=-1)
    likeness = (rows @ rows.T / SHARPNESS).fill_diagonal_(-torch.inf)
    return losses.row_entropy(likeness.softmax(-1)).mean().item()


def risk(source_losses: Tensor, weights: Tensor) -> float:
    """Deep embedded validation: mean(wL) + η·mean(w) − η with η = −Cov(wL, w)/Var(w) (DEV; You et al., ICML 2019).

    The target's risk by the losses L (n,) of source rows that weigh w = p_t/p_s (n,); its control variate has the mean
    E[w] = 1. Equal weights leave the mean loss. Not bounded by 0: it is an estimate.
    """
    loss, w = source_losses.double(), weights.double()
    weighted = w * loss
    spread = (w - w.mean()).square().mean()
    eta = -((weighted - weighted.mean()) * (w - w.mean())).mean() / spread if spread > 0 else torch.zeros(())
    return (weighted.mean() + eta * (w.mean() - 1)).item()


def agreement(predicted: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of rows on which each model says what the mean of all their predictions says (EnsV; Hu et al. 2024)."""
    said = torch.stack([*predicted.values()]).mean(0).argmax(-1)
    return {name: (rows.argmax(-1) == said).double().mean().item() for name, rows in predicted.items()}


def compare_agreement(predicted: Mapping[str, Tensor], one: str, other: str) -> tuple[float, float]:
    """By how much `agreement` of one model exceeds that of another, and the standard error of that over the rows.

    Both are judged on the same rows, so that only the n rows count on which they differ in being right.
    """
    said = torch.stack([*predicted.values()]).mean(0).argmax(-1)
    right = [(predicted[name].argmax(-1) == said).double() for name in (one, other)]
    gain = right[0] - right[1]
    return gain.mean().item(), gain.std(correction=0).item() / len(gain) ** 0.5
