"""The compact results of benchmark runs: a line a run in docs/measured/, from which the tables of docs/ are made.

A later benchmark adds its runs, and replaces those of the same pair, method, label budget and seed.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from tl_runner.functional.metrics import accuracy
from tl_runner.report.settings import seeds_of
from tl_runner.storage.record import RunRecord
from tl_runner.training.checkpoint_selection import Evidence

FOLDER = Path(__file__).parent.parent / "docs" / "measured"
CHOSEN = FOLDER / "2026-11-27"  # runs with today's `select=default` and `method=auto`
DIGITS = 5  # significant ones of a number that is kept


class Measured(NamedTuple):
    """What is kept of a run: its accuracy on the target's test split at each evaluation, and what was known there.

    `evidence` holds a list for each field of `select.Evidence`, as long as `accuracies` ([0, 1]); `selected` is the
    place of the checkpoint that `select=default` chose on the day. One that did not end well has an `error`.
    """

    pair: str
    method: str
    granted: str
    seed: int
    made: str
    error: str
    seconds: float
    source: float | None
    selected: int
    accuracies: list[float]
    evidence: dict[str, list[Any]]
    auto: str  # what `auto` chose
    steps: int  # of the source model and of the training
    seeds: dict[str, Any]  # how they differ, as the record says it: see `report.statistics.Seeds`

    @property
    def key(self) -> tuple[str, str, int]:
        return self.granted, self.method, self.seed

    @property
    def history(self) -> list[Evidence]:
        """As a rule of selection reads it; a field that the run's day did not know has its default."""
        known = {name: values for name, values in self.evidence.items() if name in Evidence._fields}
        return [Evidence(**{name: values[i] for name, values in known.items()}) for i in range(len(self.accuracies))]

    @property
    def chosen(self) -> float:
        """Accuracy of the selected checkpoint."""
        return self.accuracies[self.selected]


def compact(run: RunRecord, pair: str) -> Measured:
    """What is kept of a run that has ended."""
    steps = run.config["train"]["steps"] + (run.training.source_model.steps if run.training.source_model else 0)
    made = date.fromtimestamp((run.folder / "run.json").stat().st_mtime).isoformat()
    known: dict[str, Any] = {"pair": pair, "method": run.choices["method"], "granted": str(run.granted)}
    known |= {"seed": run.seed, "made": made, "seconds": run.seconds or 0.0, "steps": steps}
    known |= {"seeds": seeds_of(run)._asdict()}
    if run.status != "ok" or run.scores is None:
        why = f"{run.status}: {run.error}"
        return Measured(**known, error=why, source=None, selected=-1, accuracies=[], evidence={}, auto="")
    from safetensors.torch import load_file

    lines = [json.loads(line) for line in (run.folder / "curve.jsonl").read_text().splitlines()]
    points = [line for line in lines if "entropy" in line]
    predicted = load_file(run.folder / "predictions.safetensors")
    labels = load_file(run.folder / "diagnosis.safetensors")["labels"]
    right = [accuracy(predicted[f"step_{point['step']}"], labels) for point in points]
    source = (run.scores.source or {}).get("accuracy")
    place = [point["step"] for point in points].index(run.scores.selected["step"])
    evidence = {name: [_short(point.get(name)) for point in points] for name in Evidence._fields}
    chosen = run.training.auto.chosen if run.training.auto else ""
    values = [float(_short(value)) for value in right]
    return Measured(
        **known, error="", source=_short(source), selected=place, accuracies=values, evidence=evidence, auto=chosen
    )


def load(folder: Path = FOLDER) -> list[Measured]:
    """All that is kept."""
    return [Measured(**json.loads(line)) for file in sorted(folder.glob("*.jsonl")) for line in _lines(file)]


def add(found: Iterable[Measured], folder: Path = FOLDER) -> None:
    """Keep these beside what there is, sorted, in a file a pair."""
    folder.mkdir(parents=True, exist_ok=True)
    by_pair: dict[str, list[Measured]] = {}
    for each in found:
        by_pair.setdefault(each.pair, []).append(each)
    for pair, runs in by_pair.items():
        file = folder / f"{pair.replace(', ', ' ').replace(' ', '_')}.jsonl"
        kept = {each.key: each for each in (Measured(**json.loads(line)) for line in _lines(file))}
        kept |= {each.key: each for each in runs}
        lines = [json.dumps(kept[key]._asdict(), separators=(",", ":")) for key in sorted(kept)]
        file.write_text("\n".join(lines) + "\n")


def _lines(file: Path) -> Iterator[str]:
    if file.exists():
        yield from filter(None, file.read_text().splitlines())


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
