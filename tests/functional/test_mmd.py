"""The maximum mean discrepancy against loops, closed forms and plain formulas that autograd differentiates."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tl_runner.errors import UserError
from tl_runner.functional.mmd import MMD_SCALES, RBF, mmd2, sum_kernels, weigh_pairs
from tl_runner.methods.lmmd import lmmd2

UNEVEN = (0.3, 1.0, 1.7)  # no scale is another one times a power of two
SHAPES = [(9, 13, 4), (5, 3, 40)]  # more rows than columns, and fewer: what is kept for the backward differs


def features(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def mmd2_by_loops(source: np.ndarray, target: np.ndarray, unbiased: bool) -> float:
    """Gretton et al. 2012, equations (3) and (5), pair by pair in float64; the width as Long et al. take it."""
    joint = np.concatenate([source, target])
    pairs = [(i, j) for i in range(len(joint)) for j in range(len(joint)) if i != j]
    width = np.mean([np.sum((joint[i] - joint[j]) ** 2) for i, j in pairs])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-np.sum((a - b) ** 2) / (scale * width)) for scale in (0.25, 0.5, 1, 2, 4))

    def check_range(rows: np.ndarray) -> float:
        return float(
            np.mean([k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j or not unbiased])
        )

    between = float(np.mean([k(a, b) for a in source for b in target]))
    return check_range(source) + check_range(target) - 2 * between


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_mmd2_equals_the_double_loop(estimator, shift):
    source, target = features(9, 4, 0), features(13, 4, 1, shift)
    expected = mmd2_by_loops(source.double().numpy(), target.double().numpy(), estimator == "unbiased")
    # float32 against float64: a few units in the seventh digit of kernels that sum to about five
    assert mmd2(source, target, estimator=estimator).item() == pytest.approx(expected, abs=5e-6)


def test_mmd2_of_gaussians_is_the_closed_form():
    """E exp(−‖z‖²/w) for z ~ N(δ, 2I) in d dimensions is (1 + 4/w)^(−d/2) · exp(−‖δ‖²/(w + 4))."""
    n, d, shift = 4000, 3, 0.8
    gap = d * shift**2
    width = 2 * d + gap / 2  # half of all pairs are within a domain, half between
    expected = 0.0
    for scale in MMD_SCALES:
        w = scale * width
        expected += 2 * (1 + 4 / w) ** (-d / 2) * (1 - math.exp(-gap / (w + 4)))
    value = mmd2(features(n, d, 0), features(n, d, 1, shift), estimator="unbiased").item()
    assert value == pytest.approx(expected, rel=0.05)  # three standard errors at this n are about 4 %


def test_the_unbiased_mmd2_averages_to_zero_where_source_and_target_are_one():
    values = torch.stack(
        [mmd2(features(16, 3, i), features(16, 3, 10_000 + i), estimator="unbiased") for i in range(400)]
    )
    assert abs(values.mean()) < 3 * values.std() / 20  # three standard errors of the mean of 400
    assert values.min() < 0  # which only an unbiased estimate can be
    biased = mmd2(features(16, 3, 0), features(16, 3, 1))
    assert biased > 0


def test_mmd2_takes_leading_batch_dimensions():
    source, target = torch.randn(2, 3, 8, 5), torch.randn(2, 3, 6, 5)
    for estimator in ("biased", "unbiased"):
        whole = mmd2(source, target, estimator=estimator)
        assert whole.shape == (2, 3)
        torch.testing.assert_close(whole[1, 2], mmd2(source[1, 2], target[1, 2], estimator=estimator))


def test_mmd2_of_collapsed_features_is_zero_with_a_finite_gradient():
    source = torch.ones(8, 4, requires_grad=True)
    value = mmd2(source, torch.ones(8, 4))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert source.grad is not None and torch.isfinite(source.grad).all()


def test_the_width_of_mmd2_carries_no_gradient():
    """Scaling both domains leaves MMD² alone, through a width that follows; the gradient must not know that.

    With a detached width the derivative along the scaling is that of a fixed kernel, which is not zero.
    """
    source, target = features(16, 4, 0), features(16, 4, 1, 2.0)
    scale = torch.ones((), requires_grad=True)
    value = mmd2(source * scale, target * scale)
    value.backward()
    torch.testing.assert_close(value, mmd2(3 * source, 3 * target), rtol=1e-4, atol=1e-5)
    assert scale.grad is not None and abs(scale.grad) > 1e-3


def test_mmd2_refuses_one_row_where_it_is_unbiased():
    with pytest.raises(ValueError, match="at least 2 rows"):
        mmd2(torch.ones(1, 2), torch.ones(4, 2), estimator="unbiased")


# ---- the operator, against formulas that know nothing of Gram matrices


def kernel_by_differences(joint: Tensor, scales: Sequence[float] = MMD_SCALES, width: float | None = None) -> Tensor:
    """Σ_s exp(−‖a−b‖² / (s·width)) by the (n, n, d) tensor of differences, which autograd differentiates."""
    squares = (joint[..., :, None, :] - joint[..., None, :, :]).square().sum(-1)
    n = joint.shape[-2]
    found = squares.detach().sum((-2, -1), keepdim=True) / (n * (n - 1)) if width is None else width
    return torch.stack([torch.exp(-squares / (scale * found)) for scale in scales]).sum(0)


def mmd2_by_kernel(kernel: Tensor, n: int, unbiased: bool) -> Tensor:
    within = []
    for block in (kernel[..., :n, :n], kernel[..., n:, n:]):
        rows = block.shape[-1]
        own = torch.diagonal(block, dim1=-2, dim2=-1).sum(-1)
        total = block.sum((-2, -1))
        within.append((total - own) / (rows * (rows - 1)) if unbiased else total / rows**2)
    return within[0] + within[1] - 2 * kernel[..., :n, n:].mean((-2, -1))


def by_differences(source: Tensor, target: Tensor, scales=MMD_SCALES, estimator: str = "biased") -> Tensor:
    joint = torch.cat([source, target], -2)
    return mmd2_by_kernel(kernel_by_differences(joint, scales), source.shape[-2], estimator == "unbiased")


def by_plain_gram(source: Tensor, target: Tensor, scales=MMD_SCALES, estimator: str = "biased") -> Tensor:
    """As it was before 2026-11-28: the Gram form, an exp per scale, and autograd."""
    joint = torch.cat([source, target], -2)
    rows = joint - joint.mean(-2, keepdim=True).detach()
    lengths = rows.square().sum(-1)
    squares = (lengths[..., :, None] + lengths[..., None, :] - 2 * rows @ rows.mT).clamp_min(0)
    n = joint.shape[-2]
    squares = squares * ~torch.eye(n, dtype=torch.bool)
    width = (squares.sum((-2, -1), keepdim=True) / (n * (n - 1))).clamp_min(1e-6).detach()
    kernel = torch.stack([torch.exp(squares / (-scale * width)) for scale in scales]).sum(0)
    return mmd2_by_kernel(kernel, source.shape[-2], estimator == "unbiased")


def differentiated(distance: Callable[..., Tensor], *sides: Tensor) -> list[Tensor]:
    """The value, and the gradients of (weights · value).sum(), so that no gradient is that of a mere sum."""
    free = [side.detach().clone().requires_grad_() for side in sides]
    value = distance(*free)
    upstream = torch.linspace(0.7, 1.9, max(value.numel(), 1), dtype=value.dtype).view(value.shape)
    return [value.detach(), *torch.autograd.grad(value, free, upstream)]


def error(found: Tensor, expected: Tensor) -> float:
    """Of a value or a gradient as a whole, relative."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("scales", [MMD_SCALES, UNEVEN, (4.0, 0.25, 1.0, 1.0), (2.0,)])
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_value_and_gradient_equal_those_by_differences(n, m, d, estimator, scales):
    chosen = {"scales": scales, "estimator": estimator}
    sides = features(n, d, 0).double(), features(m, d, 1, 0.8).double()
    expected = differentiated(partial(by_differences, **chosen), *sides)
    for found, right in zip(differentiated(partial(mmd2, **chosen), *sides), expected, strict=True):
        assert found.dtype == torch.float64 and error(found, right) < 1e-10
    single = differentiated(partial(mmd2, **chosen), *(side.float() for side in sides))
    for found, right in zip(single, expected, strict=True):
        # single precision rounds to 6e-8 the kernels, of which the value is a difference ten times smaller
        assert found.dtype == torch.float32 and error(found, right) < 1e-5


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize(("n", "m", "d"), [*SHAPES, (64, 64, 256)])
def test_value_and_gradient_are_those_of_the_plain_gram_form(n, m, d, estimator):
    chosen = {"estimator": estimator}
    sides = features(n, d, 0), features(m, d, 1, 0.8)
    found, plain = (differentiated(partial(f, **chosen), *sides) for f in (mmd2, by_plain_gram))
    # either is rounded, by up to 1.2e-6 of the true value here, which is a small difference of kernels
    assert max(map(error, found, plain)) < 2e-6
    sides = [side.double() for side in sides]
    found, plain = (differentiated(partial(f, **chosen), *sides) for f in (mmd2, by_plain_gram))
    assert max(map(error, found, plain)) < 1e-12


def test_a_product_of_kernels_has_the_gradient_of_each_factor():
    """As jmmd has it: one factor of a width of its own, one wide, one narrow."""
    sides = [features(n, d, 10 * n + d).double() for d in (3, 40, 5) for n in (7, 9)]
    weights = weigh_pairs(7, 9, sides[0])

    def joined(*sides: Tensor) -> Tensor:
        kernels = [RBF((2.0,), 0.9), RBF(), RBF(UNEVEN)]
        return sum_kernels([(sides[0], sides[1]), (sides[2], sides[3]), (sides[4], sides[5])], weights, kernels)

    def plainly(*sides: Tensor) -> Tensor:
        first, wide, narrow = (torch.cat(sides[i : i + 2]) for i in (0, 2, 4))
        kernel = kernel_by_differences(first, (2.0,), 0.9) * kernel_by_differences(wide)
        return mmd2_by_kernel(kernel * kernel_by_differences(narrow, UNEVEN), 7, False)

    found, expected = differentiated(joined, *sides), differentiated(plainly, *sides)
    assert max(map(error, found, expected)) < 1e-10


def test_lmmd2_has_the_gradient_of_the_papers_sum():
    """By the feature means of each class under a kernel that autograd differentiates."""
    source, target = features(8, 3, 0).double(), features(9, 3, 1, 0.8).double()
    labels, p = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0]), (3 * features(9, 3, 2).double()).softmax(-1)

    def plainly(source: Tensor, target: Tensor) -> Tensor:
        kernel = kernel_by_differences(torch.cat([source, target]))
        shared = [c for c in range(3) if c in labels and c in p.argmax(-1)]
        assert len(shared) > 1
        gaps = []
        for c in shared:
            mine = (labels == c).double()
            signed = torch.cat([mine / mine.sum(), -p[:, c] / p[:, c].sum()])
            gaps.append(signed @ kernel @ signed)
        return torch.stack(gaps).mean()

    found = differentiated(lambda s, t: lmmd2(s, t, labels, p), source, target)
    assert max(map(error, found, differentiated(plainly, source, target))) < 1e-10


def test_the_weights_of_lmmd_keep_their_precision_under_autocast():
    sides, labels = (features(8, 3, 0, 20.0), features(8, 3, 1, 20.0)), torch.arange(8) % 3
    p = features(8, 3, 2).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = lmmd2(*sides, labels, p)
    torch.testing.assert_close(found, lmmd2(*sides, labels, p))


def test_members_of_a_stack_have_the_numbers_of_their_own_calls():
    for (n, m, d), estimator in zip(SHAPES, ("biased", "unbiased"), strict=True):
        source = torch.stack([features(n, d, i) for i in range(6)]).view(2, 3, n, d)
        target = torch.stack([features(m, d, 9 + i, 1.0) for i in range(6)]).view(2, 3, m, d)
        chosen = partial(mmd2, estimator=estimator)
        free = source.clone().requires_grad_(), target.clone().requires_grad_()
        whole = chosen(*free)
        gradients = torch.autograd.grad(whole.sum(), free)
        for i in range(2):
            for j in range(3):
                alone = differentiated(lambda s, t, f=chosen: f(s, t) / 0.7, source[i, j], target[i, j])
                # products of stacks and of single matrices may add up in different orders
                torch.testing.assert_close(whole[i, j].detach(), alone[0] * 0.7, rtol=1e-5, atol=1e-7)
                for side, gradient in enumerate(gradients):
                    torch.testing.assert_close(gradient[i, j], alone[1 + side], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_collapsed_rows_far_from_zero_have_finite_gradients(n, m, d):
    for dtype in (torch.float32, torch.float64):
        value, *gradients = differentiated(mmd2, *(torch.full((rows, d), 1000.1, dtype=dtype) for rows in (n, m)))
        assert abs(value) < 1e-5 and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_half_precision_is_raised_under_autocast_and_far_from_zero(n, m, d, dtype):
    sides = [(features(rows, d, rows, 20.0)).to(dtype) for rows in (n, m)]
    expected = differentiated(by_differences, *(side.double() for side in sides))
    with torch.autocast("cpu", torch.bfloat16):
        found = differentiated(mmd2, *sides)
    assert found[0].dtype == torch.float32 and found[1].dtype == found[2].dtype == dtype
    assert max(map(error, found, expected)) < 1e-2  # gradients are rounded to eight bits in bf16


def test_only_the_side_that_asks_for_it_gets_a_gradient():
    for n, m, d in SHAPES:
        source, target = features(n, d, 0), features(m, d, 1, 1.0)
        both = differentiated(mmd2, source, target)
        assert torch.equal(differentiated(lambda s, t=target: mmd2(s, t), source)[1], both[1])
        assert torch.equal(differentiated(lambda t, s=source: mmd2(s, t), target)[1], both[2])
        assert not mmd2(source, target).requires_grad
        with torch.no_grad():
            assert not mmd2(source.requires_grad_(), target).requires_grad


# ---- what it costs


def kept_bytes(distance: Callable[[Tensor, Tensor], Tensor], source: Tensor, target: Tensor) -> int:
    """Of storages that autograd keeps for the backward, without those of the rows themselves."""
    storages: dict[int, Tensor] = {}

    def note(kept: Tensor) -> Tensor:
        storages[kept.untyped_storage().data_ptr()] = kept
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        value = distance(source, target)
    assert value.requires_grad
    own = {side.untyped_storage().data_ptr() for side in (source, target)}
    return sum(kept.untyped_storage().nbytes() for place, kept in storages.items() if place not in own)


@pytest.mark.parametrize(("n", "m", "d"), [(64, 64, 256), (64, 32, 2048), (96, 128, 64)])
def test_a_tenth_of_the_plain_forms_memory_is_kept_for_the_backward(n, m, d):
    sides = features(n, d, 0).requires_grad_(), features(m, d, 1).requires_grad_()
    assert kept_bytes(mmd2, *sides) == 4 * (n + m) * min(n + m, d)
    assert kept_bytes(by_plain_gram, *sides) >= 10 * kept_bytes(mmd2, *sides)


# ---- second derivatives, torch.func, torch.compile, tensors without numbers


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_a_second_derivative_is_refused_in_words(n, m, d):
    source, target = features(n, d, 0).requires_grad_(), features(m, d, 1)
    (gradient,) = torch.autograd.grad(mmd2(source, target), source, create_graph=True)
    with pytest.raises(UserError, match="no second derivative"):
        gradient.square().sum().backward()
    with pytest.raises(UserError, match="no second derivative"):
        torch.func.grad(lambda s: torch.func.grad(mmd2)(s, target).square().sum())(source.detach())
    free = features(n, d, 0).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(mmd2(free, target), free, create_graph=True)[0]).all()  # one is no harm


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_it_works_under_vmap_and_the_gradients_of_torch_func(n, m, d):
    source = torch.stack([features(n, d, i) for i in range(4)])
    target = torch.stack([features(m, d, 9 + i, 1.0) for i in range(4)])
    whole = mmd2(source, target)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
    close(torch.vmap(mmd2)(source, target), whole)
    close(torch.vmap(mmd2, in_dims=(2, 1))(source.permute(1, 2, 0), target.transpose(0, 1)), whole)
    close(torch.vmap(torch.vmap(mmd2))(source.view(2, 2, n, d), target.view(2, 2, m, d)), whole.view(2, 2))
    one = torch.vmap(mmd2, in_dims=(0, None))(source, target[0])
    close(one[2], mmd2(source[2], target[0]))

    gradients = differentiated(lambda s: mmd2(s, target).sum(), source)[1] / 0.7
    close(torch.vmap(torch.func.grad(mmd2))(source, target), gradients)
    close(torch.func.grad(lambda s: torch.vmap(mmd2)(s, target).sum())(source), gradients)
    close(torch.func.jacrev(lambda s: torch.vmap(mmd2)(s, target))(source).sum(1), gradients)
    free = source.clone().requires_grad_()
    torch.vmap(mmd2)(free, target).sum().backward()
    close(free.grad, gradients)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_nothing_waits_for_a_number(n, m, d):
    """Tensors without numbers pass through the value and the gradient: nothing is asked of them but their shapes."""
    with FakeTensorMode():
        source, target = torch.empty(2, n, d, requires_grad=True), torch.empty(2, m, d)
        value = mmd2(source, target)
        value.sum().backward()
        assert value.shape == (2,) and source.grad is not None and source.grad.shape == source.shape


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_the_compiler_takes_it(n, m, d):
    sides = features(n, d, 0), features(m, d, 1, 1.0)
    compiled = torch.compile(lambda s, t: 2.0 * mmd2(1.5 * s, 1.5 * t), backend="aot_eager")
    expected = differentiated(lambda s, t: 2.0 * mmd2(1.5 * s, 1.5 * t), *sides)
    for found, right in zip(differentiated(compiled, *sides), expected, strict=True):
        torch.testing.assert_close(found, right)
