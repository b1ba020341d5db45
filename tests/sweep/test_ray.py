"""A sweep over a Ray cluster of two machines, one of which is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.launched import read_runs, wait_until

pytest.importorskip("ray", reason="the extra [ray] is not installed")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster

RUN = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
SWEEP = [
    *("-m", "hydra/launcher=ray", "method=source_only", "seed=0,1,2", "train.steps=600", "train.log_every=5"),
    *("dataset.samples=300", "dataset.size=8", "device=cpu", "checkpoint_every=0.5"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one core each, as far as Ray can tell."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray leaves a token in the home folder
    monkeypatch.chdir("/")  # tasks begin where their machine's Ray was started
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_lost_machine_costs_its_run_and_no_other(cluster, tmp_path):
    lost = cluster.add_node(num_cpus=1)
    with _typed(cluster, tmp_path) as first:
        wait_until(lambda: len(list(tmp_path.glob("outputs/runs/*/*/checkpoint.pt"))) == 2, first)
        cluster.remove_node(lost, allow_graceful=False)
        told = first.communicate()[0]
    assert first.returncode == 1, told
    before = read_runs(tmp_path)
    (failed,) = (name for name, record in before.items() if record["status"] == "failed")
    ended = {name: record for name, record in before.items() if record["status"] == "ok"}
    assert len(ended) == len(before) - 1 >= 1, told  # the third had perhaps been promised to the lost machine
    assert "failed: digits small source_only" in told

    with _typed(cluster, tmp_path) as second:
        told = second.communicate()[0]
    assert second.returncode == 0, told
    after = read_runs(tmp_path)
    assert len(after) == 3 and {record["status"] for record in after.values()} == {"ok"}
    assert after[failed]["environment"]["resumed"] > 0
    assert {name: after[name] for name in ended} == ended
    for curve in tmp_path.glob("outputs/runs/*/*/curve.jsonl"):
        steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
        assert steps == sorted(set(steps)) and steps[-1] == 600 and set(steps) >= set(range(5, 601, 5))


def _typed(cluster: Any, folder: Path) -> "subprocess.Popen[str]":
    words = [*SWEEP, f"hydra.launcher.ray.init.address={cluster.address}"]
    return subprocess.Popen(
        [*RUN, *words], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ
    )
