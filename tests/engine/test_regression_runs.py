"""Whole runs that predict a quantity: scores, selection, record, what is kept, and what uses a finished run."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import made
from rich.console import Console
from safetensors.numpy import load_file
from sklearn.metrics import r2_score, root_mean_squared_error

import tl_runner
from tl_runner.inference.export import export
from tl_runner.inference.samples import samples
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page.groups import group_by_pair
from tl_runner.report.page.values import figure
from tl_runner.report.side_by_side import side_by_side
from tl_runner.report.tables import result
from tl_runner.storage.record import read_record
from tl_runner.training.checkpoint_selection import Evidence, FloorOf, default

WORDS = ("dataset=synthetic_regression", "dataset.samples=300", "backbone=mlp", "train.steps=60")


def run(tmp_path, *words):
    return made(tmp_path, *WORDS, "method=source_only", *words)


def test_scores_are_those_of_the_predictions_that_the_run_kept(tmp_path):
    record = run(tmp_path)
    assert record.status == "ok" and record.scores and record.scores.target and record.metric == "r2"
    step = record.scores.selected["step"]
    predicted = load_file(record.folder / "predictions.safetensors")[f"step_{step}"][:, 0]
    values = load_file(record.folder / "diagnosis.safetensors")["labels"]
    assert record.scores.target["r2"] == pytest.approx(r2_score(values, predicted), abs=1e-5) == record.headline
    assert record.scores.target["rmse"] == pytest.approx(root_mean_squared_error(values, predicted), rel=1e-5)
    assert record.accuracy is None and record.data.task == "regression" and record.data.input == "table"
    assert record.scores.oracle and record.scores.oracle["rmse"] <= record.scores.selected["rmse"]
    again = read_record(record.folder / "run.json")
    assert again.scores == record.scores and again.data.quantity == record.data.quantity


def test_the_estimated_error_needs_no_target_label_and_has_an_interval(tmp_path):
    record = run(tmp_path)
    error = record.scores and record.scores.estimated_error
    assert error and error.low < error.value < error.high and record.scores.estimate is None
    assert record.training.temperature is None


def test_selection_goes_by_held_out_labels_else_by_the_sources_validation_rows():
    def seen(step: int, floor: float | None = None, whose: FloorOf = "source") -> Evidence:
        return Evidence(step, source_val=0.5, floor=floor, floor_rows=10, risk=1.0, floor_of=whose)

    assert default([seen(1, 0.5), seen(2, 0.8), seen(3, 0.6)]) == 1
    assert default([seen(1, 0.3, "granted"), seen(2, 0.6, "granted"), seen(3, 0.5, "granted")]) == 1
    assert default([seen(1), seen(2)]) == 1  # nothing is known: the last


def test_a_run_with_granted_labels_holds_some_out(tmp_path):
    record = run(tmp_path, "granted=25")
    assert record.evidence and record.evidence["floor_of"] == "granted" and record.data.granted == 25


def test_classes_are_nowhere_in_the_record(tmp_path):
    record = run(tmp_path)
    diagnosis = record.diagnosis
    assert diagnosis and diagnosis.after and diagnosis.after.a_distance
    assert (diagnosis.histogram, diagnosis.classes, diagnosis.priors, diagnosis.bound) == (None,) * 4
    assert record.data.classes == []
    lines = [json.loads(line) for line in (record.folder / "curve.jsonl").read_text().splitlines()]
    assert all(line["information"] is None and line["risk"] > 0 for line in lines if "risk" in line)


def test_a_loaded_model_predicts_in_the_quantitys_unit_and_exports(tmp_path):
    record = run(tmp_path)
    trained = tl_runner.load(record.folder)
    assert trained.classes == () and record.data.quantity
    x = torch.randn(20, 10)
    found = trained.model(x)
    assert found.shape == (20, 1)
    values = load_file(record.folder / "diagnosis.safetensors")["labels"]
    assert abs(found.mean().item() - values.mean()) < 3 * values.std()
    tried = samples(trained, record, 20)
    assert export(trained, tried.x, "pt2", tmp_path / "model.pt2", {}).difference < 1e-5


def test_a_run_is_told_in_words_of_quantities(tmp_path):
    console = Console(width=160, record=True, force_terminal=False)
    record = run(tmp_path)
    console.print(*result(record, None), sep="\n")
    told = console.export_text()
    assert "R²" in told and "RMSE" in told and "always saying" in told and "accuracy" not in told
    console.print(*side_by_side(record, record), sep="\n")


def test_the_report_compares_r2_and_draws_values(tmp_path):
    records = [run(tmp_path, f"seed={seed}") for seed in (0, 1, 2)]
    records += [made(tmp_path, *WORDS, "method=coral", f"seed={seed}") for seed in (0, 1, 2)]
    frame = build_leaderboard(records)
    row = frame[frame["method"] == "coral"].iloc[0]
    assert set(frame["score"]) == {"r2"} and np.isfinite(row["p"])
    expected = np.mean([r.headline or 0.0 for r in records if r.choices["method"] == "coral"])
    assert row["target"] == pytest.approx(expected)
    ((_, groups),) = group_by_pair(records, frame, []).items()
    drawn = figure(groups)
    assert drawn and len(drawn.panels) == 2


def test_a_target_without_labels_gets_values_for_every_row(tmp_path):
    rows = ["a,b,y", *(f"{i / 7},{(i * 13) % 5},{i + (i * 13) % 5}" for i in range(60))]
    (tmp_path / "s.csv").write_text("\n".join(rows))
    (tmp_path / "t.csv").write_text("\n".join(["a,b", *(f"{i / 7 + 1},{(i * 11) % 5}" for i in range(50))]))
    files = [f"dataset.source={tmp_path}/s.csv", f"dataset.target={tmp_path}/t.csv", "dataset.label=y"]
    words = [
        "dataset=table",
        *files,
        "dataset.task=regression",
        "dataset.numeric=[b]",
        "backbone=mlp",
        "train.steps=40",
    ]
    record = made(tmp_path, *words, "method=mmd")
    assert record.headline is None and record.scores and record.scores.estimated_error
    with (record.folder / "predictions.csv").open() as file:
        found = [*csv.reader(file)]
    assert found[0] == ["path", "predicted"] and len(found) == 51 and all(np.isfinite(float(v)) for _, v in found[1:])
