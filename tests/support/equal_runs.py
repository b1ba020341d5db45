"""Whether two runs left the same, to the last bit."""

import json
from typing import Any

from tl_runner.storage.record import RunRecord


def curve(record: RunRecord) -> list[dict[str, Any]]:
    lines = map(json.loads, (record.folder / "curve.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def equal(one: RunRecord, other: RunRecord) -> None:
    """To the last bit, but for seconds; and nothing is left behind."""
    for name in ("model", "predictions"):
        assert (one.folder / f"{name}.safetensors").read_bytes() == (other.folder / f"{name}.safetensors").read_bytes()
    assert curve(one) == curve(other)
    assert (one.scores, one.evidence, one.diagnosis) == (other.scores, other.evidence, other.diagnosis)
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(path.name for path in other.folder.iterdir())
