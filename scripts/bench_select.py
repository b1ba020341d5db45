"""What choosing a checkpoint without target labels costs, rule by rule, on the embedded pairs.

Each run is trained once, with all label-free evidence on its curve. The rules of `select` then choose there, and
the predictions of each evaluation point say what the choice was worth. Seeds from 200 on were used for nothing else.

    scripts/bench_select.py --outputs FOLDER --write docs/deciding.md
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bench_methods import PAIRS, STEPS, pair_of, put
from safetensors.torch import load_file

from tl_runner import select
from tl_runner.select import Evidence
from tl_runner.store import RunRecord, records

Rule = Callable[[Sequence[Evidence]], int]
RULES: dict[str, Rule] = {
    name: getattr(select, name) for name in ("last", "source_val", "im", "bnm", "entropy", "snd", "dev", "default")
}
METHODS = (
    *("source_only", "mmd", "jmmd", "lmmd", "coral", "mcc", "bnm", "im", "afn", "deepjdot", "fixmatch"),
    *("dann", "cdan", "bsp", "mcd", "mdd", "adda", "similarity", "shot"),
)
COLLAPSE = 0.10  # of accuracy below source-only's last checkpoint
BEGIN, END = "<!-- made by scripts/bench_select.py: begin -->", "<!-- end of bench_select -->"


class Curve(NamedTuple):
    """A run's evaluation points: what was known of each, and what it was worth."""

    pair: str
    method: str
    seed: int
    history: list[Evidence]
    accuracies: list[float]

    def worth(self, rule: Rule) -> float:
        return self.accuracies[rule(self.history)]


def curve(run: RunRecord) -> Curve:
    lines = [json.loads(line) for line in (run.folder / "curve.jsonl").read_text().splitlines()]
    known = [{name: line[name] for name in Evidence._fields if name in line} for line in lines if "entropy" in line]
    history = [Evidence(**each) for each in known]
    predicted = load_file(run.folder / "predictions.safetensors")
    labels = load_file(run.folder / "diagnosis.safetensors")["labels"]
    right = [(predicted[f"step_{each.step}"].argmax(-1) == labels).double().mean().item() for each in history]
    return Curve(pair_of(run), run.choices["method"], run.seed, history, right)


def table(of: Sequence[Curve]) -> Iterator[str]:
    """A line a rule: its regret, what it gains over the last checkpoint on each pair, and how often it collapses."""
    pairs = sorted({each.pair for each in of})
    bases = {(each.pair, each.seed): each.accuracies[-1] for each in of if each.method == "source_only"}
    yield f"| rule | mean regret | worst method's | collapses of {len(of)} | {' | '.join(pairs)} |"
    yield "|---|--:|--:|--:|" + "--:|" * len(pairs)
    for name, rule in {**RULES, "oracle": None}.items():
        worth = [max(each.accuracies) if rule is None else each.worth(rule) for each in of]
        regrets: dict[tuple[str, str], list[float]] = defaultdict(list)
        gains: dict[str, list[float]] = defaultdict(list)
        collapses = 0
        for each, value in zip(of, worth, strict=True):
            regrets[each.pair, each.method].append(max(each.accuracies) - value)
            gains[each.pair].append(value - each.accuracies[-1])
            collapses += value < bases[each.pair, each.seed] - COLLAPSE
        mean = np.mean([regret for cell in regrets.values() for regret in cell])
        (pair, method), worst = max(regrets.items(), key=lambda item: np.mean(item[1]))
        told = f"{100 * np.mean(worst):.1f} ({method}, {pair})" if rule else ""
        columns = " | ".join(f"{100 * np.mean(gains[pair]):+.2f}" for pair in pairs)
        yield f"| {f'`{name}`' if rule else name} | {100 * mean:.2f} | {told} | {collapses} | {columns} |"


def collapsed(of: Sequence[Curve]) -> Iterator[str]:
    """Where the default collapses, and whether any checkpoint would have saved the run."""
    bases = {(each.pair, each.seed): each.accuracies[-1] for each in of if each.method == "source_only"}
    cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in of:
        floor = bases[each.pair, each.seed] - COLLAPSE
        if each.worth(select.default) < floor:
            cells[each.method, each.pair].append(max(each.accuracies) >= floor)
    for (method, pair), saved in sorted(cells.items()):
        yield f"- {method} on {pair}: {len(saved)}, of which {sum(saved)} had a checkpoint that was no collapse"


def asked(purpose: str | None) -> argparse.Namespace:
    """The arguments, which `bench_auto` has too."""
    parser = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the table goes")
    return parser.parse_args()


def made(said: argparse.Namespace, words: Sequence[str], methods: Sequence[str], steps: int) -> None:
    """The runs of these methods on all seeds, with as many steps for a source model as for training."""
    seeds = f"seed=range({said.first},{said.first + said.seeds})"
    fixed = [f"train.steps={steps}", f"pretrain.steps={steps}", f"outputs={said.outputs}", "save=false", "threads=1"]
    command = [str(Path(sys.executable).with_name("tl-run")), "-m", *words, f"method={','.join(methods)}"]
    command += [seeds, *fixed, f"hydra.launcher.n_jobs={said.jobs}"]
    print(*command, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    said = asked(__doc__)
    for words in PAIRS.values():
        made(said, words, METHODS[:-1], STEPS)
        made(said, words, METHODS[-1:], STEPS // 2)  # shot: half for its source model
    found, _ = records([said.outputs])
    of = [curve(run) for run in found if run.status == "ok" and run.choices["method"] in METHODS]
    text = "\n".join([*table(of), "", *collapsed(of)])
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
