"""Speed of a training step of ResNet-18 on a GPU, beside what the card itself can do, and the goals.

    python scripts/bench_gpu.py                      # some minutes; without a CUDA device it says so and ends with 2
    python scripts/bench_gpu.py --device cpu --tiny  # the same code at tiny sizes, for a test: its figures say nothing

First what the card can do: a copy in its memory, and products of square matrices. Then the whole step of `source_only`
(forward, backward, clipping, SGD) on a batch that lies on the device, in several ways, and the program's own loop,
which draws its batches from bytes. The ways take turns in `ROUNDS` windows of `STEPS` steps; medians and ranges are
printed. FLOPs are those of PyTorch's counter, of the forward and backward pass. The peak is that of the card's data
sheet, dense, or that of the product measured in bf16 where it is not listed here. The goals are for an H200.
The exit code is 1 where one is missed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import tl_runner  # noqa: F401  (it sets how threads wait, before torch loads, as in tl-run)

# isort: split
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tl_runner.core import Batch, Group, Method, Model
from tl_runner.domains import Domain, InMemory, Labelled, Labels, Pair
from tl_runner.engine.device import apply_kernels
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.backbones import resnet18
from tl_runner.models.stems import Stem
from tl_runner.rng import Rng
from tl_runner.tasks import Classification
from tl_runner.training.augment import none
from tl_runner.training.loop import Cursor, Point, Train, train
from tl_runner.training.optimizers import constant, sgd

ROUNDS, STEPS, WARM_UP, EPOCH = 5, 20, 3, 50_000
CLASSES = tuple(map(str, range(10)))
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12}  # dense bf16, FLOP/s
Window = Callable[[], object]  # trains some steps


class Goal(NamedTuple):
    """Of the fastest way: a share of the peak at least, or seconds for 50,000 images at most."""

    of: Literal["share", "seconds"]
    limit: float

    def is_met(self, reached: float) -> bool:
        return reached >= self.limit if self.of == "share" else reached <= self.limit

    def describe(self, value: float) -> str:
        return f"{value:.1%} of the peak" if self.of == "share" else f"{value:.2f} s for 50,000 images"


class Work(NamedTuple):
    """Images of this side through the network with this stem, so many a step."""

    side: int
    stem: Stem
    batch: int
    goal: Goal

    def __str__(self) -> str:
        return f"{self.side} px, stem {self.stem}, {self.batch} images a step"


class Way(NamedTuple):
    """How the step is made."""

    name: str
    plan: Train
    graph: bool = False  # the whole step is recorded once and replayed

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cuda" or not (self.graph or self.plan.compile)


WORKS = [
    Work(224, "imagenet", 256, Goal("share", 0.35)),
    Work(32, "cifar", 512, Goal("seconds", 0.55)),
    Work(32, "imagenet", 512, Goal("seconds", 0.35)),
]
FAST = {"precision": "bf16", "channels_last": True}
WAYS = [
    Way("eager, float32", Train()),
    Way("eager, bf16, channels_last", Train(**FAST)),
    Way("compiled, bf16, channels_last", Train(**FAST, compile=True)),
    Way("CUDA graph, bf16, channels_last", Train(**FAST), graph=True),
    Way("compiled, CUDA graph, bf16, channels_last", Train(**FAST, compile=True), graph=True),
]
LOOP = "the loop, bf16, channels_last"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, one round: only to see that it runs")
    said = parser.parse_args()
    device = torch.device(said.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("PyTorch finds no CUDA device here, so nothing was measured", file=sys.stderr)
        return 2
    works = [make_tiny(work) for work in WORKS] if said.tiny else WORKS
    rounds, steps = (1, 1) if said.tiny else (ROUNDS, STEPS)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {rounds} rounds of {steps} steps\n")
    product = measure_ceilings(device, side=64 if said.tiny else 8192)
    listed = next((peak for card, peak in PEAKS.items() if card in name), None)
    peak = listed or product
    print(f"\npeak in bf16: {peak / 1e12:,.0f} TFLOP/s, {'by its data sheet' if listed else 'as measured above'}\n")
    print("| step | way | ms, median | range | images/s | share of the peak |\n|---|---|--:|---|--:|--:|")
    best = {work: measure_work(work, device, rounds, steps, peak) for work in works}
    print()
    missed = 0
    for work, reached in best.items():
        met = work.goal.is_met(reached[work.goal.of])
        missed += not met
        verdict = "not judged: the sizes are tiny" if said.tiny else "met" if met else "missed"
        print(f"goal, {work}: {work.goal.describe(work.goal.limit)}; reached "
              f"{work.goal.describe(reached[work.goal.of])}: {verdict}")  # fmt: skip
    return int(missed > 0 and not said.tiny)


def make_tiny(work: Work) -> Work:
    """Its last maps have 2×2 pixels: bf16 on a CPU is not safe at one (docs/performance.md)."""
    return work._replace(side=64 if work.stem == "imagenet" else 16, batch=4)


def measure_ceilings(device: torch.device, side: int) -> float:
    """Print what the device can do; FLOP/s of a product in bf16."""
    print("| the card alone | median |\n|---|--:|")
    here = torch.ones(4 * side * side, device=device)
    there = torch.empty_like(here)
    seconds = time_window(lambda: there.copy_(here), device)
    print(f"| a copy, read and written | {2 * here.nbytes / seconds / 1e9:,.0f} GB/s |")
    found = 0.0
    kinds = [("float32", torch.float32, "highest"), ("tf32", torch.float32, "high"), ("bf16", torch.bfloat16, "high")]
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in kinds:
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        found = 2 * side**3 / time_window(lambda a=a, b=b: a @ b, device)
        print(f"| a product, {name} | {found / 1e12:,.1f} TFLOP/s |")
    torch.set_float32_matmul_precision(before)
    return found


def measure_work(work: Work, device: torch.device, rounds: int, steps: int, peak: float) -> dict[str, float]:
    """Print a line a way; of the fastest, its share of the peak and its seconds for 50,000 images."""
    flops = count_flops(work, device)
    windows: dict[str, Window] = {}
    for way in WAYS:
        if way.runs_on(device):
            windows[way.name] = repeat(build_step(work, way, device), steps)
    points = follow_loop(work, device, steps)
    windows[LOOP] = lambda: next(points)
    for window in windows.values():
        window()
    times: dict[str, list[float]] = {name: [] for name in windows}
    for _ in range(rounds):
        for name, window in windows.items():
            times[name].append(time_window(window, device, times=1) / steps)
    for name, values in times.items():
        median, low, high = (1000 * value for value in (statistics.median(values), min(values), max(values)))
        speed, share = 1000 * work.batch / median, 1000 * flops / median / peak
        print(f"| {work} | {name} | {median:.2f} | {low:.2f} – {high:.2f} | {speed:,.0f} | {share:.1%} |")
    fastest = min(map(statistics.median, times.values()))
    return {"share": flops / fastest / peak, "seconds": EPOCH * fastest / work.batch}


def build_model(work: Work, plan: Train, device: torch.device) -> Model:
    with Rng(0).child("model").as_default():
        backbone, width = resnet18((3, work.side, work.side), stem=work.stem)
        return apply_kernels(Model(backbone, width, CLASSES).to(device), plan)


def build_step(work: Work, way: Way, device: torch.device) -> Window:
    """The loop's step, written out, so that it can be recorded: a graph can't hold the drawing of batches."""
    model, method, plan = build_model(work, way.plan, device), SourceOnly(), way.plan
    model.train()
    optimizer = sgd([Group(model.parameters())])
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    x = torch.rand(work.batch, 3, work.side, work.side, device=device).to(memory_format=layout)
    rows = Labelled(x, torch.arange(work.batch, device=device) % len(CLASSES))

    def step() -> None:
        bf16 = plan.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=not way.graph):
            terms = method.terms(model, Batch(rows), 0.5)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return record(step) if way.graph else step


def record(step: Window) -> Window:
    """The step as a CUDA graph: its launches are recorded once, after some steps that set up what libraries keep."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        repeat(step, WARM_UP)()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def follow_loop(work: Work, device: torch.device, steps: int) -> Iterator[Point]:
    """The program's own training, a point every so many steps."""
    n = 2 * work.batch
    x = torch.randint(256, (n, 3, work.side, work.side), dtype=torch.uint8).to(device)
    y = torch.arange(n, device=device) % len(CLASSES)
    split, task = InMemory(x), Classification(CLASSES)
    pair = Pair(
        Domain("source", task, split, split, split, Labels(y, y, y)), Domain("target", task, split, split, split)
    )
    plan = Train(steps=1_000_000, evaluations=1, log_every=steps, batch=work.batch, **FAST)
    method: Method = SourceOnly()
    return train(build_model(work, plan, device), method, pair, plan, sgd, constant, none, Rng(0), Cursor())


def count_flops(work: Work, device: torch.device) -> int:
    """Of the forward and backward pass of one step."""
    step = build_step(work, WAYS[0], device)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def repeat(step: Window, times: int) -> Window:
    def window() -> None:
        for _ in range(times):
            step()

    return window


def time_window(window: Window, device: torch.device, times: int = STEPS) -> float:
    """Seconds that it takes, on average of so many times; where they are several, after a first that is left out."""
    if times > 1:
        window()
    wait(device)
    started = time.perf_counter()
    repeat(window, times)()
    wait(device)
    return (time.perf_counter() - started) / times


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
