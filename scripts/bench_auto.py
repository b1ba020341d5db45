"""What `method=auto` is worth on the standing pairs, beside single methods on the same seeds.

Reads what `scripts/bench_methods.py --kept docs/measured/2026-11-27` keeps there.

    python scripts/bench_auto.py --write docs/deciding.md
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import measured
import numpy as np
from bench_methods import BASE, PAIRS, compared, put, scored, told
from bench_select import METHODS
from measured import Measured

BEGIN, END = "<!-- made by scripts/bench_auto.py: begin -->", "<!-- end of bench_auto -->"
AUTO = "auto"


def table(kept: Sequence[Measured]) -> Iterator[str]:
    """A line a pair: auto against source-only, what it chose, and the single method that was best there on average."""
    runs: dict[str, dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    for each in kept:
        if each.granted == "0" and not each.error and each.method in {*METHODS, AUTO}:
            runs[each.pair][each.method].append(each)
    heads = ("pair", "n", "source-only, %", "auto, %", "− source-only (95 %)", "worst seed", "came to")
    yield f"| {' | '.join([*heads, 'best single, %', 'auto − best (95 %)'])} |"
    yield "|---|--:|--:|--:|--:|--:|---|---|--:|"
    for pair in PAIRS:
        if not {AUTO, BASE} <= runs[pair].keys():
            continue
        chosen = Counter(each.auto for each in runs[pair][AUTO])
        auto = runs[pair].pop(AUTO)
        seeds = {each.seed for each in auto}
        of_all = {method: of for method, of in runs[pair].items() if seeds <= scored(of).keys()}
        means = {method: float(np.mean([scored(of)[seed] for seed in seeds])) for method, of in of_all.items()}
        best = max(means, key=lambda method: means[method])
        said = ", ".join(f"{name} {count}" for name, count in chosen.most_common())
        columns = [pair, len(auto), f"{means[BASE]:.1f}", f"{np.mean([*scored(auto).values()]):.1f}"]
        base = scored(runs[pair][BASE])
        worst = min(value - base[seed] for seed, value in scored(auto).items() if seed in base)
        best_of = f"{best} {means[best]:.1f} (of {len(of_all)})"
        columns += [told(compared(auto, runs[pair][BASE])), f"{worst:+.1f}", said, best_of]
        yield f"| {' | '.join(map(str, [*columns, told(compared(auto, runs[pair][best]))]))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="a file with the two markers between which the table goes")
    said = parser.parse_args()
    if not (kept := measured.load(measured.CHOSEN)):
        raise SystemExit(f"{measured.CHOSEN} holds no runs to compare: scripts/bench_methods.py makes them")
    text = "\n".join(table(kept))
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
