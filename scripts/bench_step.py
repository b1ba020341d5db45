"""What a training step costs: ours, the same arithmetic written out by hand, and the peers, paired in one run.

    python scripts/bench_step.py                   # three minutes; on a machine that does nothing else

Handwritten digits -> other handwritten digits, rotated; an MLP 64-128-10, or `small`; 64 rows of each domain; one
thread. Every loop is timed in windows of some hundred steps, all loops in turn (A B C A B C …), start-up left out. The
plain loop is what one would write for one method: a permutation an epoch, the method's loss, clipping, AdamW, a cosine,
the losses read every ten steps; it comes to our weights, which is checked first. The peers train the same network with
the same optimiser by their MMD with five kernels (their defaults have more): skada by its `fit`, pytorch-adapt by its
hooks and its data loader, and by its hooks alone, which are handed the plain loop's batches.
The exit code is 1 where a goal is missed.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.util import find_spec
from itertools import count, islice
from typing import Any

from bench_train import Task, build_task

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from tl_runner.functional.losses import coral, ramp, reverse
from tl_runner.functional.mmd import mmd2
from tl_runner.methods.dann import DANN
from tl_runner.methods.discriminator import discriminator_loss
from tl_runner.rng import Rng

INSTALL = 'pip install "tl_runner[peers]"'  # what pytorch-adapt needs imports pkg_resources
WINDOW, ROWS, LOG_EVERY, LR, STEPS = 100, 64, 10, 0.003, 1_000_000
EPOCHS = 12  # of skada a window, eight steps each
TOLERANCE = 1e-5  # of a weight after ten steps of 0.003 each: the same arithmetic, in float32
SLOWEST, FASTER = 1.1, 4.0  # the goals: × the plain loop at most, and × faster than the fastest peer
PAIR = "dataset=digits dataset.source=handwritten dataset.target=handwritten dataset.shift=rotate dataset.size=8"
MLP, SMALL = "backbone=mlp backbone.depth=1", "backbone=small"
CONFIGURATIONS = {
    f"{method}, {name}": f"{PAIR} threads=1 method={method} {backbone}"
    for name, backbone in (("mlp", MLP), ("small", SMALL))
    for method in ("mmd", "source_only", "coral", "dann")
}
MAIN = "mmd, mlp"
Window = Iterator[int]  # of one loop: each item is the number of steps that it has just trained


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds per training step: ours, by hand, and the peers.")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {rounds} rounds of {WINDOW} steps; milliseconds a step\n")
    print("| configuration | loop | median | range | ours ÷ it, median | range |\n|---|---|--:|---|--:|---|")
    reached: dict[str, float] = {}
    for name, words in CONFIGURATIONS.items():
        check_equal(words)
        plain = build_task(words)
        loops = {"ours": train_ours(build_task(words)), "plain loop": train_plainly(plain, *write_network(plain))}
        if name == MAIN:
            loops |= {"bare step": train_barely(build_task(words))} | find_peers(words)
        found = time_in_turns(loops, rounds)
        for loop, times in found.items():
            ratios = [ours / it for ours, it in zip(found["ours"], times, strict=True)]
            if name == MAIN:
                reached[loop] = statistics.median(ratios)
            print(f"| {name} | {loop} | {spread(times)} | {spread(ratios)} |")
    sys.exit(tell_goals(reached))


def time_in_turns(loops: dict[str, Window], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a step of each loop in each round, after a round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            started = time.perf_counter()
            steps = next(loop)
            if turn:
                found[name].append(1000 * (time.perf_counter() - started) / steps)
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} | {min(values):.2f} – {max(values):.2f}"


def tell_goals(reached: dict[str, float]) -> int:
    """Print each goal and what was reached; returns how the process should end."""
    plain = reached["plain loop"]
    print(f"\ngoal ({MAIN}): at most {SLOWEST} × the plain loop; reached {plain:.2f} ×")
    faster = {name: 1 / reached[name] for name in PEERS if name in reached}
    if not faster:
        print(f"goal ({MAIN}): at least {FASTER} × as fast as the fastest peer; not measured, for want of {INSTALL}")
        return int(plain > SLOWEST)
    least = min(faster, key=lambda name: faster[name])
    print(f"goal ({MAIN}): at least {FASTER} × as fast as the fastest peer, {least}; reached {faster[least]:.2f} ×")
    return int(plain > SLOWEST or faster[least] < FASTER)


def train_ours(task: Task) -> Window:
    points = task.train()
    while True:
        for _ in range(0, WINDOW, LOG_EVERY):
            next(points)
        yield WINDOW


def train_plainly(task: Task, backbone: nn.Module, head: nn.Module, steps: int = WINDOW) -> Window:
    """The loop that one would write by hand for this method."""
    (source_x, source_y), target_x = read_rows(task)
    loss_of = LOSSES[type(task.method).__name__]
    modules = [backbone, head]
    if isinstance(task.method, DANN):
        modules.append(task.method.discriminator)
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.5, 0.999), weight_decay=0.01)
    sources, targets = draw_rows("source", len(source_y)), draw_rows("target", len(target_x))
    window: list[Tensor] = []
    curve: list[list[float]] = []
    for module in modules:
        module.train()
    for step in count():
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        rows = next(sources)
        x, y = source_x[rows], source_y[rows]
        target = target_x[next(targets)] if "target" in task.method.needs else None
        terms = loss_of(task, backbone, head, x, y, target, step / STEPS)
        optimizer.zero_grad()
        sum(terms[1:], terms[0]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        window += [term.detach() for term in terms]
        if (step + 1) % LOG_EVERY == 0:
            curve.append(torch.stack(window).tolist())
            window.clear()
        if (step + 1) % steps == 0:
            yield steps


def train_barely(task: Task) -> Window:
    """A step and nothing around it: no clipping, no schedule, no curve; the fused optimiser."""
    (source_x, source_y), target_x = read_rows(task)
    backbone, head = write_network(task)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=LR, fused=True)
    sources, targets = draw_rows("source", len(source_y)), draw_rows("target", len(target_x))
    while True:
        for rows in islice(sources, WINDOW):
            features = backbone(torch.cat([source_x[rows], target_x[next(targets)]]))
            source, target = features[:ROWS], features[ROWS:]
            optimizer.zero_grad()
            (F.cross_entropy(head(source), source_y[rows]) + 0.1 * mmd2(source, target)).backward()
            optimizer.step()
        yield WINDOW


def write_network(task: Task) -> tuple[nn.Module, nn.Module]:
    """The network as one would write it, with the task's first weights; `small` is copied as it is."""
    backbone = deepcopy(task.model.backbone)
    if "layer1" in task.model.stages:
        linear = next(part for part in backbone.modules() if isinstance(part, nn.Linear))
        backbone = nn.Sequential(nn.Flatten(), linear, nn.ReLU())
    return backbone, deepcopy(task.model.head)


def read_rows(task: Task) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The training rows: the source's with their labels, and the target's."""
    side, labels = task.pair.labelled_source
    target = task.pair.target.train
    return (side.train.take(torch.arange(len(side.train))), labels.train), target.take(torch.arange(len(target)))


def draw_rows(stream: str, length: int) -> Iterator[Tensor]:
    """The rows of each step, from shuffled epochs end to end; the permutations are those of `rng.rows`."""
    rest = torch.zeros(0, dtype=torch.long)
    for epoch in count():
        rest = torch.cat([rest, torch.randperm(length, generator=Rng(0).child(stream, epoch).generator())])
        while len(rest) >= ROWS:
            yield rest[:ROWS]
            rest = rest[ROWS:]


Terms = list[Tensor]


def source_only_loss(
    task: Task, backbone: nn.Module, head: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, progress: float
) -> Terms:
    return [F.cross_entropy(head(backbone(x)), y)]


def discrepancy_loss(distance: Callable[[Task, Tensor, Tensor, float], Tensor]) -> Callable[..., Terms]:
    """Cross-entropy and a distance of the features; one forward for both domains where no BatchNorm forbids it."""

    def loss(
        task: Task, backbone: nn.Module, head: nn.Module, x: Tensor, y: Tensor, target: Tensor, progress: float
    ) -> Terms:
        if isinstance(backbone[1], nn.Linear):  # pyright: ignore[reportIndexIssue]
            ours, theirs = backbone(torch.cat([x, target])).split([len(x), len(target)])
        else:
            ours, theirs = backbone(x), backbone(target)
        return [F.cross_entropy(head(ours), y), distance(task, ours, theirs, progress)]

    return loss


def adversarial_loss(task: Task, source: Tensor, target: Tensor, progress: float) -> Tensor:
    assert isinstance(task.method, DANN)
    logits = task.method.discriminator(reverse(torch.cat([source, target]), ramp(progress)))
    return 0.2 * discriminator_loss(*logits.split([len(source), len(target)]))[0]


LOSSES: dict[str, Callable[..., Terms]] = {
    "SourceOnly": source_only_loss,
    "MMD": discrepancy_loss(lambda task, source, target, progress: 2.0 * ramp(progress) * mmd2(source, target)),
    "CORAL": discrepancy_loss(lambda task, source, target, progress: 30.0 * coral(source, target)),
    "DANN": discrepancy_loss(adversarial_loss),
}


def check_equal(words: str) -> None:
    """Ours and the plain loop are at the same weights after some steps."""
    ours, by_hand = build_task(words), build_task(words)
    backbone, head = write_network(by_hand)
    for loop in (ours.train(), train_plainly(by_hand, backbone, head, LOG_EVERY)):
        torch.manual_seed(0)  # for dropout
        next(loop)
    written = [*backbone.parameters(), *head.parameters()]
    for mine, its in zip(ours.model.parameters(), written, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=TOLERANCE)


def find_peers(words: str) -> dict[str, Window]:
    """The loops of the peers that are installed."""
    return {name: train(build_task(words)) for name, (package, train) in PEERS.items() if find_spec(package)}


def train_skada(task: Task) -> Window:
    """DAN by its `fit`, which goes on where it was."""
    from skada.deep import DAN  # pyright: ignore[reportMissingImports]

    (x, y), target = read_rows(task)
    backbone, head = write_network(task)
    network: Any = nn.Sequential()
    network.add_module("features", backbone)
    network.add_module("head", head)
    options = {"optimizer": torch.optim.AdamW, "lr": LR, "batch_size": ROWS, "train_split": None, "verbose": 0}
    steps = min(len(y), len(target)) // ROWS * EPOCHS
    options |= {"max_epochs": EPOCHS, "warm_start": True}
    net = DAN(network, "features", reg=1, sigmas=[0.25, 0.5, 1.0, 2.0, 4.0], **options)
    rows = torch.cat([x, target]).numpy()
    labels = torch.cat([y, torch.full_like(y[: len(target)], -1)]).numpy()
    domain = torch.cat([torch.full((len(x),), 1), torch.full((len(target),), -2)]).numpy()
    while True:
        net.fit(rows, labels, sample_domain=domain)
        yield steps


def train_hooks(task: Task) -> Window:
    """pytorch-adapt's hook for a distance and a classifier, handed batches as the plain loop draws them."""
    (source_x, source_y), target_x = read_rows(task)
    hook = build_hook(task)
    sources, targets = draw_rows("source", len(source_y)), draw_rows("target", len(target_x))
    domain = {"src_domain": torch.zeros(ROWS), "target_domain": torch.ones(ROWS)}
    while True:
        for rows in islice(sources, WINDOW):
            drawn = {"src_imgs": source_x[rows], "src_labels": source_y[rows], "target_imgs": target_x[next(targets)]}
            hook({**drawn, **domain})
        yield WINDOW


def train_hooks_and_loader(task: Task) -> Window:
    """The same by the library's own data sets and loader."""
    from pytorch_adapt.datasets import (  # pyright: ignore[reportMissingImports]
        CombinedSourceAndTargetDataset,
        DataloaderCreator,
        SourceDataset,
        TargetDataset,
    )

    source, target = read_rows(task)
    joined = CombinedSourceAndTargetDataset(SourceDataset(TensorDataset(*source)), TargetDataset(Rows(target)))
    loader = DataloaderCreator(batch_size=ROWS)(train=joined)["train"]
    hook = build_hook(task)
    while True:
        for _ in range(EPOCHS):
            for drawn in loader:
                hook(drawn)
        yield EPOCHS * len(loader)


class Rows(Dataset[Tensor]):
    """Inputs without labels."""

    def __init__(self, x: Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Tensor:
        return self.x[row]


def build_hook(task: Task) -> Callable[[dict[str, Tensor]], object]:
    """A step of pytorch-adapt from a batch."""
    from pytorch_adapt.hooks import AlignerHook, AlignerPlusCHook  # pyright: ignore[reportMissingImports]
    from pytorch_adapt.layers import MMDLoss  # pyright: ignore[reportMissingImports]
    from pytorch_adapt.layers.utils import get_kernel_scales  # pyright: ignore[reportMissingImports]

    backbone, head = write_network(task)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=LR)
    distance = MMDLoss(get_kernel_scales(low=-2, high=2, num_kernels=5), mmd_type="quadratic")
    hook = AlignerPlusCHook([optimizer], aligner_hook=AlignerHook(distance), softmax=False)
    return lambda batch: hook({**batch, "G": backbone, "C": head})


PEERS: dict[str, tuple[str, Callable[[Task], Window]]] = {
    "skada": ("skada", train_skada),
    "pytorch-adapt": ("pytorch_adapt", train_hooks_and_loader),
    "pytorch-adapt, batches ready": ("pytorch_adapt", train_hooks),
}

if __name__ == "__main__":
    main()
