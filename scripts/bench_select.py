"""What choosing a checkpoint without target labels costs, rule by rule, on the standing pairs.

Reads what `scripts/bench_methods.py --kept docs/measured/2026-11-27` keeps there: each run was trained once, with all
label-free evidence at its evaluation points. The rules of `select` choose there, and the accuracies say what the choice
was worth.

    python scripts/bench_select.py --write docs/deciding.md
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import measured
import numpy as np
from bench_methods import BASE, PAIRS, put
from measured import Measured

from tl_runner.report.statistics import Seeds, compare_paired
from tl_runner.training import checkpoint_selection
from tl_runner.training.checkpoint_selection import Evidence

Rule = Callable[[Sequence[Evidence]], int]
RULES: dict[str, Rule] = {
    name: getattr(checkpoint_selection, name)
    for name in ("last", "source_val", "im", "bnm", "entropy", "snd", "dev", "default")
}
METHODS = (
    *("source_only", "mmd", "jmmd", "lmmd", "coral", "mcc", "bnm", "im", "afn", "deepjdot", "fixmatch"),
    *("dann", "cdan", "bsp", "mcd", "mdd", "adda", "similarity", "shot"),
)
COLLAPSE = 0.10  # of accuracy below source-only's last checkpoint
BEGIN, END = "<!-- made by scripts/bench_select.py: begin -->", "<!-- end of bench_select -->"


def compared() -> list[Measured]:
    """The runs of these methods without target labels, of pairs and seeds that have a source_only."""
    kept = measured.load(measured.CHOSEN)
    runs = [each for each in kept if each.method in METHODS and each.granted == "0" and not each.error]
    known = bases(runs)
    return [each for each in runs if (each.pair, each.seed) in known]


def bases(runs: Sequence[Measured]) -> dict[tuple[str, int], float]:
    """The accuracy of source_only's last checkpoint by pair and seed."""
    return {(each.pair, each.seed): each.accuracies[-1] for each in runs if each.method == BASE}


def worth(run: Measured, rule: Rule | None) -> float:
    """The accuracy of the checkpoint that the rule takes; without a rule that of the best."""
    return max(run.accuracies) if rule is None else run.accuracies[rule(run.history)]


def table(runs: Sequence[Measured]) -> Iterator[str]:
    """A line a rule: its regret, what it gains over the last checkpoint on each pair, and how often it collapses."""
    pairs = [pair for pair in PAIRS if any(each.pair == pair for each in runs)]
    floors = bases(runs)
    yield f"| rule | mean regret | worst method's | collapses of {len(runs)} | {' | '.join(pairs)} |"
    yield "|---|--:|--:|--:|" + "--:|" * len(pairs)
    for name, rule in {**RULES, "oracle": None}.items():
        regrets: dict[tuple[str, str], list[float]] = defaultdict(list)
        gains: dict[str, list[float]] = defaultdict(list)
        collapses = 0
        for each in runs:
            value = worth(each, rule)
            regrets[each.pair, each.method].append(max(each.accuracies) - value)
            gains[each.pair].append(value - each.accuracies[-1])
            collapses += value < floors[each.pair, each.seed] - COLLAPSE
        mean = np.mean([regret for cell in regrets.values() for regret in cell])
        (pair, method), worst = max(regrets.items(), key=lambda item: np.mean(item[1]))
        told = f"{100 * np.mean(worst):.1f} ({method}, {pair})" if rule else ""
        columns = " | ".join(f"{100 * np.mean(gains[pair]):+.2f}" for pair in pairs)
        yield f"| {f'`{name}`' if rule else name} | {100 * mean:.2f} | {told} | {collapses} | {columns} |"


def against(runs: Sequence[Measured]) -> Iterator[str]:
    """The default minus each other rule in points, a seed each: mean and Student's 95 % interval."""
    yield "| `default` − | points (95 % interval over seeds) |"
    yield "|---|--:|"
    seeds = sorted({each.seed for each in runs})
    for name, rule in RULES.items():
        if name == "default":
            continue
        mine, others = (
            {seed: float(np.mean([worth(each, of) for each in runs if each.seed == seed])) for seed in seeds}
            for of in (checkpoint_selection.default, rule)
        )
        found = compare_paired(mine, others, Seeds("independent"))
        difference, low, high = (100 * value for value in (found.difference, found.low, found.high))
        yield f"| `{name}` | {difference:+.2f} ({low:+.2f} to {high:+.2f}) |"


def collapsed(runs: Sequence[Measured]) -> Iterator[str]:
    """Where the default collapses, and whether any checkpoint would have saved the run."""
    floors = bases(runs)
    cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in runs:
        floor = floors[each.pair, each.seed] - COLLAPSE
        if worth(each, checkpoint_selection.default) < floor:
            cells[each.method, each.pair].append(max(each.accuracies) >= floor)
    for (method, pair), saved in sorted(cells.items()):
        yield f"- {method} on {pair}: {len(saved)}, of which {sum(saved)} had a checkpoint that was no collapse"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the table goes")
    said = parser.parse_args()
    if not (runs := compared()):
        raise SystemExit(f"{measured.CHOSEN} holds no runs to compare: scripts/bench_methods.py makes them")
    seeds = sorted({each.seed for each in runs})
    head = f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}."
    text = "\n".join([head, "", *table(runs), "", *against(runs), "", *collapsed(runs)])
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
