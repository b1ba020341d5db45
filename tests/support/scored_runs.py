"""Records of finished runs by their accuracies alone, for what reads no file of theirs."""

from pathlib import Path
from typing import Any

from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import DataInfo, Scores, SeedInfo, TrainingInfo

CLASSES, TEST, POOL = 10, 100, 300


def run(
    method: str, seed: int, accuracy: float, granted: Any = 5, steps: int = 100, *, kind: Any = "independent",
    rows: int | None = None, backbone: str = "small", outputs: Path = Path("nowhere"), **config: Any,
) -> RunRecord:  # fmt: skip
    """A finished run's record; `granted` as it was typed, `rows` how many labels that came to."""
    count = 10 if granted == "auto" else granted
    reached: dict[str, Any] = {"step": steps, "accuracy": accuracy}
    setting = f"{method} {granted} {steps} {backbone} {kind} {sorted(config.items())}"
    return RunRecord(
        id=f"{setting} {seed}",
        setting=setting,
        choices={"dataset": "digits", "backbone": backbone, "method": method},
        seed=seed,
        granted=str(count),
        config={
            "method": {"_target_": method, **config}, "backbone": {"_target_": backbone}, "train": {"steps": steps},
            "dataset": {"samples": 300}, "granted": granted, "seed": seed, "outputs": str(outputs),
        },
        status="ok",
        scores=Scores({"accuracy": 0.9}, reached, reached, reached, reached),
        data=DataInfo(
            classes=[str(index) for index in range(CLASSES)], domains={"source": "s", "target": "t"},
            rows={"target": [80, 20, TEST]}, seeds=SeedInfo(kind, TEST, POOL),
            granted=int(count) * CLASSES if rows is None else rows,
        ),
        training=TrainingInfo(start="source"),
    )  # fmt: skip
