"""What a run predicted on the target's test rows, and what they are: read from its folder, where they were kept."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_runner.storage.record import RunRecord


class Predictions(NamedTuple):
    """Of the m labelled rows of the target's test split: their classes, and those that the selected checkpoint says."""

    labels: NDArray[Any]
    predicted: NDArray[Any]


def read_predictions(record: RunRecord) -> Predictions | None:
    """None where the run kept no predictions or no labels (diagnose=none), or they do not fit together."""
    from safetensors import SafetensorError, safe_open

    if record.scores is None:
        return None
    step = f"step_{record.scores.selected['step']}"
    found = []
    for file, name in (("diagnosis", "labels"), ("predictions", step)):
        path = record.folder / f"{file}.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as opened:
                if name not in opened.keys():  # noqa: SIM118 – it is no mapping
                    return None
                found.append(opened.get_tensor(name))
        except (OSError, ValueError, SafetensorError):
            return None
    labels, shares = found
    if shares.ndim != 2 or len(shares) != len(labels):
        return None
    known = labels >= 0
    return Predictions(labels[known].astype(np.int64), shares[known].argmax(-1)) if known.any() else None
