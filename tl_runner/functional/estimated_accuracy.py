"""The accuracy on unlabelled rows, estimated from a model's probabilities there and on labelled source rows.

Probabilities are (n, C) on the target and (m, C) on the source's validation split, labels (m,). Every estimate assumes
that confidence and accuracy go together on the target as they do on the source. Under a strong shift they do not.
"""

# Strict, but for what torch, NumPy and SciPy leave untyped.
# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterable, Sequence
from math import exp, sqrt
from statistics import fmean, median

import torch
from torch import Tensor

from tl_runner.functional import losses
from tl_runner.functional.divergence import Estimate

ROWS = 1000  # that are transported, at most: the assignment takes time with their cube
TINY = 1e-12  # of a probability whose logarithm is taken
STEPS, ENOUGH = 60, 1e-9  # of the search for a temperature, and the relative step at which it ends
LONGEST = 3.0  # of a step in log T
COLDEST, HOTTEST = 0.05, 20.0  # temperatures
Z = 1.645  # standard deviations to either side of the middle 90 % of a normal distribution

# How far the truth lay below and above the median of all estimates, in nine of ten runs on pairs with known labels, by
# which share of rows changed their class in training: up to a bound. scripts/bench_estimates.py has the runs.
ERRORS = ((0.05, 0.10, 0.05), (0.10, 0.30, 0.10), (1.0, 0.40, 0.20))
UNSEEN = (0.30, 0.50)  # the same where a run has one checkpoint, so that no change is seen
SEVERAL = 4  # other checkpoints, from which on changes are counted: the measured runs have nine
STEADY = ERRORS[0][0]  # up to this share an estimate may be believed


def estimate_accuracy(target: Tensor, source: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """All estimates by name, of probabilities that are first calibrated by a temperature: see `fit_temperature`.

    `ac`, `doc`, `atc_mc`, `atc_ne`, `cot`, `cott`, each in [0, 1]; see the functions of this module.
    """
    target, source = scale_temperature(target, temperature), scale_temperature(source, temperature)
    right = source.argmax(-1) == labels
    wrong = int((~right).sum())
    costs = transport_costs(target, count_labels(labels, source.shape[-1]))
    return {
        "ac": average_confidence(target),
        "doc": difference_of_confidences(target, source, right),
        "atc_mc": share_above_threshold(confidence(target), confidence(source), wrong),
        "atc_ne": share_above_threshold(-losses.row_entropy(target), -losses.row_entropy(source), wrong),
        "cot": transport_accuracy(costs),
        "cott": transport_share(costs, source, labels),
    }


def bound_estimate(estimates: Iterable[float], changed: float | None, rows: int) -> Estimate:
    """The median of these estimates with its 90 % interval, of so many rows.

    `changed` is the share of the rows whose class changed between checkpoints. A model that still changes its mind
    about the target's rows is often wrong there and sure of it; of the signals that were tried, this one predicts the
    size of the error best. The interval covers the errors measured on other data, and the sampling error of few rows.
    """
    value = median(estimates)
    below, above = UNSEEN if changed is None else next(ends for bound, *ends in ERRORS if changed <= bound)
    chance = Z**2 * value * (1 - value) / rows
    return Estimate(value, max(0.0, value - (below**2 + chance) ** 0.5), min(1.0, value + (above**2 + chance) ** 0.5))


def share_changed(selected: Tensor, others: Sequence[Tensor]) -> float | None:
    """The mean share of rows whose class differs between these predictions (n, C) and each of others.

    None of fewer than `SEVERAL` others: they see too little of the way.
    """
    if len(others) < SEVERAL:
        return None
    said = selected.argmax(-1)
    return fmean((rows.argmax(-1) != said).double().mean().item() for rows in others)


def scale_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T): the same classes, less sure of themselves where T > 1; float64."""
    return (probabilities.double().clamp_min(TINY).log() / temperature).softmax(-1)


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature of least cross-entropy on n labelled rows (Guo et al., ICML 2017), `COLDEST` to `HOTTEST`.

    The labels are smoothed, 1/(n + 2) of each to all classes alike, as if one more row of n + 2 could be wrong (Platt
    1999): a model that is right on every row is not made sure of everything. The loss is convex in β = 1/T, with the
    derivative mean(E_q[z] − Σ_c y_c z_c) and the curvature mean(Var_q[z]) of q = softmax(βz). Newton's steps in log β
    find where the derivative is 0; one that leaves the bracket halves it.
    """
    z = probabilities.double().clamp_min(TINY).log()
    doubt = 1 / (len(z) + 2)
    chosen = ((1 - doubt) * z.gather(1, labels[:, None])[:, 0] + doubt * z.mean(-1)).mean().item()
    low, high, beta = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(STEPS):
        q = (beta * z).softmax(-1)
        qz = q * z
        mean = qz.sum(-1)
        slope = mean.mean().item() - chosen
        curvature = ((qz * z).sum(-1) - mean.square()).mean().item()
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = -slope / max(beta * curvature, TINY)
        found = beta * exp(min(max(step, -LONGEST), LONGEST))
        last, beta = beta, found if low <= found <= high else sqrt(low * high)
        if abs(beta - last) <= ENOUGH * beta:
            break
    return 1 / beta


def confidence(probabilities: Tensor) -> Tensor:
    """max_c p_c of each row, (n,)."""
    return probabilities.max(-1).values


def average_confidence(target: Tensor) -> float:
    """AC: the mean of max_c p_c (Hendrycks & Gimpel, ICLR 2017)."""
    return confidence(target).mean().item()


def difference_of_confidences(target: Tensor, source: Tensor, right: Tensor) -> float:
    """DoC: the source's accuracy, plus the mean confidence on the target, minus that on the source (Guillory 2021)."""
    gap = confidence(target).mean() - confidence(source).mean()
    return (right.double().mean() + gap).clamp(0, 1).item()


def share_above_threshold(target: Tensor, source: Tensor, wrong: int) -> float:
    """ATC: the share of target scores above the threshold that as many source rows exceed as are right (Garg 2022).

    Scores (n,) and (m,) that are large where the model is sure; it gets `wrong` of the m rows wrong.
    """
    return (target > find_threshold(source, wrong)).double().mean().item()


def find_threshold(scores: Tensor, below: int) -> float:
    """The largest of the `below` smallest scores; −∞ for none."""
    return float(scores.sort().values[below - 1]) if below else float("-inf")


def transport_accuracy(costs: Tensor) -> float:
    """COT: 1 − the least mean cost 1 − p_y of giving target rows labels as frequent as the source's (Lu 2023).

    `costs` are the `transport_costs` of target rows by the source's `count_labels`.
    """
    return 1 - costs.mean().item()


def transport_share(costs: Tensor, source: Tensor, labels: Tensor) -> float:
    """COTT: the share of target rows whose cost is below the threshold that the source's errors set (Lu et al. 2023).

    Costs are those of `transport_accuracy`; on the source as many rows lie above the threshold as the model gets wrong.
    """
    counts = count_labels(labels, source.shape[-1])
    source, labels = source[:ROWS], labels[:ROWS]
    wrong = int((source.argmax(-1) != labels).sum())
    return share_above_threshold(-costs, -transport_costs(source, counts), wrong)


def count_labels(labels: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels, minlength=classes)


def transport_costs(probabilities: Tensor, counts: Tensor) -> Tensor:
    """1 − p_y of each of the first `ROWS` rows, (min(n, ROWS),), under the labels y of least total cost.

    The labels are as frequent as `counts` (C,) say, to a row. Since every row has the same mass, the optimal transport
    plan is an assignment of rows to labels.
    """
    from scipy.optimize import linear_sum_assignment

    rows = probabilities[:ROWS].double()
    slots = torch.arange(len(counts)).repeat_interleave(share_out(len(rows), counts))
    cost = 1 - rows[:, slots]
    chosen = torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
    return cost.gather(1, chosen[:, None])[:, 0]


def share_out(rows: int, counts: Tensor) -> Tensor:
    """So many rows in the proportions of the counts (C,), whole ones: by the largest remainders."""
    exact = counts.double() * rows / counts.sum()
    whole = exact.floor().long()
    more = (exact - whole).argsort(descending=True, stable=True)[: rows - int(whole.sum())]
    whole[more] += 1
    return whole
