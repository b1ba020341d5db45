"""The last lines of a run: what it gained, or the command that says so."""

import io
import shlex
from collections.abc import Callable
from dataclasses import replace

from conftest import Said
from rich.console import Console
from support.scored_runs import run

from tl_runner.report.next_steps import list_next_steps
from tl_runner.report.tables import print_result
from tl_runner.storage.record import RunRecord

QUICK = ["backbone=mlp", "dataset=blobs", "train=tiny", "pretrain=tiny", "diagnose=none", "threads=1"]


def told(record: RunRecord, baseline: RunRecord | None = None, words: str = "") -> list[str]:
    return list_next_steps(record, baseline, words.split())[1:]


def test_without_a_baseline_the_command_that_makes_it_is_told():
    words = "method=mmd method.weight=3 +method.layers=[conv2] backbone=small seed=4"
    assert told(run("mmd", 0, 0.8, 0), None, words) == [
        "no baseline to compare with yet; to see what mmd gains:",
        "tl-run backbone=small seed=4 method=source_only",
    ]
    assert told(run("mmd", 0, 0.8, 0))[-1] == "tl-run method=source_only"


def test_labels_that_auto_granted_are_granted_to_the_baseline_too():
    found = [
        told(run("finetune", 0, 0.8, granted), None, said)[-1] for granted, said in (("auto", ""), (5, "granted=5"))
    ]
    assert found == ["tl-run granted=10 method=source_only", "tl-run granted=5 method=source_only"]
    assert told(replace(run("finetune", 0, 0.8), granted="≤10"))[-1] == "tl-run method=source_only"


def test_with_a_baseline_the_gain_is_told_and_how_to_trust_it():
    lines = told(run("mmd", 0, 0.801, 0), run("source_only", 0, 0.65, 0), "backbone=small seed=3 force=true")
    assert lines[0] == "+15.1 points over source_only, with one seed. To test that with five:"
    assert lines[1] == "tl-run -m backbone=small method=source_only,mmd seed=0,1,2,3,4 && tl-report"
    assert told(run("mmd", 0, 0.5, 0), run("source_only", 0, 0.65, 0))[0].startswith("-15.0 points over")


def test_the_method_is_repeated_with_the_options_that_it_had():
    words = "method=mmd method.weight=5 backbone=small"
    assert told(run("mmd", 0, 0.8, 0), run("source_only", 0, 0.65, 0), words)[1] == (
        "tl-run -m backbone=small method=source_only seed=0,1,2,3,4"
        " && tl-run -m method=mmd method.weight=5 backbone=small seed=0,1,2,3,4 && tl-report"
    )


def test_what_labels_gained_is_no_gain_of_the_method():
    finetuned, baseline = run("finetune", 0, 0.8, 5), run("source_only", 0, 0.65, 0)
    finetuned = replace(finetuned, data=replace(finetuned.data, granted=50))
    assert told(finetuned, baseline, "granted=5") == [
        "no baseline with as many labels to compare with yet; to see what finetune gains:",
        "tl-run granted=5 method=source_only",
    ]


def test_the_baseline_itself_is_called_so():
    assert told(run("source_only", 0, 0.65, 0)) == [
        "source_only is what other methods are compared with: tl-report has the table"
    ]


def test_a_command_is_one_line_however_narrow_the_terminal():
    text = io.StringIO()
    words = ["backbone=small", "dataset=digits", "train=tiny", "pretrain=tiny"]
    print_result(Console(file=text, width=40), replace(run("mmd", 0, 0.8, 0), seconds=1.0), None, words)
    assert text.getvalue().splitlines()[-1] == f"tl-run {' '.join(words)} method=source_only"


def test_the_command_that_is_told_makes_the_baseline_and_the_gain_follows(
    typed: Callable[..., Said], tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*QUICK, "method=mmd", "method.weight=3"]
    said = " ".join(typed("tl-run", *words).out.split())
    assert typed(*shlex.split(said.partition("to see what mmd gains: ")[2])).code == 0
    again = " ".join(typed("tl-run", *words).out.split())
    assert "points over source_only, with one seed." in again and "already complete" in again
