"""Training speed of the loop, without evaluation: images/s of composed configurations, on this machine.

    python scripts/bench_train.py                             # the table of docs/performance.md
    python scripts/bench_train.py "backbone=resnet18 train.precision=bf16" "backbone=resnet18"

Each configuration is timed in `ROUNDS` windows in turn with the others (A B A B …), so that a machine whose speed
drifts treats them alike; the median and the range of the windows are printed.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tl_runner  # noqa: F401  (it sets how threads wait, before torch loads, as in tl-run)

# isort: split
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tl_runner import config
from tl_runner.core import Method, Model, Resources
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.engine.device import apply_kernels, claim_device
from tl_runner.rng import Rng
from tl_runner.training.loop import Cursor, Point, train

ROUNDS, STEPS = 5, 20  # windows of so many steps, after one that warms up
DEFAULT = [
    "",
    "train.batchnorm=joint",
    "method=source_only",
    "method=coral",
    "method=dann",
    "backbone=resnet18",
    "backbone=resnet18 backbone.stem=imagenet",
    "backbone=resnet18 backbone.stem=imagenet train.batchnorm=joint",
    "backbone=resnet18 backbone.stem=imagenet train.batchnorm=joint train.channels_last=true",
    "backbone=resnet18 backbone.stem=imagenet dataset.size=32",
]


class Task(NamedTuple):
    """A composed configuration, ready to train."""

    parts: config.Parts
    model: Model
    method: Method
    pair: Pair

    def train(self) -> Iterator[Point]:
        model, method, parts = self.model, self.method, self.parts
        settled = parts.train, parts.optimizer, parts.schedule, parts.augment
        return train(model, method, self.pair, *settled, Rng(0), Cursor())


def build_task(words: str) -> Task:
    """What these overrides compose: an endless run, examined never."""
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        overrides = ["train.steps=1000000", "train.evaluations=1", *words.split()]
        content = OmegaConf.to_container(compose("config", overrides=overrides))
    assert isinstance(content, dict)
    parts = config.load_parts({str(key): value for key, value in content.items()})
    device = claim_device(parts.settings.device, parts.settings.threads)
    drawn = config.call_with(parts.dataset, seed=0, cache=Path("outputs/cache"))
    pair, _, _ = split_domains(drawn, 0, Budget.parse("auto").settle(needed=False), device)
    with Rng(0).child("model").as_default():
        backbone, width = parts.backbone(pair.shape)
        model = Model(backbone, width, pair.classes, parts.train.batchnorm)
    assert isinstance(parts.method, Method)
    model, pair = parts.method.prepare(model, pair, Resources(Rng(0)))
    return Task(parts, apply_kernels(model.to(device), parts.train), parts.method.to(device), pair)


def points(words: str, steps: int = STEPS) -> Iterator[Point]:
    """The points of an endless run, one per window of so many steps."""
    return build_task(f"{words} train.log_every={steps}").train()


def main() -> None:
    runs = {words: points(words) for words in sys.argv[1:] or DEFAULT}
    speeds: dict[str, list[float]] = {words: [] for words in runs}
    read = {words: next(run).rows for words, run in runs.items()}
    for _ in range(ROUNDS):
        for words, run in runs.items():
            started = time.perf_counter()
            point = next(run)  # its terms were transferred from the device, so the device is done
            speeds[words].append((point.rows - read[words]) / (time.perf_counter() - started))
            read[words] = point.rows
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"| configuration ({where}, torch {torch.__version__}) | images/s, median | range |\n|---|--:|---|")
    for words, values in speeds.items():
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"| `tl-run{words and ' '}{words}` | {median:,.0f} | {low:,.0f} – {high:,.0f} |")


if __name__ == "__main__":
    main()
