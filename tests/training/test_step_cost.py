"""What a step costs, counted: calls of kernels, and waits for the device. No clock, so no machine is too busy for it.

A small network's step is mostly the calling of kernels, on a GPU even more than on a CPU.
"""

from collections import Counter

import pytest
import torch
from support.tasks import prepare, task
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tl_runner.core import Method
from tl_runner.methods.mmd import MMD
from tl_runner.methods.source_only import SourceOnly
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, train

STEPS = 10
READS = {  # what brings numbers to the host, so that a GPU must be waited for
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu),
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__iter__),
    *(Tensor.nonzero, torch.nonzero, Tensor.unique, torch.unique, Tensor.equal, torch.equal, torch.allclose),
}
ADVICE = (
    "A step calls another number of PyTorch's kernels, or reads from the device more often, than when this was"
    " written. If you meant it (a method's loss changed, or a version of PyTorch splits an operator otherwise), compare"
    " `python scripts/bench_step.py` before and after, and write the new number here. The calls were: "
)


class Kernels(TorchDispatchMode):
    """Counts the calls of kernels, of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts what reads numbers of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READS:
            self.calls[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_calls(method: Method, log_every: int) -> tuple[Counter[str], Counter[str]]:
    """The kernels and the reads from one point to the next, of steps after the first ones, within one epoch."""
    pair, model = task()
    model, pair = prepare(method, model, pair)
    plan = Train(steps=100, batch=2, log_every=log_every, evaluations=1)
    assert pair.source and min(len(pair.source.train), len(pair.target.train)) >= 2 * log_every * plan.batch
    points = train(model, method, pair, plan, optimizers.adamw, optimizers.cosine, augment.none, Rng(0), Cursor())
    next(points)
    with Kernels() as kernels, Reads() as reads:
        next(points)
    return kernels.calls, reads.calls


# kernels of a step, and of a point: the mean of each term since the point before
@pytest.mark.parametrize(("method", "of_step", "of_point"), [(SourceOnly(), 65, 1), (MMD(), 135, 1)])
def test_kernels_and_reads_of_a_step(method, of_step, of_point):
    kernels, reads = count_calls(method, STEPS)
    longer, more = count_calls(method, 2 * STEPS)
    step = {name: (longer[name] - kernels[name]) / STEPS for name in sorted(longer) if longer[name] > kernels[name]}
    found = sum(step.values()), kernels.total() - STEPS * sum(step.values())
    assert found == (of_step, of_point), f"{ADVICE}{step}"
    assert reads == more == {"tolist": 1}, f"{ADVICE}{dict(reads)}, {dict(more)}"


class Waits(SourceOnly):
    """Reads a number in every step, in one of the ways that are easily overlooked."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def terms(self, model, batch, progress):
        terms = super().terms(model, batch, progress)
        self.read(terms["source"].detach())
        return terms


@pytest.mark.parametrize("read", [float, bool, torch.Tensor.item, torch.Tensor.nonzero, lambda loss: not loss])
def test_a_read_in_a_method_is_counted(read):
    _, reads = count_calls(Waits(read), STEPS)
    assert reads.total() == STEPS + 1
