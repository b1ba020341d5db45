"""Folders of runs as `run` and `diagnose` write them, made up from a seed, for tests of what reads them."""

import json
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import (
    BoundTerms,
    ClassAccuracies,
    DataInfo,
    Diagnosis,
    Environment,
    Gap,
    Interval,
    Scores,
    SeedInfo,
    TestedMMD,
)

CLASSES = 4
ROWS = 60  # of the target's test split
STEPS = (30, 60, 90)
GAIN = {"source_only": 0.0, "mmd": 0.2, "kmm": -0.15, "weighted": 0.05, "target_only": 0.4}  # of the chance to be right


def made_up(
    outputs: Path, method: str, seed: int, *, diagnosed: bool = True, images: bool = True, status: Any = "ok",
    classes: int = CLASSES, dataset: str = "digits", right: float | None = None, rows_of: int | None = None,
    kind: Any = "resplit", **config: Any,
) -> RunRecord:  # fmt: skip
    """A run's folder: record, curve, predictions, and what the diagnosis leaves; `rows_of` another seed, if any."""
    random = np.random.default_rng([seed, sum(map(ord, method))])
    world = np.random.default_rng(seed if rows_of is None else rows_of)  # what runs of a seed share: the data
    labels, right = world.integers(0, classes, ROWS), 0.5 + GAIN.get(method, 0.1) if right is None else right
    names = [f"<b>{number}</b>" if number == 1 else f"class {number}" for number in range(classes)]
    setting = f"{method}{dataset}{sorted(config.items())}"
    record = RunRecord(
        id=f"{abs(hash_of(setting + str(seed))):010x}"[:10],
        setting=f"{abs(hash_of(setting)):010x}"[:10],
        choices={"dataset": dataset, "backbone": "small", "method": method},
        seed=seed,
        granted="0",
        config={
            "method": {"_target_": f"m.{method}", **config},
            "backbone": {"width": 8},
            "dataset": {"samples": 300},
            "train": {"steps": STEPS[-1]},
            "outputs": str(outputs),
            "seed": seed,
            "threads": 1,
        },
        status=status,
        seconds=1.5 + seed,
        error=None if status == "ok" else "UserError: <script>alert(1)</script> was no method",
        environment=Environment(
            python="3.11.7", versions={"tl_runner": "0.1.0", "torch": "2.15.0"}, device="cpu", threads=1,
            engine="eager", commit="0123456789abcdef", dirty=True,
        ),
        data=DataInfo(
            fingerprint={"source": f"aaaa{seed}", "target": f"bbbb{seed}"}, classes=names,
            domains={"source": "rendered", "target": "handwritten"}, shape=[1, 8, 8],
            rows={"source": [80, 20, ROWS], "target": [80, 20, ROWS]},
            seeds=SeedInfo(kind, ROWS, ROWS if kind == "fixed" else 100 + ROWS),
        ),
    )  # fmt: skip
    folder = record.folder
    folder.mkdir(parents=True)
    if status == "ok":
        probabilities = {step: _predicted(random, labels, right * step / STEPS[-1], classes) for step in STEPS}
        save_file({f"step_{step}": rows for step, rows in probabilities.items()}, folder / "predictions.safetensors")
        accuracies = {step: float((rows.argmax(-1) == labels).mean()) for step, rows in probabilities.items()}
        last, best = STEPS[-1], max(accuracies, key=lambda step: accuracies[step])
        record.scores = Scores(
            source={"accuracy": 0.95, "macro_f1": 0.95, "ece": 0.02},
            target={"accuracy": accuracies[last], "macro_f1": accuracies[last], "ece": 0.1},
            last={"step": last, "accuracy": accuracies[last]},
            selected={"step": last, "accuracy": accuracies[last], "macro_f1": accuracies[last]},
            oracle={"step": best, "accuracy": accuracies[best]},
        )
        _curve(folder, classes)
        if diagnosed:
            record.diagnosis = _diagnosis(probabilities[last], labels, right, classes)
            save_file(
                _exhibits(random, world, labels, probabilities[last], method, images), folder / "diagnosis.safetensors"
            )
    content = {name: value for name, value in asdict(record).items() if name != "found"}
    (folder / "run.json").write_text(json.dumps(content))
    return record


def hash_of(text: str) -> int:
    """The same in every process, unlike Python's own."""
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest())


def _predicted(random: np.random.Generator, labels: Any, right: float, classes: int) -> Any:
    logits = random.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += np.where(random.random(len(labels)) < right, 4.0, 0.0)
    shares = np.exp(logits)
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


def _curve(folder: Path, classes: int) -> None:
    lines = []
    for step in range(10, STEPS[-1] + 1, 10):
        line: dict[str, Any] = {"step": step, "seconds": step / 100, "terms": {"source": 1.0 / step}}
        if step in STEPS:
            line |= {"source_val": 0.5 + step / 200, "floor": 0.5, "floor_rows": 20, "information": step / 100}
            line |= {"entropy": 1 - step / 100, "classes": classes, "classes_used": 3.5}
        lines.append(json.dumps(line))
    (folder / "curve.jsonl").write_text("\n".join(lines) + "\n")


def _diagnosis(probabilities: Any, labels: Any, right: float, classes: int) -> Diagnosis:
    predicted = probabilities.argmax(-1)
    by_class = [float((predicted[labels == c] == c).mean()) if (labels == c).any() else None for c in range(classes)]
    return Diagnosis(
        before=Gap(Interval(1.6, 1.4, 1.8), TestedMMD(0.1, 0.002)),
        after=Gap(Interval(1.6 - right, 1.4 - right, 1.8 - right), TestedMMD(0.01, 0.3)),
        histogram=(np.bincount(predicted, minlength=classes) / len(predicted)).tolist(),
        bound=BoundTerms(0.05, 0.5, 0.1),
        classes=ClassAccuracies([0.95 for _ in range(classes)], by_class),
    )


def _exhibits(
    random: np.random.Generator, world: np.random.Generator, labels: Any, rows: Any, method: str, images: bool
) -> dict[str, Any]:
    classes = rows.shape[-1]
    source = world.integers(0, classes, ROWS)
    middles = 4 * world.normal(size=(classes, 6))
    found = {
        "labels": labels.astype(np.int16),
        "source_labels": source.astype(np.int16),
        "target_labels": labels.astype(np.int16),
    }
    found |= {"source_predicted": source.astype(np.int16), "target_predicted": rows.argmax(-1).astype(np.int16)}
    found["source_features"] = (middles[source] + random.normal(size=(ROWS, 6))).astype(np.float32)
    found["target_features"] = (middles[labels] + 2 + random.normal(size=(ROWS, 6))).astype(np.float32)
    if images:
        found["source_samples"] = world.integers(0, 256, (6, 1, 8, 8)).astype(np.uint8)
        found["target_samples"] = world.integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    if method == "weighted":
        shape = (4, 1, 8, 8) if images else (4, 12)
        for name, weights in (("heaviest", (5.5, 4.0, 3.0, 2.5)), ("lightest", (0.001, 0.002, 0.01, 0.1))):
            rows_of = world.integers(0, 256, shape)
            found[name] = rows_of.astype(np.uint8) if images else rows_of.astype(np.float32)
            found[f"{name}_weights"] = np.array(weights, dtype=np.float32)
    return found
