"""The files of a run's folder that figures need: read when a figure asks for them, and reduced to sums.

Only sums stay in memory: predictions of thousands of runs would not fit. A file that can't be read is a fault that
the page tells, and what was in it counts as missing.
"""

import csv
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_runner.report.page.counts import confusion, reliability
from tl_runner.storage.record import RunRecord


class RunFiles:
    """The folder of one run. Arrays are None where the run did not keep them."""

    def __init__(self, record: RunRecord, faults: list[str]):
        self.record, self.faults = record, faults

    @cached_property
    def evidence(self) -> list[dict[str, Any]]:
        """The lines of the curve at which the model was examined, in order."""
        file = self.record.folder / "curve.jsonl"
        try:
            lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            return [line for line in lines if "source_val" in line]
        except (OSError, ValueError, AttributeError) as error:
            self.faults.append(f"{file} can't be read: {error}")
            return []

    @cached_property
    def accuracies(self) -> dict[int, float]:
        """The accuracy on the target's test split at each evaluation point; none without the true labels.

        R² where a quantity is predicted.
        """
        labels = self.labels
        if labels is None or not self._known.any():
            return {}
        found = {}
        for name, rows in self._tensors("predictions"):
            if not name.startswith("step_"):
                continue  # of a later version
            if not self._fits(rows, labels):
                return {}
            found[int(name.removeprefix("step_"))] = self._score(rows[self._known], labels[self._known])
        return dict(sorted(found.items()))

    @cached_property
    def confusion(self) -> NDArray[np.int64] | None:
        """(C, C) counts of the target's test rows by true and predicted class, at the selected checkpoint."""
        return None if self._scored is None else self._scored[0]

    @cached_property
    def reliability(self) -> NDArray[np.float64] | None:
        """(bins, 3) counts, summed confidence and hits on the target's test split, at the selected checkpoint."""
        return None if self._scored is None else self._scored[1]

    def diagnosis(self, name: str) -> NDArray[Any] | None:
        """One array of what the diagnosis left: samples, features, labels, weights."""
        return next((array for _, array in self._tensors("diagnosis", name)), None)

    def texts(self, name: str) -> list[str]:
        """The texts that the diagnosis left by this name; none of a run on anything else."""
        packed = self.diagnosis(name)
        return [] if packed is None else [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in packed]

    @cached_property
    def test_names(self) -> list[str]:
        """The files of the target's test split, in the order of its rows; none of a run that read none."""
        file = self.record.folder / "test.csv"
        try:
            with file.open(encoding="utf-8", errors="replace", newline="") as lines:
                return [row[0] for row in csv.reader(lines) if row][1:]
        except FileNotFoundError:
            return []
        except (OSError, csv.Error) as error:
            self.faults.append(f"{file} can't be read: {error}")
            return []

    @cached_property
    def labels(self) -> NDArray[Any] | None:
        """(n,) true labels of the target's test split; −1 where a row has none, NaN of a quantity."""
        return self.diagnosis("labels")

    @property
    def _known(self) -> NDArray[np.bool_]:
        """(n,) which of these rows have a label."""
        if self.labels is None:
            return np.zeros(0, bool)
        return ~np.isnan(self.labels) if self.record.data.quantity else self.labels >= 0

    def _score(self, rows: NDArray[Any], labels: NDArray[Any]) -> float:
        """The accuracy, or R², of predictions (n, k)."""
        if not self.record.data.quantity:
            return float((rows.argmax(-1) == labels).mean())
        spread = np.square(labels - labels.mean()).sum()
        return float(1 - np.square(labels - rows[:, 0]).sum() / spread) if spread else 0.0

    @cached_property
    def _scored(self) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        labels = self.labels
        if labels is None or not self.record.scores or not self._known.any() or self.record.data.quantity:
            return None
        step = f"step_{self.record.scores.selected['step']}"
        rows = next((rows for _, rows in self._tensors("predictions", step)), None)
        if rows is None or not self._fits(rows, labels):
            return None
        rows, labels = rows[self._known], labels[self._known]
        return confusion(labels, rows.argmax(-1), rows.shape[-1]), reliability(rows, labels)

    def _fits(self, rows: NDArray[Any], labels: NDArray[Any]) -> bool:
        fits = rows.ndim == 2 and len(rows) == len(labels)
        if not self.record.data.quantity:
            fits = fits and labels.min() >= -1 and labels.max() < rows.shape[-1]
        if (
            not fits
            and (fault := f"{self.record.folder}: labels and predictions do not fit together") not in self.faults
        ):
            self.faults.append(fault)
        return fits

    def _tensors(self, file: str, name: str | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
        """The arrays of a file, or the one of this name, if it is there."""
        from safetensors import SafetensorError, safe_open

        path = self.record.folder / f"{file}.safetensors"
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="numpy") as opened:
                for each in opened.keys():  # noqa: SIM118 – it is no mapping
                    if name in (None, each):
                        yield each, opened.get_tensor(each)
        except (OSError, ValueError, SafetensorError) as error:
            self.faults.append(f"{path} can't be read: {error}")
