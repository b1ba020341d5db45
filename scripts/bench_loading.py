"""What loading costs beside decoding and training: 50,000 JPEGs that it makes itself, and the table of the docs.

    python scripts/bench_loading.py make FOLDER      # about 600 MB, a few minutes of two cores
    python scripts/bench_loading.py measure FOLDER   # the tables of docs/performance.md

Decoding: Pillow alone, in one thread and in as many as there are cores, and the package's cache from end to end.
Steps: the training loop on batches from memory, on batches from the memory-mapped cache (its pages in memory, or read
from the disk anew), and on one batch that stays where it is, which is the network alone. All take turns, window by
window: read the ratios, not the seconds, of a machine that others use.
"""

import ctypes
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import tl_runner  # noqa: F401  (it sets how threads wait, before torch loads, as in tl-run)

# isort: split
import numpy as np
import torch
from PIL import Image

from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.decoded import decode_images
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.listing import IMAGES, class_folders
from tl_runner.datasets.picture import square
from tl_runner.datasets.split import split_domains
from tl_runner.domains import OnDisk, Pair, Split
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.backbones import small
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.loop import Cursor, Point, Train, train
from tl_runner.training.optimizers import adamw

IMAGES_MADE, CLASSES, SIDE = 50_000, 10, 192  # in two domains
SIZE = 64
ROUNDS, STEPS = 7, 40
DECODED = 4_000  # images of a round of decoding
MAPPED = "batches from the mapped cache"


def make_image(number: int, root: Path) -> None:
    """Smooth random blobs, whose colour is by the class: no two alike, and as large as a photograph of that size."""
    rng = np.random.default_rng(number)
    domain, label = "ab"[number % 2], number // 2 % CLASSES
    coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    coarse[..., label % 3] //= 2 + label // 3
    path = root / domain / str(label) / f"{number:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=88)


def make(root: Path) -> None:
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(make_image, root=root), range(IMAGES_MADE), chunksize=500):
            pass


class Same:
    """A split whose rows are always those of one batch: what is left is the network."""

    def __init__(self, split: Split, n: int):
        self.split, self.x = split, split.take(torch.arange(n))

    def __len__(self) -> int:
        return len(self.split)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return self.x


def load(root: Path, cache: Path, memory: float) -> Pair:
    drawn = image_folder(0, cache, root=str(root), source="a", target="b", size=SIZE, memory=memory)
    return split_domains(drawn, 0, Budget.parse("0"), torch.device("cpu"))[0]


def points(pair: Pair, plan: Train) -> Iterator[Point]:
    """The points of an endless run, one per window."""
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape)
        model = Model(backbone, width, pair.task, plan.batchnorm)
    return train(model, SourceOnly(), pair, plan, adamw, lambda _: 1.0, augment.none, Rng(0), Cursor())


def forget_pages(cache: Path, pair: Pair) -> None:
    """Let the system drop what it holds of the mapped files: the next reading is from the disk."""
    for side in (pair.source, pair.target):
        assert side and isinstance(side.train, OnDisk)
        x = side.train.x
        ctypes.CDLL(None).madvise(ctypes.c_void_p(x.data_ptr()), ctypes.c_size_t(x.nbytes), mmap.MADV_DONTNEED)
    for file in cache.rglob("*.u8"):
        with file.open("rb") as content:
            os.fsync(content.fileno())
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def told(name: str, values: Sequence[float], of: Sequence[float]) -> None:
    """A line of a table: the median, the range, and the median ratio to what was measured in the same round."""
    ratio = statistics.median(value / other for value, other in zip(values, of, strict=True))
    print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} – {max(values):,.0f} | {ratio:.2f} |")


def measure_decoding(root: Path) -> None:
    files = [file for each in class_folders(root / "a", root, IMAGES).folders for file in each.files][:DECODED]
    paths, cores = [file.path for file in files], os.cpu_count() or 1

    def by_threads(n: int) -> object:
        with ThreadPoolExecutor(n) as pool:
            return [*pool.map(lambda path: square(path, SIZE), paths)]

    def by_processes(n: int) -> object:
        with ProcessPoolExecutor(n) as pool:
            return [*pool.map(partial(square, size=SIZE), paths, chunksize=50)]

    def by_cache() -> object:
        with tempfile.TemporaryDirectory() as place:
            return decode_images(files, SIZE, Path(place), "a")

    ways = {"Pillow, one thread": partial(by_threads, 1), f"Pillow, {cores} threads": partial(by_threads, cores),
            f"Pillow, {cores} processes": partial(by_processes, cores),
            "the cache, from files to mapped bytes": by_cache}  # fmt: skip
    by_threads(cores)  # the files are in memory from here on
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(len(files) / timed(way))
    print("| decoding | images/s, median | range | ratio |\n|---|--:|---|--:|")
    for name, values in rates.items():
        told(name, values, rates[f"Pillow, {cores} threads"])


def measure_steps(root: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place)
        print(f"decoding all: {timed(lambda: load(root, cache, 0)):.0f} s")
        print(f"again, from the cache: {timed(lambda: load(root, cache, 0)):.1f} s")
        plan = Train(steps=10**6, log_every=STEPS, evaluations=1)
        memory, mapped = load(root, cache, 100), load(root, cache, 0)
        assert memory.source and memory.source.labels
        same = replace(memory, source=replace(memory.source, train=Same(memory.source.train, plan.batch)))
        runs = {"one batch again and again": points(same, plan), "batches from memory": points(memory, plan),
                MAPPED: points(mapped, plan)}  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in [*runs, "the same, read from the disk"]}
        for run in runs.values():
            next(run)
        for _ in range(ROUNDS):
            for name, run in runs.items():
                rates[name].append(STEPS / timed(partial(next, run)))
            forget_pages(cache, mapped)
            rates["the same, read from the disk"].append(STEPS / timed(partial(next, runs[MAPPED])))
        print(f"| steps of {plan.batch} rows | steps/s, median | range | ratio |\n|---|--:|---|--:|")
        for name, values in rates.items():
            told(name, values, rates["one batch again and again"])


def main() -> None:
    action, root = sys.argv[1], Path(sys.argv[2])
    if action == "make":
        make(root)
    else:
        measure_decoding(root)
        measure_steps(root)


if __name__ == "__main__":
    main()
