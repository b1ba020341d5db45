"""tl-report diff: what two records differ in, row by row disagreement, and the sentence on the cause."""

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file
from support.made_up_runs import ROWS, made_up

from tl_runner.cli.tl_report import main
from tl_runner.report.differences import (
    Disagreement,
    causes_of,
    differences,
    disagreement,
    explanation,
    flatten,
    scores,
)
from tl_runner.report.side_by_side import format_disagreement, side_by_side
from tl_runner.storage.record import RunRecord, read_record


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    return read_record(made_up(tmp_path / "outputs", "mmd", 0, weight=1.0).folder / "run.json")


@pytest.fixture
def other(tmp_path: Path) -> RunRecord:
    return read_record(made_up(tmp_path / "outputs", "mmd", 0, weight=2.0).folder / "run.json")


def changed(run: RunRecord, **parts: dict[str, Any]) -> RunRecord:
    """The same run, with entries of its configuration or fields of some of its sections changed."""
    sections = {name: getattr(run, name) for name in parts}
    return replace(
        run,
        **{
            name: {**sections[name], **entries} if name == "config" else replace(sections[name], **entries)
            for name, entries in parts.items()
        },
    )


def said(one: RunRecord, two: RunRecord) -> str:
    return explanation(differences(one, two), scores(one, two), disagreement(one, two))


def test_configurations_are_compared_key_by_key(run, other):
    found = differences(run, other)
    assert list(found) == ["configuration"]
    assert found["configuration"] == [("method.weight", 1.0, 2.0)]
    assert dict(flatten({"a": {"b": 1, "c": [2]}, "d": None})) == {"a.b": 1, "a.c": [2], "d": None}
    assert differences(run, changed(run, config={"train": {"steps": 90.0}})) == {}  # 90 and 90.0 are one number
    gone = changed(run, config={"train": {}})
    assert differences(run, gone)["configuration"] == [("train.steps", 90, None)]


def test_each_thing_has_its_kind(run):
    elsewhere = changed(
        run, environment={"commit": "ffff", "device": "cuda:0", "python": "3.12.1", "threads": 2},
        data={"fingerprint": {"source": "aaaa0", "target": "cccc"}, "files": "abc"},
        config={"save": False, "threads": 2},
    )  # fmt: skip
    found = {kind: [each.what for each in different] for kind, different in differences(run, elsewhere).items()}
    assert found == {
        "keeping": ["save"],
        "code": ["commit"],
        "data": ["fingerprint.target", "files"],
        "libraries": ["python"],
        "machine": ["device", "threads"],
    }
    own = replace(run, id="0000000000")  # its id takes in the sources of a user's own files, the configuration does not
    assert [each.what for each in differences(run, own)["code"]] == ["own files or weights (in the id)"]


def test_scores_are_subtracted_in_points(run, other):
    other = changed(other, scores={"target": {"accuracy": 0.9, "macro_f1": 0.9, "ece": 0.1}})
    found = {score.what: score for score in scores(run, other)}
    mine, theirs = (each.scores.target["accuracy"] for each in (run, other) if each.scores)
    assert found["target accuracy"] == ("target accuracy", mine, theirs)
    assert found["target accuracy"].points == pytest.approx(90 - 100 * mine) and mine < 0.89
    assert scores(run, replace(other, scores=None))[0].points is None
    assert scores(replace(run, scores=None), replace(other, scores=None)) == []


def test_rows_are_counted_on_which_the_selected_checkpoints_disagree(run, other):
    rows = load_file(run.folder / "predictions.safetensors")
    changed_rows = {name: each.copy() for name, each in rows.items()}
    changed_rows["step_90"][:7] = np.roll(changed_rows["step_90"][:7], 1, axis=1)
    changed_rows["step_30"][:] = 0  # another step counts for nothing
    save_file(changed_rows, other.folder / "predictions.safetensors")
    apart = disagreement(run, other)
    assert (apart.rows, apart.of) == (7, ROWS)
    assert apart.furthest == pytest.approx(abs(rows["step_90"] - changed_rows["step_90"]).max())
    assert format_disagreement(apart) == f"other classes are predicted on 7 of {ROWS} target test rows"
    assert disagreement(run, run) == Disagreement(0, ROWS, 0.0)
    assert "equal to the last bit" in format_disagreement(disagreement(run, run))


def test_rows_of_other_splits_are_not_compared(run, other):
    """The fingerprint is that of all rows; which of them are the test split, the seed says."""
    assert "other target test rows" in disagreement(run, replace(other, seed=1)).why
    assert "other target test rows" in disagreement(run, changed(other, data={"fingerprint": {"target": "x"}})).why
    assert "no selected checkpoint" in disagreement(run, replace(other, scores=None)).why
    (other.folder / "predictions.safetensors").unlink()
    assert "can't be read" in disagreement(run, other).why


def test_one_cause_is_named(run, other):
    assert "Only the configuration differs (method.weight)" in said(run, other)
    seeded = changed(replace(run, seed=1), config={"seed": 1}, data={"fingerprint": {"source": "x", "target": "y"}})
    assert said(run, seeded).startswith("Only the seed differs")  # the data follow from it
    assert "other data" in said(run, changed(run, data={"fingerprint": {"source": "x", "target": "bbbb0"}}))
    assert "other code (tl_runner)" in said(
        run, changed(run, environment={"versions": {"tl_runner": "9", "torch": "2.15.0"}})
    )
    assert "Only versions of libraries differ (torch)" in said(
        run, changed(run, environment={"versions": {"tl_runner": "0.1.0", "torch": "3"}})
    )
    threads = said(run, changed(run, environment={"threads": 2}, config={"threads": 2}))
    assert "Identical but for the machine (threads)" in threads and "last bits" in threads
    part = changed(run, config={"method": {"_target_": "m.dann", "alpha": 1}})
    assert "(another method)" in said(run, part)


def test_of_several_causes_none_is_named(run, other):
    both = changed(other, environment={"python": "3.12.1", "threads": 2})
    text = said(run, both)
    assert text.startswith("Several things differ, the configuration, the libraries and the machine: none")
    assert causes_of(differences(run, both)) == ["the configuration", "the libraries", "the machine"]
    moved = changed(
        run, config={"dataset": {"samples": 500}}, data={"rows": {"source": [1, 1, 1], "target": [1, 1, 1]}}
    )
    assert causes_of(differences(run, moved)) == ["the configuration"]  # other options of the data set, other data
    assert causes_of(differences(run, changed(run, config={"save": False}))) == []


def test_no_cause_is_said_too(run, other):
    assert "the same run, made twice" in said(run, run)
    hidden = changed(run, scores={"target": {"accuracy": 0.01, "macro_f1": 0.01, "ece": 0.5}})
    assert "the cause is not on record" in said(run, hidden)
    assert "no scores to be explained" in said(run, replace(other, scores=None))
    quantity = {name: {"r2": 0.5} for name in ("target", "source", "last", "oracle")}
    assert "the other a quantity" in said(run, changed(other, scores=quantity))
    assert said(run, changed(run, environment={"python": "3.12.1"})).endswith("The scores are equal all the same.")


def test_the_tables_hold_names_as_they_are(run, other):
    text = StringIO()
    odd = changed(other, config={"method": {"_target_": "m.mmd", "weight": "[red]x[/red]"}})
    Console(file=text, width=200).print(*side_by_side(run, odd), sep="\n")
    assert "[red]x[/red]" in text.getvalue() and "the same in both: code, data, libraries, machine" in text.getvalue()


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """tl-report with these words, in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["tl-report", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_compares_and_refuses(run, other, monkeypatch, capsys):
    assert typed(monkeypatch, "diff", str(run.folder), str(other.folder / "run.json")) == 0
    assert "method.weight" in capsys.readouterr().out
    for words, why in (
        ((str(run.folder),), "diff compares two runs"),
        ((str(run.folder), f"{other.folder}x"), f"did you mean '{other.folder}'"),
        ((str(run.folder), str(run.folder.parent)), "2 runs lie below it"),
        ((str(run.folder), str(other.folder / "curve.jsonl")), "can't be read"),
    ):
        assert typed(monkeypatch, "diff", *words) == 1
        stderr = " ".join(capsys.readouterr().err.split())
        assert stderr.count("error: ") == 1 and why in stderr, stderr


def test_a_folder_that_is_named_diff_is_spelled_otherwise(run, monkeypatch, capsys):
    run.folder.parents[2].rename("diff")
    assert typed(monkeypatch, "diff") == 1
    assert "the folder of that name is ./diff" in " ".join(capsys.readouterr().err.split())
    assert typed(monkeypatch, "./diff") == 0


def test_a_page_is_written_beside_the_table_and_over_nothing_else(run, other, monkeypatch, capsys):
    assert typed(monkeypatch, "outputs", "--html", "report.html") == 0
    streams = capsys.readouterr()
    assert "mmd" in streams.out and "the page is report.html" in streams.err
    assert Path("report.html").read_text().startswith("<!doctype html>")
    before = (run.folder / "run.json").read_bytes()
    for name, why in ((str(run.folder / "run.json"), "ends in .html"), ("nowhere/x.html", "no folder nowhere")):
        assert typed(monkeypatch, "outputs", "--html", name) == 1
        assert why in " ".join(capsys.readouterr().err.split())
    assert (run.folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("words", [["--help"], ["diff", "--help"]])
def test_help_comes_at_once(words):
    code = (
        f"import sys; sys.argv = ['tl-report', *{words}]\n"
        "from tl_runner.cli.tl_report import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pandas', 'sklearn', 'numpy', 'rich', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_score_is_chosen_for_the_tables_and_an_unknown_one_is_refused(run, monkeypatch, capsys):
    assert typed(monkeypatch, "outputs", "--score", "macro_f1") == 0
    assert "Macro-F1 (the mean over classes) on the target's test split" in " ".join(capsys.readouterr().out.split())
    assert typed(monkeypatch, "outputs", "--score", "ece") == 2
    assert "accuracy" in capsys.readouterr().err


def test_what_a_method_starts_from_follows_from_the_method(run):
    other = changed(run, config={"method": {"_target_": "m.finetune"}}, training={"start": "source"})
    assert causes_of(differences(run, other)) == ["the configuration"]


def test_how_seeds_differ_is_no_difference_in_the_data(run):
    old = changed(run, data={"seeds": None})
    assert "data" not in differences(run, old)
