"""scripts/bench_gpu.py: its code runs here at tiny sizes, and without a CUDA device it says that it needs one."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch


@pytest.fixture
def bench(monkeypatch):
    """The script as a module: scripts/ is no package."""
    spec = spec_from_file_location("bench_gpu", Path(__file__).parents[2] / "scripts" / "bench_gpu.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_step_that_a_cpu_can_make_is_timed_and_every_goal_is_said(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--device", "cpu", "--tiny"])
    assert bench.main() == 0
    said = capsys.readouterr().out
    assert said.count(f"| {bench.LOOP} |") == said.count("| eager, float32 |") == len(bench.WORKS)
    assert said.count("not judged: the sizes are tiny") == len(bench.WORKS)


def test_a_machine_without_a_cuda_device_is_told_so(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main() == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("reached", [0.34, 0.36])
def test_a_goal_is_a_share_to_reach_or_seconds_to_keep(bench, reached):
    assert bench.Goal("share", 0.35).is_met(reached) == (reached > 0.35)
    assert bench.Goal("seconds", 0.35).is_met(reached) == (reached < 0.35)


def test_flops_are_those_counted_by_hand(bench):
    """Of a convolution 2·k²·c·c'·h·w, of a linear layer 2·d·C; backwards twice that, but for the inputs' gradient."""
    work = bench.WORKS[0]._replace(side=32, stem="cifar", batch=2)
    forward = 2 * 9 * 3 * 64 * 32 * 32
    first = forward
    for width, side, before in ((64, 32, 64), (128, 16, 64), (256, 8, 128), (512, 4, 256)):
        forward += 2 * 9 * width * side**2 * (3 * width + before)
        forward += 2 * width * before * side**2 * (width != before)
    forward += 2 * 512 * 10
    assert bench.count_flops(work, torch.device("cpu")) == 2 * (3 * forward - first)
