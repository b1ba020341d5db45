"""Which jobs are made as a group, and the launcher that makes them so."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import QUICK, described

from tl_runner.engine.job import Job, Outcome
from tl_runner.sweep.fusing import MEMBERS, describe_fused, explain_alone, group_jobs
from tl_runner.sweep.plugins.launcher import Local
from tl_runner.sweep.slots import Slot

ONE, TWO = ([Slot(number, 1, None) for number in range(count)] for count in (1, 2))
MLP = [*QUICK, "backbone=mlp"]


def jobs(*points, words=("method=mmd",)):
    return [Job(described(Path("outputs"), *MLP, *words, *point.split())) for point in points]


def test_jobs_that_differ_in_seeds_and_numbers_are_one_group():
    found = group_jobs(
        jobs(
            "seed=0",
            "seed=1 method.weight=1",
            "optimizer.lr=0.1 train.clip=null",
            "schedule=constant",
            "train.batch=16",
            "dataset.size=16",
            "backbone.width=32",
            "method.schedule=linear",
        ),
        ONE,
    )
    assert sorted(map(len, found.jobs), reverse=True) == [3, 1, 1, 1, 1, 1]
    assert found.fused == 3 and [*found.alone.values()] == ["no other run is like it"] * 5


def test_a_group_is_split_for_every_place_and_never_too_large():
    many = jobs(*(f"seed={seed} method.weight={weight}" for seed in (1, 0) for weight in range(20)))
    groups = group_jobs(many, ONE).jobs
    assert sorted(map(len, groups)) == [20, 20] and max(map(len, groups)) <= MEMBERS
    assert [{job.record.seed for job in group} for group in groups] == [{0}, {1}]
    assert [len(group) for group in group_jobs(many[:7], TWO).jobs] == [7]
    assert [len(group) for group in group_jobs(many[:8], TWO).jobs] == [4, 4]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("method=fixmatch", "method=fixmatch is not known to train in a stack"),
        ("method=mmd backbone=small", "backbone=small trains faster alone"),
        ("method=dann", "dropout draws from the process's generator: set method.dropout=0 to fuse"),
        ("method=mmd timeout=60", "timeout= is of one run"),
        ("method=mmd shares=bbse", "shares=bbse changes what is drawn"),
        ("method=mmd train.precision=bf16", "train.precision and train.compile are for one network at a time"),
        ("method=feature_extract granted=5", "method.head=auto takes no steps"),
        ("method=finetune granted=5 method.lora_rank=2", "method.lora_rank adds adapters"),
    ],
)
def test_what_is_made_alone_has_a_reason(words, why):
    (job,) = jobs("", words=words.split())
    assert explain_alone(job.record.config) == why
    groups = group_jobs([job], TWO)
    told = describe_fused([Outcome(job.record, "", "ran")], groups)
    assert told == f"fused: 0 runs of 1 that were made; alone: {why} (1)"
    assert describe_fused([Outcome(job.record, "", "skipped")], groups) == ""


def test_on_a_gpu_runs_are_alone():
    gpus = [Slot(0, 1, "cuda:0")]
    two = jobs("seed=0", "seed=1")
    for each in two:
        each.record.config = {**each.record.config, "device": "auto"}
    assert [*group_jobs(two, gpus).alone.values()] == ["stacks are for a CPU"] * 2
    assert group_jobs(two, ONE).fused == 2
    for each in two:
        each.record.config = {**each.record.config, "device": "cpu"}
    assert group_jobs(two, gpus).fused == 2


def test_the_launcher_makes_groups_and_says_so(typed):
    words = [*MLP, "method=source_only,fixmatch", "optimizer.lr=0.001,0.002", "seed=0,1", "hydra.launcher.n_jobs=1"]
    said = typed("tl-run", "-m", "hydra/launcher=fused", *words)
    assert said.code == 0 and "8 runs, 0 failed" in said.out
    assert "fused: 4 runs of 8 that were made; alone: method=fixmatch is not known to train in a stack (4)" in " ".join(
        said.out.split()
    )
    again = typed("tl-run", "-m", "hydra/launcher=fused", *words)
    assert again.out.count("skipped") >= 8


@pytest.mark.parametrize(("complete", "advised"), [(0, True), (1, True), (2, False), (21, False)])
def test_stacks_are_advised_for_as_many_runs_as_were_made(complete, advised, monkeypatch):
    runs = jobs(*(f"seed={seed}" for seed in range(21)))
    what = ["skipped"] * complete + ["ran"] * (21 - complete)
    outcomes = [Outcome(job.record, "", became) for job, became in zip(runs, what, strict=True)]
    monkeypatch.setattr("tl_runner.sweep.local.run_locally", lambda *_: iter(outcomes))
    command, shown = Mock(said=(said := [])), Mock()
    local = Local(n_jobs=1)
    local.command = command
    assert [*local.run_jobs(runs, shown)] == outcomes
    assert bool(said) == advised
    assert not said or f"trains {21 - complete} of these runs" in said[0]
