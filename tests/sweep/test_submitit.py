"""A sweep as submitit's jobs, here in processes of this machine; scripts/slurm_check does it with SLURM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.launched import read_runs, wait_until

pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
pytestmark = pytest.mark.cluster

RUN = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
SWEEP = [
    *("-m", "hydra/launcher=submitit_local", "method=source_only", "seed=0,1", "train.steps=600", "train.log_every=5"),
    *("dataset.samples=300", "dataset.size=8", "device=cpu", "checkpoint_every=0.5"),
]


def test_a_killed_job_costs_its_run_and_no_other(tmp_path):
    with _typed(tmp_path) as first:
        wait_until(lambda: len(list(tmp_path.glob("outputs/runs/*/*/checkpoint.pt"))) == 2, first)
        killed = next(iter(read_runs(tmp_path).values()))["id"]
        os.kill(_process(tmp_path, killed), signal.SIGKILL)
        told = first.communicate()[0]
    assert first.returncode == 1, told
    before = read_runs(tmp_path)
    assert {record["id"]: record["status"] for record in before.values()} == {
        record["id"]: "failed" if record["id"] == killed else "ok" for record in before.values()
    }
    assert "2 runs, 1 failed" in told and "its process exited without reporting an error" in told
    assert list(tmp_path.glob("outputs/sweeps/.submitit/*_log.out")), "the log of the killed job is kept"

    _goes_on(tmp_path, before)


def test_an_interrupted_sweep_leaves_checkpoints(tmp_path):
    with _typed(tmp_path) as first:
        wait_until(lambda: len(list(tmp_path.glob("outputs/runs/*/*/checkpoint.pt"))) == 2, first)
        first.send_signal(signal.SIGINT)
        told = first.communicate()[0]
    assert first.returncode == 130, told
    before = read_runs(tmp_path)
    assert {record["error"] for record in before.values()} == {"interrupted"} and told.count("checkpoint is kept") == 2
    assert not list(tmp_path.glob("outputs/sweeps/.submitit/*")), "what jobs bring back is removed"

    _goes_on(tmp_path, before)


def _goes_on(folder: Path, before: dict[str, dict[str, Any]]) -> None:
    """Typed again, the command makes what was cut off, from its checkpoints, and nothing else."""
    with _typed(folder) as second:
        told = second.communicate()[0]
    assert second.returncode == 0, told
    for name, record in read_runs(folder).items():
        assert record["status"] == "ok"
        assert record["environment"]["resumed"] > 0 if before[name]["status"] != "ok" else record == before[name]
    for curve in folder.glob("outputs/runs/*/*/curve.jsonl"):
        steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
        assert steps == sorted(set(steps)) and set(steps) >= set(range(5, 601, 5))


def _process(folder: Path, run: str) -> int:
    return json.loads((folder / f"outputs/locks/{run}.json").read_text())["pid"]


def _typed(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([*RUN, *SWEEP], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
