"""How far the settings of a pair agree on unlabelled target rows: what they are compared by where no label is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.predictions import read_array
from tl_runner.report.settings import Setting

LEAST = 3  # settings: of two, both agree with their mean alike


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
            said = np.mean([*kept.values()], 0).argmax(-1)
            for at, rows in kept.items():
                found[at][seed] = float((rows.argmax(-1) == said).mean())
    return found


def _read(setting: Setting, seed: Any) -> NDArray[Any] | None:
    """The probabilities (n, C) that the setting's run on this seed kept, if there is one."""
    return read_array(setting.scored[seed], "validation", "target") if seed in setting.scored else None
