"""Runs made side by side: each as if alone, what they share read once, and an end of one no end of the others."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import QUICK, described
from omegaconf import OmegaConf
from support.failing import exhausted

from tl_runner.engine import recorder, shared_data
from tl_runner.engine.dry_run import plan_jobs
from tl_runner.engine.group import run_group
from tl_runner.engine.job import Job, run_job
from tl_runner.storage.record import RunRecord, read_stored

MLP = [*QUICK, "backbone=mlp", "method=mmd"]
POINTS = [("seed=0", "method.weight=0.5"), ("seed=0", "method.weight=3.0"), ("seed=1", "method.weight=0.5")]


def describe_jobs(outputs, *words):
    return [Job(described(outputs, *MLP, *point, *words)) for point in POINTS]


def read_curve(record: RunRecord):
    return [json.loads(line) for line in (record.folder / "curve.jsonl").read_text().splitlines()]


def test_a_group_comes_to_what_its_runs_come_to_alone(tmp_path):
    together, alone = describe_jobs(tmp_path / "a"), describe_jobs(tmp_path / "b")
    assert [outcome.what for outcome in run_group(together, lambda job: False)] == ["ran"] * 3
    for mine, its in zip(together, alone, strict=True):
        run_job(its, lambda: False, exhausted)
        stored, expected = read_stored(mine.record), read_stored(its.record)
        assert stored and expected and stored.status == "ok" and stored.id == expected.id
        assert (stored.environment.engine, expected.environment.engine) == ("fused", "eager")
        rows = expected.data.rows["target"][2]
        assert abs((stored.headline or 0) - (expected.headline or 0)) * rows <= 2
        assert stored.diagnosis and stored.data == expected.data
        assert stored.training.temperature == pytest.approx(expected.training.temperature, rel=1e-3)
        assert replace(stored.training, temperature=None) == replace(expected.training, temperature=None)
        for one, other in zip(read_curve(stored), read_curve(expected), strict=True):
            assert one["step"] == other["step"] and one["terms"] == pytest.approx(other["terms"], rel=0.01, abs=1e-4)
        assert not list(stored.folder.glob("checkpoint*"))


def test_runs_of_one_seed_read_their_data_once_and_open_their_own_answers(tmp_path, monkeypatch):
    read, inner = [], shared_data.read_data
    monkeypatch.setattr(shared_data, "read_data", lambda *words: read.append(1) or inner(*words))
    outcomes = [*run_group(describe_jobs(tmp_path), lambda job: False)]
    assert len(read) == 2 and all(outcome.record.headline is not None for outcome in outcomes)


def test_runs_of_a_group_claim_their_device_once(tmp_path, monkeypatch):
    claimed, claim = [], shared_data.claim_device
    monkeypatch.setattr(shared_data, "claim_device", lambda *words: claimed.append(words) or claim(*words))
    jobs = describe_jobs(tmp_path, "device=cpu", "threads=1")
    assert [outcome.record.status for outcome in run_group(jobs, lambda job: False)] == ["ok"] * 3
    assert claimed == [("cpu", 1)]


def test_a_run_that_stops_leaves_a_checkpoint_and_the_others_go_on(tmp_path):
    jobs = describe_jobs(tmp_path)
    outcomes = {outcome.record.id: outcome for outcome in run_group(jobs, lambda job: job is jobs[1])}
    assert [outcomes[job.record.id].what for job in jobs] == ["ran", "stopped", "ran"]
    again = Job(described(tmp_path, *MLP, *POINTS[1]))
    assert run_job(again, lambda: False, exhausted).record.status == "ok"


def test_a_run_cut_within_a_stack_resumes_alone(tmp_path):
    jobs, looks = describe_jobs(tmp_path), [0]

    def is_late(job):
        looks[0] += 1
        return looks[0] > 6  # each run has been asked at its first point and at step 5

    assert {outcome.what for outcome in run_group(jobs, is_late)} == {"stopped"}
    again = Job(described(tmp_path, *MLP, *POINTS[0]))
    record = run_job(again, lambda: False, exhausted).record
    assert record.status == "ok" and (record.environment.resumed or 0) > 0
    assert record.environment.engine == "fused"  # in part: its last digits are not those of a run alone


def test_a_run_that_fails_ends_alone_and_what_is_complete_is_skipped(tmp_path):
    jobs = describe_jobs(tmp_path)
    bad = Job(described(tmp_path, *MLP, "dataset.source=nowhere"))
    outcomes = {outcome.record.id: outcome for outcome in run_group([jobs[0], bad, jobs[1]], lambda job: False)}
    assert outcomes[bad.record.id].failed and "nowhere" in outcomes[bad.record.id].message
    assert outcomes[jobs[0].record.id].record.environment.engine == "fused"
    again = [*run_group(describe_jobs(tmp_path), lambda job: False)]
    assert sorted(outcome.what for outcome in again) == ["ran", "skipped", "skipped"]


def test_a_group_of_which_no_run_comes_to_its_training(tmp_path):
    bad = [Job(described(tmp_path, *MLP, "dataset.source=nowhere", f"seed={seed}")) for seed in (0, 1)]
    assert all(outcome.failed for outcome in run_group(bad, lambda job: False))
    assert {outcome.what for outcome in run_group(describe_jobs(tmp_path), lambda job: True)} == {"stopped"}


def test_each_run_has_its_own_warnings_and_its_own_reason(tmp_path):
    jobs = [*describe_jobs(tmp_path), Job(described(tmp_path, *MLP, "backbone.width=32"))]
    jobs[1].record.folder.mkdir(parents=True)
    (jobs[1].record.folder / "run.json").write_text("torn")
    found = {outcome.record.id: outcome for outcome in run_group(jobs, lambda job: False)}
    outcomes = [found[job.record.id] for job in jobs]
    assert [len(outcome.warnings) for outcome in outcomes] == [0, 1, 0, 0] and "can't be read" in outcomes[1].warnings[
        0
    ]
    assert [outcome.alone for outcome in outcomes] == ["", "", "", "no other run is like it"]


def test_each_run_has_its_own_log(tmp_path):
    jobs = describe_jobs(tmp_path)
    late = [0]

    def is_first(job):
        late[0] += 1
        return job is jobs[0] and late[0] > 3

    assert len([*run_group(jobs, is_first)]) == 3
    logs = [(job.record.folder / "run.log").read_text() for job in jobs]
    assert ["interrupted" in log for log in logs] == [True, False, False]


def test_a_stack_of_features_trains_heads_alone(tmp_path):
    words = [*QUICK, "backbone=mlp", "method=feature_extract", "method.head=linear", "granted=5"]
    jobs = [Job(described(tmp_path, *words, f"optimizer.lr={lr}")) for lr in (0.001, 0.01)]
    outcomes = [*run_group(jobs, lambda job: False)]
    assert {outcome.record.environment.engine for outcome in outcomes} == {"fused"}
    alone = Job(described(tmp_path / "b", *words, "optimizer.lr=0.01"))
    run_job(alone, lambda: False, exhausted)
    found = next(o.record for o in outcomes if o.record.id == alone.record.id)
    rows = found.data.rows["target"][2]
    assert abs((found.headline or 0) - (alone.record.headline or 0)) * rows <= 2
    assert torch.get_num_threads() == 1


def test_the_seconds_of_a_stack_are_no_estimate_of_a_run(tmp_path):
    jobs = describe_jobs(tmp_path)
    assert len([*run_group(jobs[:2], lambda job: False)]) == 2
    assert [planned.seconds for planned in plan_jobs(jobs)] == [0.0, 0.0, None]
    run_job(Job(described(tmp_path, *MLP, "seed=5")), lambda: False, exhausted)
    assert (plan_jobs(jobs)[2].seconds or 0) > 0


def test_a_configuration_is_written_as_omegaconf_writes_it(tmp_path):
    """Whatever keys are taken from runs before it."""
    for job in describe_jobs(tmp_path):
        config = {**job.record.config, "odd": {"1e3": "1e3", 2: [None, "yes", float("nan"), []], "ä": "a: b\nc"}}
        assert recorder._yaml(config) == OmegaConf.to_yaml(OmegaConf.create(config)).encode()
