r"""The table of docs/methods.md from the runs in a folder: target accuracy, and the paired difference to source-only.

    tl-run -m method=source_only,mmd,coral,dann 'seed=range(10)'
    tl-run -m dataset=blobs backbone=mlp method=source_only,mmd,coral,dann 'seed=range(10)'
    tl-run -m dataset=synthetic dataset.shift=covariate,affine,none backbone=mlp \
        method=source_only,mmd,coral,dann 'seed=range(10)'
    python scripts/bench_methods.py outputs

Differences are taken seed by seed between runs that differ in nothing but the method; the interval is Student's t.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from tl_runner.store import RunRecord, records


def task(record: RunRecord) -> tuple[str, str]:
    """What two runs must share to be compared: a name for the table, and all of the configuration but the method."""
    shift = record.config["dataset"].get("shift", "none")
    rest = {key: value for key, value in record.config.items() if key not in ("method", "seed", "threads")}
    budget = "" if record.granted == "0" else f"granted={record.granted}"
    words = [record.choices["dataset"], "" if shift in (None, "none") else shift, record.choices["backbone"], budget]
    return " ".join(filter(None, words)), json.dumps(rest, sort_keys=True, default=str)


def main() -> None:
    found, faults = records([Path(path) for path in sys.argv[1:] or ["outputs"]])
    accuracy: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    seconds: dict[tuple[tuple[str, str], str], list[float]] = defaultdict(list)
    for record in found:
        if record.status == "ok" and record.scores and record.seconds:
            accuracy[task(record)][record.choices["method"]][record.seed] = record.scores["selected"]["accuracy"]
            seconds[task(record), record.choices["method"]].append(record.seconds)
    print("| pair, backbone | method | n | target, % | − source-only, points (95 % interval) | s |")
    print("|---|---|--:|--:|--:|--:|")
    for key in sorted(accuracy):
        baseline = accuracy[key].get("source_only", {})
        for method, by_seed in sorted(accuracy[key].items(), key=lambda item: -np.mean(list(item[1].values()))):
            values = 100 * np.array(list(by_seed.values()))
            shared = sorted(by_seed.keys() & baseline.keys())
            gain = 100 * np.array([by_seed[seed] - baseline[seed] for seed in shared])
            told = ""
            if method != "source_only" and len(gain) > 1:
                low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain) + 1e-12)
                told = f"{gain.mean():+.1f} ({low:+.1f} to {high:+.1f})"
            spread = f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values.mean():.1f}"
            print(
                f"| {key[0]} | {method} | {len(values)} | {spread} | {told} | {np.median(seconds[key, method]):.0f} |"
            )
    unfinished = sum(record.status != "ok" for record in found) + len(faults)
    print(f"\n{len(found)} runs, {unfinished} of them failed, unfinished or unreadable.")


if __name__ == "__main__":
    main()
