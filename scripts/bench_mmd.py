"""What the MMD costs a training step, forward and backward: our operator, our plain one of before, and other packages'.

    python scripts/bench_mmd.py [--seconds 10]        # says what to install if the others are missing

One thread, float32, five kernels each but where more are named. In each round every operator has its turn, of several
steps in a row as a training has them, after one that is not timed, and the order changes: else who comes after the
one that empties the caches pays for it. Milliseconds are of the processor, so that waiting for it does not count:
medians of turns, with quartiles. `kept` is what autograd keeps between forward and backward beside the rows
themselves, `peak` the most that is alive at once, of tensors made since the call; both are counted, and the same at
every run.
"""

import argparse
import importlib
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tl_runner  # noqa: F401  (it sets how threads wait, before torch loads)

# isort: split
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tl_runner.functional.mmd import MMD_SCALES, WIDTH_FLOOR, mmd2

Distance = Callable[[Tensor, Tensor], Tensor]
OURS, PLAIN, ADAPT = "tl_runner", "tl_runner, plain", "pytorch-adapt"
SKADA, SKADA_ITS = "skada, widths given", "skada, its 33 kernels"
SIZES = [(64, 256), (32, 64), (32, 2048), (128, 256), (512, 64), (512, 2048)]  # rows of a side, columns
LEAST = 7  # rounds
STEPS = 1000  # of a turn, over the rows of a side
# the extra, and what the packages import without asking for it: skada.deep and an old torchmetrics
INSTALL = 'pip install "tl_runner[peers]"'


def compute_plainly(source: Tensor, target: Tensor) -> Tensor:
    """The biased MMD² as tl_runner had it until 2026-11-28: an exp a scale, differentiated by autograd."""
    joint = torch.cat([source, target], dim=-2)
    with torch.autocast(joint.device.type, enabled=False):
        centre = joint.float().mean(-2, keepdim=True).detach()
        a, b = joint.float() - centre, joint.float() - centre
        gram = a @ b.mT
        distances = (a.square().sum(-1)[:, None] + b.square().sum(-1)[None, :] - 2.0 * gram).clamp_min(0.0)
    rows, n = len(joint), len(source)
    distances = distances * ~torch.eye(rows, dtype=torch.bool)
    width = (distances.sum() / (rows * (rows - 1))).clamp_min(WIDTH_FLOOR).detach()
    kernel = sum(torch.exp(distances / (-scale * width)) for scale in MMD_SCALES)
    assert isinstance(kernel, Tensor)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


def operators() -> Iterator[tuple[str, Distance]]:
    yield OURS, mmd2
    yield PLAIN, compute_plainly
    if layers := load("pytorch_adapt.layers"):
        yield ADAPT, layers.MMDLoss(kernel_scales=torch.tensor(MMD_SCALES), mmd_type="quadratic")
    if losses := load("skada.deep.losses"):
        # then it does not estimate a width as the others do; by default it has 33, and does
        yield SKADA, lambda source, target: losses.dan_loss(source, target, sigmas=[16.0 * s for s in MMD_SCALES])
        yield SKADA_ITS, losses.dan_loss


def load(module: str) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError as error:
        print(f"{module} is left out ({error}): {INSTALL}")
        return None


def take_turn(distance: Distance, sides: Iterable[Tensor], steps: int) -> float:
    """Mean seconds of the processor for a forward and a backward."""
    taken = []
    for _ in range(1 + steps):
        source, target = (side.detach().requires_grad_() for side in sides)
        start = time.process_time()
        distance(source, target).backward()
        taken.append(time.process_time() - start)
    return statistics.mean(taken[1:])


def count_kept(distance: Distance, sides: Iterable[Tensor]) -> int:
    """Bytes of the storages that the backward asks for, without the rows'."""
    source, target = (side.detach().requires_grad_() for side in sides)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = distance(source, target)
    own = {side.untyped_storage().data_ptr() for side in (source, target)}
    assert value.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


class Alive(TorchDispatchMode):
    """Counts bytes of tensors that operations have made and that are still there; `peak` is the most of them."""

    def __init__(self, sides: Iterable[Tensor]):
        super().__init__()
        self.own = {side.untyped_storage().data_ptr() for side in sides}
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.storages = {place: kept for place, kept in self.storages.items() if not kept[0].expired()}
        alive = sum(size for place, (_, size) in self.storages.items() if place not in self.own)
        self.peak = max(self.peak, alive)
        return made


def count_peak(distance: Distance, sides: Iterable[Tensor]) -> int:
    source, target = (side.detach().requires_grad_() for side in sides)
    with Alive([source, target]) as alive:
        distance(source, target).backward()
    return alive.peak


class Measured(NamedTuple):
    seconds: list[float]  # of each turn, a step
    kept: int
    peak: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(compared: Mapping[str, Distance], rows: int, columns: int, seconds: float) -> dict[str, Measured]:
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(rows, columns, generator=generator) + shift for shift in (0.0, 0.3)]
    turns: dict[str, list[float]] = {name: [] for name in compared}
    end = time.perf_counter() + seconds
    order = deque(compared.items())
    while time.perf_counter() < end or len(turns[OURS]) < LEAST:
        for name, distance in order:
            turns[name].append(take_turn(distance, sides, max(1, STEPS // rows)))
        order.rotate(2)
    return {
        name: Measured(turns[name], count_kept(distance, sides), count_peak(distance, sides))
        for name, distance in compared.items()
    }


def describe(found: Mapping[str, Measured]) -> Iterator[str]:
    memory = "".join(f"{kind + ', kB':>10}{'× ours':>8}" for kind in ("kept", "peak"))
    yield f"{'':24}{'ms':>8}{'quartiles':>20}{'× ours':>8}{memory}"
    ours = found[OURS]
    for name, each in found.items():
        low, _, high = (1e3 * quartile for quartile in statistics.quantiles(each.seconds, n=4))
        memory = (
            f"{each.kept / 1e3:10.0f}{each.kept / ours.kept:8.1f}{each.peak / 1e3:10.0f}{each.peak / ours.peak:8.1f}"
        )
        spread = f"{low:.2f} to {high:.2f}"
        yield f"{name:24}{1e3 * each.median:8.2f}{spread:>20}{each.median / ours.median:8.2f}{memory}"


def compare_with_goals(found: Mapping[str, Measured]) -> Iterator[str]:
    ours = found[OURS]
    for name, goal in ((ADAPT, 2.0), (SKADA_ITS, 3.0), (SKADA, 3.0)):
        if name in found:
            yield state(f"seconds of {name}: of ours", goal, found[name].median / ours.median)
    yield state("bytes kept by the plain form: of ours", 10.0, found[PLAIN].kept / ours.kept)


def state(what: str, goal: float, reached: float) -> str:
    return f"  {what}: at least {goal:.0f}, {reached:.2f}: {'reached' if reached >= goal else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds for each size")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    compared = dict(operators())
    goals: list[str] = []
    for rows, columns in SIZES:
        found = measure(compared, rows, columns, seconds)
        print(f"\n{rows} + {rows} rows of {columns} columns, {len(found[OURS].seconds)} rounds")
        print(*describe(found), sep="\n")
        goals = goals or [f"\ngoals, at {rows} + {rows} rows of {columns} columns", *compare_with_goals(found)]
    print(*goals, sep="\n")


if __name__ == "__main__":
    main()
