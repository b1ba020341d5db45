"""How far estimates of the target accuracy without labels are from the true one, over stored runs.

    tl-run -m method=source_only,mmd,dann seed=0,1,2 && python scripts/bench_estimates.py outputs
    python scripts/bench_estimates.py FOLDER … --write docs/deciding.md

The first table has for each pair the mean absolute error of every estimate in points, and its mean error: above 0 it is
too high. `source` takes the accuracy on the source's test split for the target's; `agreement` is the share of rows on
which a run says what the mean prediction of all runs of its pair and seed says, and `smaller` the smaller of that and
the median. The second table has the runs by how many rows changed their class between checkpoints.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import torch
from bench_methods import put
from safetensors.torch import load_file
from torch import Tensor

from tl_runner.functional.estimated_accuracy import estimate_accuracy, fit_temperature, share_changed
from tl_runner.functional.label_free import agreement
from tl_runner.report.settings import group_settings
from tl_runner.storage.record import RunRecord, read_records

BINS = ((0.0, 0.025), (0.025, 0.05), (0.05, 0.1), (0.1, 1.0))
BEGIN, END = "<!-- made by scripts/bench_estimates.py: begin -->", "<!-- end -->"


class Estimated(NamedTuple):
    """A run with labels: its pair, its true accuracy, estimates of it by name, and which share of rows changed."""

    pair: str
    seed: int
    truth: float
    guesses: dict[str, float]
    changed: float | None
    predicted: Tensor  # (n, C) on the test split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    found = add_agreement([each for folder in asked.outputs for each in read(folder)])
    if not found:
        raise SystemExit("no run there has an estimated accuracy and labels")
    text = "\n".join([*by_pair(found), "", *by_change(found)])
    if asked.write:
        put(asked.write, BEGIN, END, text)
    else:
        print(text)


def read(outputs: Path) -> Iterator[Estimated]:
    """The runs of a folder that can be judged."""
    records, faults = read_records([outputs])
    for fault in faults:
        print(f"warning: {fault}")
    for setting in group_settings(records):
        for run in setting.scored.values():
            if found := judge(run, f"{outputs.name} {setting.pair}"):
                yield found


def judge(run: RunRecord, pair: str) -> Estimated | None:
    scores = run.scores
    if not (scores and scores.estimated and scores.source and scores.target):
        return None
    known = load_file(run.folder / "validation.safetensors")
    by_step = load_file(run.folder / "predictions.safetensors")
    selected = by_step.pop(f"step_{scores.selected['step']}")
    source, labels = known["source"], known["labels"]
    estimated = estimate_accuracy(selected, source, labels, fit_temperature(source, labels))
    guesses = {**estimated, "median": median(estimated.values()), "source": scores.source["accuracy"]}
    return Estimated(
        pair, run.seed, scores.target["accuracy"], guesses, share_changed(selected, [*by_step.values()]), selected
    )


def add_agreement(runs: Sequence[Estimated]) -> list[Estimated]:
    """The same with `agreement` and `smaller`, where three or more runs of a pair and seed have the same rows."""
    groups: dict[tuple[str, int, torch.Size], list[Estimated]] = defaultdict(list)
    for run in runs:
        groups[run.pair, run.seed, run.predicted.shape].append(run)
    found = []
    for group in groups.values():
        shares = agreement({str(at): run.predicted for at, run in enumerate(group)})
        for run, share in zip(group, shares.values(), strict=True):
            more = {"agreement": share, "smaller": min(share, run.guesses["median"])} if len(group) > 2 else {}
            found.append(run._replace(guesses={**run.guesses, **more}))
    return found


def by_pair(runs: Sequence[Estimated]) -> Iterator[str]:
    names = list(dict.fromkeys(name for run in runs for name in run.guesses))
    yield f"| pair | runs | {' | '.join(names)} |"
    yield f"|---|--:|{'--:|' * len(names)}"
    pairs: dict[str, list[Estimated]] = defaultdict(list)
    for run in runs:
        pairs[run.pair].append(run)
    means: dict[str, list[float]] = defaultdict(list)
    for pair, of in pairs.items():
        cells = []
        for name in names:
            errors = [100 * (run.guesses[name] - run.truth) for run in of if name in run.guesses]
            means[name].append(fmean(map(abs, errors)))
            cells.append(f"{means[name][-1]:.1f} ({fmean(errors):+.1f})".replace("-", "−"))
        yield f"| {re.sub(r' .*', '', pair).replace('_', ' ')} | {len(of)} | {' | '.join(cells)} |"
    yield f"| mean of the pairs | {len(runs)} | {' | '.join(f'{fmean(means[name]):.1f}' for name in names)} |"


def by_change(runs: Sequence[Estimated]) -> Iterator[str]:
    """The median's error by the share of rows that changed their class, and where nine of ten truths lie."""
    yield "| rows that changed their class | runs | pairs | mean absolute error | truth − median, 5 % to 95 % |"
    yield "|---|--:|--:|--:|--:|"
    for low, high in BINS:
        yield line(
            f"{100 * low:g} to {100 * high:g} %", [r for r in runs if r.changed is not None and low <= r.changed < high]
        )
    yield line("one checkpoint alone", [run for run in runs if run.changed is None])


def line(name: str, runs: Sequence[Estimated]) -> str:
    if not runs:
        return f"| {name} | 0 | | | |"
    errors = torch.tensor([100 * (run.truth - run.guesses["median"]) for run in runs])
    low, high = errors.quantile(torch.tensor([0.05, 0.95])).tolist()
    ends = f"{low:+.0f} to {high:+.0f}".replace("-", "−")
    return f"| {name} | {len(runs)} | {len({run.pair for run in runs})} | {errors.abs().mean():.1f} | {ends} |"


if __name__ == "__main__":
    main()
