"""What a run predicted on the target's test rows, and what they are: read from its folder, where they were kept."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_runner.storage.record import RunRecord


class Predictions(NamedTuple):
    """Of the m labelled rows of the target's test split: their classes, or values, and what the checkpoint says."""

    labels: NDArray[Any]
    predicted: NDArray[Any]


def read_predictions(record: RunRecord) -> Predictions | None:
    """None where the run kept no predictions or no labels (diagnose=none), or they do not fit together."""
    if record.scores is None:
        return None
    labels = read_array(record, "diagnosis", "labels")
    shares = read_array(record, "predictions", f"step_{record.scores.selected['step']}")
    if labels is None or shares is None or shares.ndim != 2 or len(shares) != len(labels):
        return None
    if record.data.quantity:
        known = ~np.isnan(labels)
        return Predictions(labels[known], shares[known, 0]) if known.any() else None
    known = labels >= 0
    return Predictions(labels[known].astype(np.int64), shares[known].argmax(-1)) if known.any() else None


def read_array(record: RunRecord, file: str, name: str) -> NDArray[Any] | None:
    """An array of a file in the run's folder; None where it is not there, or can't be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(record.folder / f"{file}.safetensors", framework="numpy") as opened:
            return opened.get_tensor(name) if name in opened.keys() else None  # noqa: SIM118 – it is no mapping
    except (OSError, ValueError, SafetensorError):
        return None
