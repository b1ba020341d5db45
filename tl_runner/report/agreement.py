"""How far runs agree on unlabelled target rows: the settings of a pair, by which they are compared where no label is
known, and the seeds of a setting."""

import csv
from collections.abc import Sequence
from itertools import combinations
from math import nan
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.predictions import read_array
from tl_runner.report.settings import Setting
from tl_runner.storage.record import RunRecord

LEAST = 3  # settings: of two, the surer one decides


def measure_agreement(settings: Sequence[Setting]) -> list[dict[Any, float]]:
    """For each setting, by seed, on which share of rows it says what the mean prediction of all of them says.

    The rows are the target's validation split, the predictions those of the selected checkpoints (EnsV; Hu et al.,
    NeurIPS 2024). Settings that kept none on the same rows as the first one at that seed do not take part. In NumPy,
    since a report does not load torch: `functional.label_free.agreement` is the same for a run and a search.
    """
    found: list[dict[Any, float]] = [{} for _ in settings]
    for seed in dict.fromkeys(seed for setting in settings for seed in setting.scored):
        kept = {at: rows for at, each in enumerate(settings) if (rows := _read(each, seed)) is not None}
        first = next(iter(kept.values()), None)
        kept = {at: rows for at, rows in kept.items() if first is not None and rows.shape == first.shape}
        if len(kept) >= LEAST:
            if first is not None and first.shape[-1] == 1:
                continue  # a quantity: values hardly ever agree
            said = np.mean([*kept.values()], 0).argmax(-1)
            for at, rows in kept.items():
                found[at][seed] = float((rows.argmax(-1) == said).mean())
    return found


def _read(setting: Setting, seed: Any) -> NDArray[Any] | None:
    """The probabilities (n, C) that the setting's run on this seed kept, if there is one."""
    return read_array(setting.scored[seed], "validation", "target") if seed in setting.scored else None


def compare_seeds(setting: Setting) -> float:
    """On which share of the target's rows two seeds predict the same class, the mean over all pairs of seeds.

    Of the rows that both kept in `predictions.csv`, by their names; nan where no two seeds have such. If the runs are
    calibrated together, the share is their accuracy (GDE; Jiang et al., ICLR 2022): where they share a mistake, it is
    too high.
    """
    kept = [classes for run in setting.scored.values() if (classes := _read_classes(run))]
    shares = []
    for one, other in combinations(kept, 2):
        if common := one.keys() & other.keys():
            shares.append(sum(one[name] == other[name] for name in common) / len(common))
    return fmean(shares) if shares else nan


def _read_classes(run: RunRecord) -> dict[str, str]:
    """The class that the run predicts of each target row, by the row's name; none where it kept no table of them."""
    try:
        if run.data.quantity:
            return {}  # values hardly ever agree
        with (run.folder / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            next(rows, None)  # the heading
            return {line[0]: line[1] for line in rows if len(line) > 1}
    except (OSError, csv.Error):
        return {}
