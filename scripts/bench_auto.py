"""What `method=auto` is worth on the embedded pairs, beside single methods on the same seeds.

    scripts/bench_select.py --outputs FOLDER
    scripts/bench_auto.py --outputs FOLDER --write docs/deciding.md

The first makes the runs of the single methods, this the ones of auto with its defaults, and the table.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from bench_methods import PAIRS, STEPS, interval, pair_of, put
from bench_select import METHODS, asked, made

from tl_runner.store import RunRecord, records

BEGIN, END = "<!-- made by scripts/bench_auto.py: begin -->", "<!-- end of bench_auto -->"
BASE, AUTO = "source_only", "auto"

Points = dict[int, float]  # by seed: target accuracy in percent, of the selected checkpoint


def differences(mine: Points, others: Points) -> str:
    """Mean over the seeds of both, with Student's 95 % interval."""
    gain = [mine[seed] - others[seed] for seed in sorted(mine.keys() & others.keys())]
    mean, low, high = (f"{round(value, 1) + 0.0:+.1f}" for value in (float(np.mean(gain)), *interval(gain)))
    return f"{mean} ({low} to {high})"


def table(found: Sequence[RunRecord]) -> Iterator[str]:
    """A line a pair: auto against source-only, what it chose, and the single method that was best there on average."""
    accuracies: dict[str, dict[str, Points]] = defaultdict(lambda: defaultdict(dict))
    chosen: dict[str, Counter[str]] = defaultdict(Counter)
    for run in found:
        if run.scores and run.choices["method"] in {*METHODS, AUTO}:
            accuracies[pair_of(run)][run.choices["method"]][run.seed] = 100 * run.scores["selected"]["accuracy"]
            if run.choices["method"] == AUTO:
                chosen[pair_of(run)][run.data["auto"]["chosen"]] += 1
    yield "| pair | n | source-only, % | auto, % | − source-only (95 %) | chose | best single, % | auto − best (95 %) |"
    yield "|---|--:|--:|--:|--:|---|---|--:|"
    for pair, by_method in sorted(accuracies.items()):
        auto = by_method.pop(AUTO)
        best = max(by_method, key=lambda name: np.mean([*by_method[name].values()]))
        means = " | ".join(f"{np.mean([*each.values()]):.1f}" for each in (by_method[BASE], auto))
        said = ", ".join(f"{name} {count}" for name, count in chosen[pair].most_common())
        told = f"{best} {np.mean([*by_method[best].values()]):.1f} | {differences(auto, by_method[best])}"
        yield f"| {pair} | {len(auto)} | {means} | {differences(auto, by_method[BASE])} | {said} | {told} |"


def main() -> None:
    said = asked(__doc__)
    for words in PAIRS.values():
        made(said, words, [AUTO], STEPS)
    text = "\n".join(table([run for run in records([said.outputs])[0] if run.status == "ok"]))
    print(text)
    if said.write:
        put(said.write, BEGIN, END, text)


if __name__ == "__main__":
    main()
