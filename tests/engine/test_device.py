"""On which device a run is made."""

import pytest
from conftest import QUICK, composed, made

from tl_runner.engine.run import run
from tl_runner.storage.record import describe_run


def test_a_run_says_that_it_was_made_on_the_cpu(tmp_path):
    assert made(tmp_path, *QUICK).environment.device == "cpu"


@pytest.mark.gpu
def test_a_run_on_a_gpu_is_the_same_run(tmp_path):
    """The device changes the last bits, so it is on record and no part of the id."""
    on_cpu = made(tmp_path / "cpu", *QUICK)
    on_gpu = describe_run(*composed(*QUICK, "device=cuda", f"outputs={tmp_path / 'cuda'}"))
    for _ in run(on_gpu):
        pass
    assert on_gpu.status == "ok" and on_gpu.environment.device.startswith("cuda")
    assert on_gpu.id == on_cpu.id
    assert on_gpu.scores and on_cpu.scores
    assert on_gpu.scores.selected["accuracy"] == pytest.approx(on_cpu.scores.selected["accuracy"], abs=0.15)
