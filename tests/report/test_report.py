"""The leaderboard against means and deviations computed by hand."""

import json
from dataclasses import replace
from io import StringIO
from math import isnan

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from scipy import stats
from support.made_up_runs import ROWS, made_up

from tl_runner.report import tables
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import RunRecord, Status, find_oracle_trials, read_records
from tl_runner.storage.sections import DataInfo, Environment, Scores


def run(method: str, seed: int, target: float | None, *, granted="0", status: Status = "ok", **config) -> RunRecord:
    scores = (
        None
        if target is None
        else Scores(
            source=None if method == "new_head" else {"accuracy": 0.9, "macro_f1": 0.9, "ece": 0.1},
            target={"accuracy": target, "macro_f1": target, "ece": 0.1},
            last={"step": 30, "accuracy": target - 0.1},
            selected={"step": 20, "accuracy": target, "macro_f1": target},
            oracle={"step": 10, "accuracy": target + 0.1},
        )
    )
    return RunRecord(
        id=f"{method}{seed}{config}",
        setting=f"{method}{config}",
        choices={"dataset": "digits", "backbone": "small", "method": method},
        seed=seed,
        granted=granted,
        config={"method": {"_target_": method}, **config},
        status=status,
        scores=scores,
        seconds=2.0 * (seed + 1),
    )


RUNS = [
    run("mmd", 0, 0.7),
    run("mmd", 1, 0.8),
    run("mmd", 2, None, status="diverged"),
    run("mmd", 3, None, granted="auto", status="failed"),
    run("source_only", 0, 0.6),
    run("source_only", 1, None, status="running"),
    run("broken", 0, None, status="failed"),
]


def test_means_and_deviations_are_over_the_seeds_of_a_setting():
    table = build_leaderboard(RUNS).set_index("method")
    assert list(table.index) == ["mmd", "source_only", "broken"]  # by target accuracy, what has none last
    mmd = table.loc["mmd"]
    assert (mmd["n"], mmd["failed"], mmd["unfinished"], mmd["granted"]) == (2, 2, 0, "0")
    assert mmd["target"] == pytest.approx(0.75)
    assert mmd["target_sd"] == pytest.approx(0.05 * 2**0.5)  # n − 1
    assert (mmd["last"], mmd["oracle"], mmd["seconds"]) == (pytest.approx(0.65), pytest.approx(0.85), 3.0)
    assert (table.loc["source_only", "n"], table.loc["source_only", "unfinished"]) == (1, 1)
    assert (table.loc["broken", "n"], table.loc["broken", "failed"]) == (0, 1)


def test_settings_of_one_name_are_told_apart_by_what_differs():
    runs = [
        run("mmd", 0, 0.7, train={"steps": 20, "batch": 8}),
        run("mmd", 0, 0.8, train={"steps": 300, "batch": 8}),
    ]
    assert list(build_leaderboard(runs)["variant"]) == ["train.steps=300", "train.steps=20"]


def test_a_method_whose_head_is_new_has_no_source_accuracy():
    (row,) = build_leaderboard([run("new_head", 0, 0.5)]).to_dict("records")
    assert isnan(row["source"]) and row["target"] == 0.5


def test_the_table_says_how_many_runs_and_how_many_failed():
    text = StringIO()
    Console(file=text, width=150).print(
        *tables.render_leaderboard(build_leaderboard(RUNS), [], ["a [red] word"], width=150)
    )
    assert "3 settings, 7 runs, 3 failed" in text.getvalue()
    assert "75.0 ± 7.1" in text.getvalue() and "0 (+1 unfinished)" in text.getvalue()
    assert "warning: a [red] word" in text.getvalue()


def test_long_names_leave_room_for_figures():
    several = [run("mmd", 0, 0.7, train={f"a_long_key_{n}": which for n in range(3)}) for which in (1, 2)]
    text = StringIO()
    Console(file=text, width=70).print(
        *tables.render_leaderboard(build_leaderboard(several), [], [], width=70), sep="\n"
    )
    assert "target, %" in text.getvalue() and "70.0" in text.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_narrow_table_keeps_what_matters_most(width):
    text = StringIO()
    Console(file=text, width=width).print(
        *tables.render_leaderboard(build_leaderboard(RUNS), [], [], width=width), sep="\n"
    )
    drawn = [line for line in text.getvalue().splitlines() if line.startswith(("│", "┃"))]
    assert all(len(line) <= width for line in drawn)
    assert all(name in drawn[0] for name in ("method", "n", "target"))
    assert (" s " in drawn[0]) == (width == 200)  # there is room for seconds, which tell little


def test_no_runs_make_an_empty_table():
    assert build_leaderboard([]).empty


def test_settings_that_a_search_tried_by_target_labels_are_marked(tmp_path):
    trials = [{"runs": ["outputs/runs/digits/mmd-small-s0-abc"]}, {"runs": []}]
    for name, objective in (("a", "oracle"), ("b", "floor")):
        (tmp_path / name).mkdir()
        shown = trials if objective == "oracle" else [{"runs": ["x/mmd-small-s0-def"]}]
        (tmp_path / name / "study.json").write_text(json.dumps({"objective": objective, "trials": shown}))
    (tmp_path / "study.json").write_text("[]")
    assert find_oracle_trials([tmp_path]) == {"abc"}
    runs = [replace(run("mmd", 0, 0.5), id=name, setting=name) for name in ("abc", "def")]
    marked = {row["setting"]: row["variant"] for row in build_leaderboard(runs, {"abc"}).to_dict("records")}
    assert marked == {"abc": "oracle search", "def": ""}


def of_one_test_set(outputs, seeds=range(4), **options) -> list[RunRecord]:
    """Runs whose test rows are the same at every seed, in one order."""
    for seed in seeds:
        for method in ("source_only", "mmd"):
            made_up(outputs, method, seed, rows_of=0, kind="fixed", **options)
    return read_records([outputs])[0]


def test_where_seeds_share_a_test_set_the_interval_has_the_rows_from_the_runs_predictions(tmp_path):
    """By hand: s² over seeds with Student's quantile, and what the rows add, of a table of rows × seeds."""
    (found,) = [
        row for row in build_leaderboard(of_one_test_set(tmp_path)).to_dict("records") if row["method"] == "mmd"
    ]  # fmt: skip
    assert (found["seed_kind"], found["test_rows"], found["by_rows"]) == ("fixed", ROWS, True)
    hits = {}
    for run in read_records([tmp_path])[0]:
        said = load_file(run.folder / "predictions.safetensors")["step_90"].argmax(-1)
        hits[run.choices["method"], run.seed] = said == load_file(run.folder / "diagnosis.safetensors")["labels"]
    table = np.array([hits["mmd", seed].astype(float) - hits["source_only", seed] for seed in range(4)])
    gains, rest = table.mean(1), table - table.mean(1, keepdims=True)
    of_rows = 4 * (rest.mean(0) ** 2).sum() / (ROWS - 1)
    residual = ((rest - rest.mean(0)) ** 2).sum() / (3 * (ROWS - 1))
    rows = max(0.0, (of_rows - residual) / (4 * ROWS))
    t_seeds, t_rows = stats.t.ppf(0.975, [3, ROWS - 1])
    half = np.sqrt(t_seeds**2 * max(gains.var(ddof=1), 1 / ROWS**2 / 6) / 4 + t_rows**2 * rows)
    assert (found["low"], found["high"]) == pytest.approx((gains.mean() - half, gains.mean() + half))


def test_without_labels_accuracies_are_compared_as_independent_and_other_scores_not_at_all(tmp_path):
    found = of_one_test_set(tmp_path, diagnosed=False)
    (by_accuracy,) = [row for row in build_leaderboard(found).to_dict("records") if row["method"] == "mmd"]
    assert by_accuracy["by_rows"] is False and not isnan(by_accuracy["low"])
    (by_f1,) = [row for row in build_leaderboard(found, score="macro_f1").to_dict("records") if row["method"] == "mmd"]
    assert isnan(by_f1["low"]) and by_f1["verdict"] == "" and not isnan(by_f1["difference"])
    with_labels = of_one_test_set(tmp_path / "more")
    (narrow,) = [row for row in build_leaderboard(with_labels).to_dict("records") if row["method"] == "mmd"]
    assert narrow["high"] - narrow["low"] < by_accuracy["high"] - by_accuracy["low"]
    (by_f1,) = [
        row for row in build_leaderboard(with_labels, score="macro_f1").to_dict("records") if row["method"] == "mmd"
    ]
    assert not isnan(by_f1["low"])


def drawn(record: RunRecord) -> str:
    text = StringIO()
    Console(file=text, width=150).print(*tables.result(record, None), sep="\n")
    return text.getvalue()


def test_a_run_below_its_most_frequent_class_says_so_in_its_table():
    low = run("mmd", 0, 0.31)
    assert low.scores is not None
    low.seconds, low.environment = 1.0, Environment(device="cpu")
    low.data = DataInfo(domains={"source": "a", "target": "b"}, classes=["faulty", "ok"])
    low.scores.majority = {"class": 1, "accuracy": 0.7, "balanced": 0.5, "macro_f1": 0.41}
    shown = drawn(low)
    assert "always saying 'ok', the most frequent class" in shown and "70.0 %" in shown and "50.0 %" in shown
    assert "accuracy below always saying 'ok'" in shown
    low.scores.selected["accuracy"] = 0.7
    assert "accuracy below" not in drawn(low)
    for side in (low.scores.source, low.scores.target):
        side.pop("ece")  # of a head without probabilities
    assert "10.0 %" not in drawn(low) and "–" in drawn(low)
