"""The leaderboard against means and deviations computed by hand."""

import json
from dataclasses import replace
from io import StringIO
from math import isnan

import pytest
from rich.console import Console

from tl_runner.report import tables
from tl_runner.report.leaderboard import leaderboard
from tl_runner.store import RunRecord, Status, searched_by_labels


def run(method: str, seed: int, target: float | None, *, granted="0", status: Status = "ok", **config) -> RunRecord:
    scores = (
        None
        if target is None
        else {
            "source": None if method == "new_head" else {"accuracy": 0.9, "macro_f1": 0.9, "ece": 0.1},
            "target": {"accuracy": target, "macro_f1": target, "ece": 0.1},
            "last": {"step": 30, "accuracy": target - 0.1},
            "selected": {"step": 20, "accuracy": target},
            "oracle": {"step": 10, "accuracy": target + 0.1},
        }
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
    table = leaderboard(RUNS).set_index("method")
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
    assert list(leaderboard(runs)["variant"]) == ["train.steps=300", "train.steps=20"]


def test_a_method_whose_head_is_new_has_no_source_accuracy():
    (row,) = leaderboard([run("new_head", 0, 0.5)]).to_dict("records")
    assert isnan(row["source"]) and row["target"] == 0.5


def test_the_table_says_how_many_runs_and_how_many_failed():
    text = StringIO()
    Console(file=text, width=150).print(*tables.leaderboard(leaderboard(RUNS), [], ["a [red] word"], width=150))
    assert "3 settings, 7 runs, 3 failed" in text.getvalue()
    assert "75.0 ± 7.1" in text.getvalue() and "0 (+1 unfinished)" in text.getvalue()
    assert "warning: a [red] word" in text.getvalue()


def test_long_names_leave_room_for_figures():
    several = [run("mmd", 0, 0.7, train={f"a_long_key_{n}": which for n in range(3)}) for which in (1, 2)]
    text = StringIO()
    Console(file=text, width=70).print(*tables.leaderboard(leaderboard(several), [], [], width=70), sep="\n")
    assert "target, %" in text.getvalue() and "70.0" in text.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_narrow_table_keeps_what_matters_most(width):
    text = StringIO()
    Console(file=text, width=width).print(*tables.leaderboard(leaderboard(RUNS), [], [], width=width), sep="\n")
    drawn = [line for line in text.getvalue().splitlines() if line.startswith(("│", "┃"))]
    assert all(len(line) <= width for line in drawn)
    assert all(name in drawn[0] for name in ("method", "n", "target"))
    assert (" s " in drawn[0]) == (width == 200)  # there is room for seconds, which tell little


def test_no_runs_make_an_empty_table():
    assert leaderboard([]).empty


def test_settings_that_a_search_tried_by_target_labels_are_marked(tmp_path):
    trials = [{"runs": ["outputs/runs/digits/mmd-small-s0-abc"]}, {"runs": []}]
    for name, objective in (("a", "oracle"), ("b", "floor")):
        (tmp_path / name).mkdir()
        shown = trials if objective == "oracle" else [{"runs": ["x/mmd-small-s0-def"]}]
        (tmp_path / name / "study.json").write_text(json.dumps({"objective": objective, "trials": shown}))
    (tmp_path / "study.json").write_text("[]")
    assert searched_by_labels([tmp_path]) == {"abc"}
    runs = [replace(run("mmd", 0, 0.5), id=name, setting=name) for name in ("abc", "def")]
    marked = {row["setting"]: row["variant"] for row in leaderboard(runs, {"abc"}).to_dict("records")}
    assert marked == {"abc": "oracle search", "def": ""}
