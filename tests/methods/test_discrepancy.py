"""Discrepancy and output losses: each against the paper's formula written again, in float64 and by loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import built
from scipy import optimize
from support.tasks import batch_of, images

from tl_runner.core import Batch, Method, Model
from tl_runner.domains import Labelled
from tl_runner.errors import UserError
from tl_runner.functional import losses, mmd
from tl_runner.functional.distances import DISTANCES, cosine_distance, sliced_wasserstein2
from tl_runner.methods.afn import AFN, norm_step
from tl_runner.methods.bnm import BNM, nuclear_norm
from tl_runner.methods.deepjdot import DeepJDOT, joint_cost, transport
from tl_runner.methods.im import IM
from tl_runner.methods.jmmd import JMMD, jmmd2
from tl_runner.methods.lmmd import LMMD, lmmd2
from tl_runner.methods.mcc import MCC, class_confusion
from tl_runner.methods.mmd import MMD
from tl_runner.methods.similarity import Similarity
from tl_runner.models.backbones import mlp

SCALES = (0.25, 0.5, 1, 2, 4)


def features(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def one_hot_logits(labels: list[int], classes: int) -> torch.Tensor:
    return 1000.0 * F.one_hot(torch.tensor(labels), classes).float()


def small_task(classes: int = 3) -> tuple[Model, Batch]:
    """A tiny network and a batch of 12 source and 10 target rows that lie elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone, width = mlp((4,), width=8, depth=1)
        model = Model(backbone, width, [str(name) for name in range(classes)])
    y = torch.arange(12) % classes
    return model, Batch(Labelled(features(12, 4, 0), y), features(10, 4, 1, 0.7))


def gradient(model: Model, term: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    term.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# ---- mcc


def confusion_by_loops(logits: np.ndarray, temperature: float) -> float:
    """Jin et al. 2020, entry by entry in float64."""
    n, classes = logits.shape
    y = np.array([[math.exp(v / temperature) for v in row] for row in logits])
    y = np.array([row / row.sum() for row in y])
    h = [-sum(p * math.log(p) for p in row) for row in y]
    total = sum(1 + math.exp(-value) for value in h)
    w = [n * (1 + math.exp(-value)) / total for value in h]
    c = [[sum(y[i, j] * w[i] * y[i, k] for i in range(n)) for k in range(classes)] for j in range(classes)]
    return sum(c[j][k] / sum(c[j]) for j in range(classes) for k in range(classes) if j != k) / classes


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_class_confusion_equals_the_loops_of_the_paper(temperature):
    logits = 2 * features(11, 4, 0)
    expected = confusion_by_loops(logits.double().numpy(), temperature)
    assert class_confusion(logits, temperature).item() == pytest.approx(expected, rel=1e-5)
    stacked = class_confusion(torch.stack([logits, logits + 1]), temperature)
    assert stacked.shape == (2,) and stacked[0].item() == pytest.approx(expected, rel=1e-5)


def test_class_confusion_is_zero_for_one_hot_predictions_and_finite_at_collapse():
    assert class_confusion(one_hot_logits([0, 1, 2, 2, 1], 3)).item() == 0.0
    collapsed = one_hot_logits([1] * 6, 3).requires_grad_()  # classes 0 and 2 have no mass at all
    value = class_confusion(collapsed)
    value.backward()
    assert value.item() == 0.0 and collapsed.grad is not None and torch.isfinite(collapsed.grad).all()
    # undecided rows: every entry of the confusion is 1/C, and (C² − C)/C² of them lie off the diagonal
    assert class_confusion(torch.zeros(5, 4)).item() == pytest.approx((4 - 1) / 4)


def test_the_certainty_of_class_confusion_carries_no_gradient():
    logits = (2 * features(9, 3, 1)).double().requires_grad_()
    y = (logits / 2.5).softmax(-1)
    w = 1 + torch.exp((y * y.log()).sum(-1))
    w = (len(w) * w / w.sum()).detach()
    c = torch.einsum("ij,i,ik->jk", y, w, y)
    c = c / c.sum(1, keepdim=True)
    ((c.sum() - c.trace()) / 3).backward()
    again = logits.detach().float().requires_grad_()
    class_confusion(again).backward()
    assert again.grad is not None and logits.grad is not None
    torch.testing.assert_close(again.grad.double(), logits.grad, rtol=1e-4, atol=1e-6)


# ---- bnm, im


def test_nuclear_norm_against_numpy_and_its_extremes():
    logits = 3 * features(10, 4, 2)
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    assert nuclear_norm(logits).item() == pytest.approx(np.linalg.norm(p, "nuc") / 10, rel=1e-5)
    assert nuclear_norm(one_hot_logits([0, 1, 2, 3] * 2, 4)).item() == pytest.approx(math.sqrt(4 / 8))
    assert nuclear_norm(one_hot_logits([0] * 8, 4)).item() == pytest.approx(1 / math.sqrt(8))
    undecided = torch.zeros(8, 4, requires_grad=True)  # rank one: three singular values are 0
    value = nuclear_norm(undecided)
    value.backward()
    assert value.item() == pytest.approx(1 / math.sqrt(8 * 4))
    assert undecided.grad is not None and torch.isfinite(undecided.grad).all()
    assert nuclear_norm(torch.stack([logits] * 2)).shape == (2,)


def test_bnm_and_im_pull_in_the_direction_of_their_papers():
    """A step against the gradient of BNM's term raises the norm, of IM's the information or sureness."""
    start = features(12, 3, 3)
    measures = {
        BNM(schedule="constant"): nuclear_norm,
        IM(schedule="constant"): losses.logit_information,
        IM(diversity=False, schedule="constant"): lambda z: -losses.row_entropy(z.softmax(-1)).mean(),
        MCC(schedule="constant"): lambda z: -class_confusion(z),
    }
    for method, measure in measures.items():
        model = Model(torch.nn.Sequential(torch.nn.Identity()), 3, ["a", "b", "c"])
        model.head = torch.nn.Identity()
        target = start.clone().requires_grad_()
        terms = method.terms(model, Batch(Labelled(start, torch.arange(12) % 3), target), 0.5)
        (name,) = terms.keys() - {"source"}
        (grad,) = torch.autograd.grad(terms[name], target)
        assert measure(start - 0.1 * grad) > measure(start)


def test_im_is_entropy_less_diversity():
    model, batch = small_task()
    p = model(batch.target).double().softmax(-1).detach().numpy()
    rows = -(p * np.log(p)).sum(1).mean()
    mean = p.mean(0)
    spread = -(mean * np.log(mean)).sum()
    whole = IM(weight=0.3, schedule="constant").terms(model, batch, 0.0)["im"].item()
    alone = IM(weight=0.3, diversity=False, schedule="constant").terms(model, batch, 0.0)["im"].item()
    assert whole == pytest.approx(0.3 * (rows - spread), rel=1e-4)
    assert alone == pytest.approx(0.3 * rows, rel=1e-4)


@pytest.mark.parametrize("method", [MCC(), BNM(), IM(), LMMD()])
def test_a_metric_tells_how_many_classes_are_predicted(method):
    model, batch = small_task()
    assert isinstance(model.head, torch.nn.Linear)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    terms = method.terms(model, batch, 0.5)
    assert terms.metrics["predicted_classes"].item() == pytest.approx(3.0)  # all are predicted alike
    with torch.no_grad():
        model.head.bias[1] = 1000.0
    terms = method.terms(model, batch, 0.5)
    assert terms.metrics["predicted_classes"].item() == pytest.approx(1.0)
    assert not terms.metrics["predicted_classes"].requires_grad
    terms[next(iter(terms.keys() - {"source"}))].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ---- afn


def test_norm_step_is_the_square_of_the_step_and_lengthens_each_row_alike():
    rows = features(7, 5, 4).requires_grad_()
    value = norm_step(rows, 0.5)
    value.backward()
    assert value.item() == pytest.approx(0.25)
    expected = -2 * 0.5 * rows / rows.norm(dim=1, keepdim=True) / 7
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, expected.detach())
    zero = torch.zeros(3, 4, requires_grad=True)  # a row without length has no direction to grow in
    norm_step(zero).backward()
    assert zero.grad is not None and torch.isfinite(zero.grad).all()


def test_afn_acts_on_both_domains():
    model, batch = small_task()
    assert AFN(weight=0.05, step=2.0).terms(model, batch, 0.0)["afn"].item() == pytest.approx(0.05 * 2 * 4.0)
    for stream in ("source", "target"):
        silent = Batch(Labelled(torch.zeros(12, 4), batch.source.y), torch.zeros(10, 4))
        chosen = Batch(
            batch.source if stream == "source" else silent.source, batch.target if stream == "target" else silent.target
        )
        assert gradient(model, AFN().terms(model, chosen, 0.0)["afn"]).abs().sum() > 0
    terms = AFN().terms(model, batch, 0.0)
    f_s, f_t = model.features(batch.source.x, batch.target)
    assert terms.metrics["norm_source"].item() == pytest.approx(f_s.norm(dim=1).mean().item())
    assert terms.metrics["norm_target"].item() == pytest.approx(f_t.norm(dim=1).mean().item())


# ---- jmmd, lmmd


def squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum((a - b) ** 2))


def width_of(joint: np.ndarray) -> float:
    pairs = [(i, j) for i in range(len(joint)) for j in range(len(joint)) if i != j]
    return float(np.mean([squared(joint[i], joint[j]) for i, j in pairs]))


def kernel_by_loops(joint: np.ndarray) -> np.ndarray:
    width = width_of(joint)
    return np.array([[sum(math.exp(-squared(a, b) / (s * width)) for s in SCALES) for b in joint] for a in joint])


def biased(kernel: np.ndarray, n: int) -> float:
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


@pytest.mark.parametrize("sigma", [0.92, 0.4])
def test_jmmd2_equals_the_double_loop(sigma):
    pairs = [(features(7, 3, 0), features(9, 3, 1, 1.0)), (features(7, 5, 2), features(9, 5, 3, 0.5))]
    p, q = features(7, 4, 4).softmax(-1), (2 * features(9, 4, 5)).softmax(-1)
    outputs = torch.cat([p, q]).double().numpy()
    kernel = np.array([[math.exp(-squared(a, b) / (2 * sigma**2)) for b in outputs] for a in outputs])
    for pair in pairs:
        kernel = kernel * kernel_by_loops(torch.cat(pair).double().numpy())
    # float32 against float64: products of kernels that sum to five each
    assert jmmd2(pairs, (p, q), sigma).item() == pytest.approx(biased(kernel, 7), abs=5e-5)


def test_jmmd_sees_a_joint_shift_that_both_margins_hide():
    """Features and predictions are each distributed alike on both sides, but paired the other way round."""
    x = torch.cat([torch.full((8, 1), -1.0), torch.full((8, 1), 1.0)])
    p = torch.cat([torch.tensor([[0.9, 0.1]]).expand(8, 2), torch.tensor([[0.1, 0.9]]).expand(8, 2)])
    assert mmd.mmd2(x, x).item() == pytest.approx(0.0, abs=1e-6)
    assert jmmd2([(x, x)], (p, p)).item() == pytest.approx(0.0, abs=1e-6)
    assert jmmd2([(x, x)], (p, p.flip(0))).item() > 0.1


def test_jmmd_of_constant_predictions_is_mmd():
    source, target = features(8, 3, 0), features(6, 3, 1, 1.0)
    p, q = torch.full((8, 4), 0.25), torch.full((6, 4), 0.25)
    torch.testing.assert_close(jmmd2([(source, target)], (p, q)), mmd.mmd2(source, target))


def test_lmmd2_equals_the_loops_of_the_paper():
    source, target = features(8, 3, 0), features(9, 3, 1, 0.8)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0])  # class 3 has no source row
    logits = 3 * features(9, 4, 2)
    logits[:, 2] -= 100.0  # class 2 no target row that is predicted to be of it
    p = logits.softmax(-1)
    kernel = kernel_by_loops(torch.cat([source, target]).double().numpy())
    predicted = {int(c) for c in p.argmax(-1)}
    shared = [c for c in range(4) if c in labels.tolist() and c in predicted]
    assert shared == [0, 1]
    total = 0.0
    for c in shared:
        w = np.array([float(y == c) for y in labels])
        v = p[:, c].double().numpy()
        w, v = w / w.sum(), v / v.sum()
        for i in range(8):
            total += sum(w[i] * w[j] * kernel[i, j] for j in range(8))
            total -= 2 * sum(w[i] * v[j] * kernel[i, 8 + j] for j in range(9))
        total += sum(v[i] * v[j] * kernel[8 + i, 8 + j] for i in range(9) for j in range(9))
    assert lmmd2(source, target, labels, p).item() == pytest.approx(total / len(shared), abs=1e-5)
    stacked = lmmd2(
        torch.stack([source] * 2), torch.stack([target] * 2), torch.stack([labels] * 2), torch.stack([p] * 2)
    )
    assert stacked.shape == (2,) and stacked[1].item() == pytest.approx(total / len(shared), abs=1e-5)


def test_lmmd_with_one_class_is_mmd():
    source, target = features(8, 3, 0), features(6, 3, 1, 1.0)
    value = lmmd2(source, target, torch.zeros(8, dtype=torch.long), torch.ones(6, 1))
    torch.testing.assert_close(value, mmd.mmd2(source, target), rtol=1e-5, atol=1e-6)


def test_lmmd_without_a_shared_class_is_zero_and_the_pseudo_labels_carry_no_gradient():
    source, target = features(4, 3, 0).requires_grad_(), features(4, 3, 1)
    logits = one_hot_logits([1, 1, 1, 1], 2)
    value = lmmd2(source, target, torch.zeros(4, dtype=torch.long), logits.softmax(-1))
    value.backward()
    assert value.item() == 0.0 and source.grad is not None and torch.isfinite(source.grad).all()
    model, batch = small_task()
    term = LMMD(schedule="constant").terms(model, batch, 0.5)["lmmd"]
    assert isinstance(model.head, torch.nn.Linear) and torch.isfinite(term)
    assert torch.autograd.grad(term, model.head.weight, allow_unused=True) == (None,)
    free = features(4, 2, 5).requires_grad_()
    lmmd2(source, target, torch.tensor([0, 1, 0, 1]), free.softmax(-1)).backward()
    assert free.grad is None


def test_jmmd_and_lmmd_compare_the_layers_and_lengths_that_they_are_asked_for():
    model, batch = small_task()
    f_s, f_t = model.features(batch.source.x, batch.target)
    p = (model.head(f_s).softmax(-1), model.head(f_t).softmax(-1))
    unit = (F.normalize(f_s, dim=-1), F.normalize(f_t, dim=-1))
    logits = (model.head(f_s), model.head(f_t))
    y = batch.source.y

    def term(method: Method) -> torch.Tensor:
        terms = method.terms(model, batch, 0.9999)
        return terms[next(iter(terms.keys() - {"source"}))]

    ramp, last = losses.ramp(0.9999), model.stages[-1]
    close = torch.testing.assert_close
    close(term(JMMD(weight=3.0)), 3 * ramp * jmmd2([(f_s, f_t)], p))
    close(term(JMMD(weight=3.0, schedule="linear")), 3 * 0.9999 * jmmd2([(f_s, f_t)], p))
    close(term(JMMD(weight=1.0, sigma=0.3, normalise=True)), ramp * jmmd2([unit], p, 0.3))
    close(term(JMMD(weight=1.0, layers=[last, "head"])), ramp * jmmd2([(f_s, f_t), logits], p))
    close(term(LMMD(weight=3.0)), 3 * ramp * lmmd2(f_s, f_t, y, p[1]))
    close(term(LMMD(weight=1.0, normalise=True)), ramp * lmmd2(*unit, y, p[1]))
    close(term(LMMD(weight=1.0, layers=[last, "head"])), ramp * (lmmd2(f_s, f_t, y, p[1]) + lmmd2(*logits, y, p[1])))


# ---- estimators of mmd


def linear_by_loops(source: np.ndarray, target: np.ndarray) -> float:
    """Gretton et al. 2012, lemma 14, pair by pair in float64."""
    width = width_of(np.concatenate([source, target]))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-squared(a, b) / (s * width)) for s in SCALES)

    x, y, found = source, target, []
    for i in range(0, min(len(x), len(y)) - 1, 2):
        found.append(k(x[i], x[i + 1]) + k(y[i], y[i + 1]) - k(x[i], y[i + 1]) - k(x[i + 1], y[i]))
    return float(np.mean(found))


@pytest.mark.parametrize(("n", "m"), [(10, 10), (9, 13), (2, 3)])
def test_the_linear_mmd2_equals_the_lemma(n, m):
    source, target = features(n, 4, 0), features(m, 4, 1, 1.0)
    expected = linear_by_loops(source.double().numpy(), target.double().numpy())
    assert mmd.mmd2(source, target, estimator="linear").item() == pytest.approx(expected, abs=5e-6)


def test_the_linear_mmd2_is_unbiased():
    """Its mean is that of `unbiased` under a shift, and 0 without."""
    for shift in (0.0, 1.0):
        source = torch.stack([features(40, 3, i) for i in range(400)])
        target = torch.stack([features(40, 3, 1000 + i, shift) for i in range(400)])
        values = mmd.mmd2(source, target, estimator="linear")
        gaps = values - mmd.mmd2(source, target, estimator="unbiased")
        assert abs(gaps.mean()) < 3 * gaps.std() / 20  # three standard errors of the mean of 400


def test_the_fourier_mmd2_comes_near_the_biased_one():
    """Each of 512 pairs of waves has a variance below 1/2: kernel values within 3/√1024 of theirs, here on means."""
    for d, shift in ((2, 0.0), (8, 1.0), (64, 0.5)):
        source, target = features(20, d, 0), features(31, d, 1, shift)
        exact = mmd.mmd2(source, target).item()
        near = mmd.mmd2(source, target, estimator="rff").item()
        assert near == pytest.approx(exact, rel=0.15)
        assert near == mmd.mmd2(source, target, estimator="rff").item()  # to the last bit
    torch.testing.assert_close(
        mmd.mmd2(source + 1000, target + 1000, estimator="rff"), torch.tensor(near), rtol=1e-2, atol=1e-3
    )


def test_the_fourier_kernel_is_the_sum_of_rbf_kernels():
    """By single rows: ‖φ(a) − φ(b)‖² = 2·5 − 2·k(a, b); with the width of two rows, ‖a−b‖², k = Σ exp(−1/s)."""
    expected = 2 * 5 - 2 * sum(math.exp(-1 / s) for s in SCALES)
    values = [mmd.mmd2(features(1, 6, i), features(1, 6, 99 + i), estimator="rff").item() for i in range(30)]
    assert np.mean(values) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("estimator", ["linear", "rff"])
def test_every_estimator_is_finite_at_collapse_keeps_its_width_still_and_takes_batches(estimator):
    source = torch.ones(8, 4, requires_grad=True)
    value = mmd.mmd2(source, torch.ones(8, 4), estimator=estimator)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert source.grad is not None and torch.isfinite(source.grad).all()
    scale = torch.ones((), requires_grad=True)
    mmd.mmd2(features(16, 4, 0) * scale, features(16, 4, 1, 2.0) * scale, estimator=estimator).backward()
    assert scale.grad is not None and abs(scale.grad) > 1e-3  # of a width that followed it would be 0
    a, b = (
        torch.stack([features(8, 5, i) for i in range(6)]),
        torch.stack([features(6, 5, 9 + i, 1.0) for i in range(6)]),
    )
    whole = mmd.mmd2(a.view(2, 3, 8, 5), b.view(2, 3, 6, 5), estimator=estimator)
    assert whole.shape == (2, 3)
    torch.testing.assert_close(whole[1, 2], mmd.mmd2(a[5], b[5], estimator=estimator))


def test_the_linear_mmd2_needs_two_rows_a_side():
    with pytest.raises(ValueError, match="the linear MMD needs at least 2 rows"):
        mmd.mmd2(torch.ones(1, 2), torch.ones(4, 2), estimator="linear")


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear", "rff"])
def test_mmd_uses_the_estimator_that_it_is_given(estimator):
    model, batch = small_task()
    f_s, f_t = model.features(batch.source.x, batch.target)
    expected = mmd.mmd2(f_s, f_t, estimator=estimator)
    got = MMD(weight=1.0, estimator=estimator, schedule="constant").terms(model, batch, 0.0)["mmd"]
    torch.testing.assert_close(got, expected)


# ---- weights and schedules


@pytest.mark.parametrize("name", ["mcc", "bnm", "im", "afn", "jmmd", "lmmd", "deepjdot", "similarity"])
def test_weight_and_schedule_scale_the_term(name):
    pair, model = images("0")
    method = built(name)
    kind: Any = type(method)
    batch = batch_of(method, pair)
    model.eval()  # so that no pass moves the BatchNorm statistics

    def term(**options) -> torch.Tensor:
        terms = kind(**options).terms(model, batch, 0.2)
        return terms[next(iter(terms.keys() - {"source"}))].detach()

    one = term(weight=1.0, schedule="constant")
    assert one.abs() > 1e-6
    torch.testing.assert_close(term(weight=2.0, schedule="constant"), 2 * one)
    torch.testing.assert_close(term(weight=1.0, schedule="linear"), 0.2 * one)
    torch.testing.assert_close(term(weight=1.0, schedule="ramp"), losses.ramp(0.2) * one)
    with pytest.raises(UserError, match="weight must be at least 0"):
        kind(weight=-1.0)


# ---- distances, similarity


def sliced_by_scipy(source: np.ndarray, target: np.ndarray, directions: np.ndarray) -> float:
    """The mean over directions of ∫(Q_s − Q_t)², the quantiles read at n·m points: exact, as both step there only."""
    parts = len(source) * len(target)
    found = []
    for u in directions.T:
        s = np.repeat(np.sort(source @ u), parts // len(source))
        t = np.repeat(np.sort(target @ u), parts // len(target))
        found.append(np.mean((s - t) ** 2))
    return float(np.mean(found))


@pytest.mark.parametrize(("n", "m"), [(8, 8), (7, 12), (12, 8), (1, 5)])
def test_sliced_wasserstein2_equals_the_quantiles_and_pot(n, m):
    import ot

    source, target = features(n, 5, 0), features(m, 5, 1, 1.0)
    directions = F.normalize(losses.normal(5, 40, torch.device("cpu"), 3), dim=0).double().numpy()
    s, t = source.double().numpy(), target.double().numpy()
    exact = sliced_wasserstein2(source.double(), target.double(), projections=40, seed=3).item()
    single = F.normalize(losses.normal(5, 40, torch.device("cpu"), 3).double(), dim=0).numpy()
    assert exact == pytest.approx(sliced_by_scipy(s, t, single), rel=1e-12)  # float64 stays
    value = sliced_wasserstein2(source, target, projections=40, seed=3).item()
    assert value == pytest.approx(sliced_by_scipy(s, t, directions), rel=1e-5)
    theirs: Any = ot.sliced_wasserstein_distance(s, t, projections=directions, p=2)
    assert value == pytest.approx(float(theirs) ** 2, rel=1e-4)


def test_sliced_wasserstein2_of_a_shift_is_its_square_over_the_columns():
    source = features(9, 4, 0)
    moved = sliced_wasserstein2(source, source[torch.randperm(9)] + 3.0).item()
    # Σ_u ⟨u, δ⟩² / L is ‖δ‖²/d = 9 on average; 256 directions have a standard error of about 5 % of it
    assert moved == pytest.approx(9.0, rel=0.15)
    assert sliced_wasserstein2(source, source.flip(0)).item() == pytest.approx(0.0, abs=1e-12)


def test_the_cosine_distance_by_hand():
    source = torch.tensor([[2.0, 1.0], [0.0, -1.0]])  # mean (1, 0)
    assert cosine_distance(source, torch.tensor([[0.0, 3.0]])).item() == pytest.approx(1.0)
    assert cosine_distance(source, torch.tensor([[1.0, 1.0]])).item() == pytest.approx(1 - 1 / math.sqrt(2))
    assert cosine_distance(source, -source).item() == pytest.approx(2.0)
    assert cosine_distance(source, 7 * source).item() == pytest.approx(0.0, abs=1e-6)
    zero = torch.zeros(3, 2, requires_grad=True)
    value = cosine_distance(zero, source)
    value.backward()
    assert value.item() == 1.0 and zero.grad is not None and torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_every_distance_is_zero_between_equals_finite_at_collapse_and_takes_batches(name):
    distance = DISTANCES[name]
    a, b = torch.stack([features(8, 5, i) for i in range(6)]), torch.stack([features(8, 5, 9 + i, 1) for i in range(6)])
    whole = distance(a.view(2, 3, 8, 5), b.view(2, 3, 8, 5))
    assert whole.shape == (2, 3) and whole.min() > 0
    torch.testing.assert_close(whole[1, 2], distance(a[5], b[5]))
    assert distance(a[0], a[0]).item() == pytest.approx(0.0, abs=1e-6)
    rows = torch.ones(8, 4, requires_grad=True)
    distance(rows, torch.ones(6, 4)).backward()
    assert rows.grad is not None and torch.isfinite(rows.grad).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert distance(a[0].bfloat16(), b[0].bfloat16()).dtype == torch.float32


def test_similarity_takes_the_distance_layers_and_lengths_that_it_is_asked_for():
    model, batch = small_task()
    f_s, f_t = model.features(batch.source.x, batch.target)
    unit = (F.normalize(f_s, dim=-1), F.normalize(f_t, dim=-1))
    logits = (model.head(f_s), model.head(f_t))
    layers, close = [model.stages[-1], "head"], torch.testing.assert_close
    for name, distance in DISTANCES.items():
        method = Similarity(distance=name, weight=3.0, schedule="linear")
        terms = method.terms(model, batch, 0.5)
        close(terms["similarity"], 1.5 * distance(f_s, f_t))
        close(terms.metrics["distance"], distance(f_s, f_t).detach())
        several = Similarity(distance=name, weight=1.0, layers=layers, schedule="constant")
        close(several.terms(model, batch, 0.0)["similarity"], distance(f_s, f_t) + distance(*logits))
    normalised = Similarity(normalise=True, weight=1.0, schedule="constant").terms(model, batch, 0.0)["similarity"]
    close(normalised, sliced_wasserstein2(*unit))


# ---- deepjdot


def test_the_joint_cost_by_loops():
    source, target, labels, logits = (
        features(5, 3, 0),
        features(7, 3, 1),
        torch.tensor([0, 2, 1, 1, 0]),
        features(7, 3, 2),
    )
    log_p = logits.double().log_softmax(-1)
    expected = [
        [0.3 * squared(source[i].numpy(), target[j].numpy()) - 0.7 * float(log_p[j, labels[i]]) for j in range(7)]
        for i in range(5)
    ]
    np.testing.assert_allclose(joint_cost(source, target, labels, logits, 0.3, 0.7), expected, rtol=1e-4)


def test_transport_is_the_cheapest_matching():
    """Of as many rows a plan is a permutation (Birkhoff), which SciPy finds; of others it is a linear programme."""
    cost = features(8, 8, 0)
    rows, columns = optimize.linear_sum_assignment(cost.numpy())
    expected = np.zeros((8, 8))
    expected[rows, columns] = 1 / 8
    np.testing.assert_allclose(transport(cost), expected, atol=1e-7)
    cost = features(4, 6, 1).abs()
    margins = [np.kron(np.eye(4), np.ones(6)), np.kron(np.ones(4), np.eye(6))]
    best = optimize.linprog(
        cost.numpy().ravel(), A_eq=np.vstack(margins), b_eq=np.r_[np.full(4, 1 / 4), np.full(6, 1 / 6)]
    )
    plan = transport(cost)
    assert (plan * cost).sum().item() == pytest.approx(best.fun, rel=1e-5)
    torch.testing.assert_close(plan.sum(1), torch.full((4,), 1 / 4))
    torch.testing.assert_close(plan.sum(0), torch.full((6,), 1 / 6))
    torch.testing.assert_close(transport(torch.zeros(3, 3)).sum(), torch.tensor(1.0))
    assert transport(torch.full((3, 3), math.nan)).isfinite().all()  # it is the loop that tells of divergence


def test_deepjdot_is_the_cost_of_a_plan_without_gradient():
    model, batch = small_task()
    method = DeepJDOT(weight=3.0, cost_features=0.2, cost_labels=0.4, schedule="linear")
    f_s, f_t = model.features(batch.source.x, batch.target)
    logits = model.head(f_t)
    cost = 0.2 * (f_s[:, None] - f_t[None]).square().sum(-1)
    cost = cost + 0.4 * torch.stack([F.cross_entropy(logits, y.expand(10), reduction="none") for y in batch.source.y])
    plan = transport(cost)
    assert not plan.requires_grad
    expected = 3.0 * 0.5 * (plan * cost).sum()
    got = method.terms(model, batch, 0.5)["deepjdot"]
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradient(model, got), gradient(model, expected), rtol=1e-4, atol=1e-6)


def test_deepjdots_default_plan_follows_the_features_and_not_the_labels():
    """α 0.001 and λ 0.0001, as in the authors' code for SVHN -> MNIST: SciPy's matching of the features alone.

    With λ = 0.1 the plan pairs what is predicted with what is labelled, also where the predictions are wrong.
    """
    method, y = DeepJDOT(), torch.arange(12) % 3
    assert (method.cost_features, method.cost_labels) == (0.001, 1e-4)
    source, target = features(12, 4, 0) + 3 * F.one_hot(y, 4), features(12, 4, 1) + 3 * F.one_hot(y, 4)
    wrong = 3 * F.one_hot((y + 1) % 3, 3).float()
    distances = ((source[:, None] - target[None]) ** 2).sum(-1).double().numpy()
    rows, columns = optimize.linear_sum_assignment(distances)
    plan = transport(joint_cost(source, target, y, wrong, method.cost_features, method.cost_labels))
    assert plan.argmax(1).tolist() == columns[rows.argsort()].tolist()
    assert (y == y[plan.argmax(1)]).all()
    misled = transport(joint_cost(source, target, y, wrong, method.cost_features, 0.1))
    assert (y != y[misled.argmax(1)]).all()
