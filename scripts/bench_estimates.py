"""How far estimates of the target accuracy without labels are from the true one, over stored runs.

    tl-run -m method=source_only,mmd,dann seed=0,1,2 && python scripts/bench_estimates.py outputs

Prints for each dataset the mean absolute error of every estimate in points, and its mean error: above 0 it is too high.
`source` takes the accuracy on the source's test split for the target's.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

from tl_runner.report.settings import group_settings
from tl_runner.storage.record import RunRecord, read_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="+")
    records, faults = read_records(parser.parse_args().outputs)
    for fault in faults:
        print(f"warning: {fault}")
    errors: dict[str, list[dict[str, float]]] = defaultdict(list)
    for setting in group_settings(records):
        errors[setting.pair] += [found for run in setting.scored.values() if (found := list_errors(run))]
    if not errors:
        raise SystemExit("no run there has an estimated accuracy")
    names = list(next(iter(errors.values()))[0])
    print(f"| pair | runs | {' | '.join(names)} |\n|---|--:|{'--:|' * len(names)}")
    for pair, found in errors.items():
        cells = [[each[name] for each in found] for name in names]
        shown = [f"{fmean(map(abs, values)):.1f} ({fmean(values):+.1f})".replace("-", "−") for values in cells]
        print(f"| {pair} | {len(found)} | {' | '.join(shown)} |")


def list_errors(run: RunRecord) -> dict[str, float]:
    """Estimate minus truth in points, by the estimate's name; empty where the run has none."""
    scores = run.scores
    if not (scores and scores.estimated and scores.source and scores.target):
        return {}
    truth = scores.target["accuracy"]
    guesses = {**scores.estimated, "median": median(scores.estimated.values()), "source": scores.source["accuracy"]}
    return {name: 100 * (value - truth) for name, value in guesses.items()}


if __name__ == "__main__":
    main()
