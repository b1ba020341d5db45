"""A search for hyper-parameters: its grammar, its studies on disk, its runs, which are real ones, and the command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from math import log, log10
from pathlib import Path
from statistics import fmean
from typing import Any, get_args, get_type_hints

import pytest
from conftest import command, composed
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from safetensors.torch import load_file
from support.failing import exhausted
from support.refusals import told

from tl_runner.config import Settings
from tl_runner.engine.job import Job, Outcome, run_job
from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord, describe_run, read_records
from tl_runner.storage.sections import Metrics, Scores
from tl_runner.sweep.space import Choice, NumberRange, parse_space

pytest.importorskip("optuna")

from tl_runner.sweep.agreed import compute_agreements
from tl_runner.sweep.findings import format_findings as in_words
from tl_runner.sweep.findings import summarise_study
from tl_runner.sweep.search import Search, list_midway_values, measure_objective
from tl_runner.sweep.study import Study, state
from tl_runner.sweep.study_spec import OBJECTIVES, SearchOptions, specify_study

TINY = ["train=tiny", "dataset=blobs", "backbone=mlp", "dataset.samples=300", "device=cpu", "threads=1"]
RATE = "optimizer.lr=tag(log, interval(1e-3, 1e-1))"
COMMAND = ["-m", "hydra/sweeper=tl_optuna", *TINY]


def parsed(*words: str) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def search(
    outputs: Path,
    *words: str,
    trials: int = 4,
    sampler: str = "random",
    startup: int = 5,
    pruner: str = "none",
    name: str | None = None,
    objective: str = "floor",
) -> Search:
    """The search for these words, a study for each swept method, before anything is run."""

    def order(words: Sequence[str]) -> Job:
        return Job(describe_run(*composed(*words, f"outputs={outputs}")))

    studies, way = [], SearchOptions(trials, sampler, startup, pruner, 0)
    for part in parse_space(parsed(*TINY, *words)).by("method").values():
        first = [d.typed(d.values[0]) if isinstance(d, Choice) else d.typed(d.low) for d in part.dimensions]
        probe = order([*part.fixed, *first]).record
        studies.append(Study(specify_study(part, probe, objective, way, name)))
    return Search(studies, order, lambda: False)


def ended(searching: Search) -> Iterator[Outcome]:
    """Each outcome of the search's jobs, which are made here, one after the other."""

    def show(points: Any, record: RunRecord) -> RunRecord:
        while True:
            try:
                next(points)
            except StopIteration as end:
                return end.value

    for job in searching.jobs():
        yield searching.take(run_job(job.job, lambda job=job: searching.unpromising(job.job), show))


def searched(outputs: Path, *words: str, **how: Any) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """What each study of a whole search has found, and the outcomes of its jobs."""
    searching = search(outputs, *words, **how)
    outcomes = [*ended(searching)]
    return [summarise_study(study, ["tl-run", *words]) for study in searching.studies], outcomes


@pytest.mark.parametrize(
    ("word", "dimension"),
    [
        ("k=1,2", Choice("k", ("1", "2"))),
        ("+k=a,null,'b c',[1,2]", Choice("+k", ("a", "null", "'b c'", "[1,2]"))),
        ("k=interval(0,1)", NumberRange("k", 0.0, 1.0)),  # Hydra makes numbers of them, as hydra-optuna-sweeper has it
        ("k=int(interval(1,8))", NumberRange("k", 1, 8, 1)),
        ("k=tag(log, interval(1e-4, 1e-1))", NumberRange("k", 1e-4, 1e-1, None, True)),
        ("k=tag(log, int(interval(1, 100)))", NumberRange("k", 1, 100, 1, True)),
        ("k=range(5)", NumberRange("k", 0, 4, 1)),  # as a sweep has it; hydra-optuna-sweeper adds the end
        ("k=range(9,0,-3)", NumberRange("k", 3, 9, 3)),
        ("k=range(0,1,0.25)", NumberRange("k", 0.0, 0.75, 0.25, False, (0.0, 0.25, 0.5, 0.75))),
    ],
)
def test_the_grammar_of_a_sweep_is_that_of_a_space(word, dimension):
    assert parse_space(parsed(word)).dimensions == (dimension,)
    assert [type(part) for part in parse_space(parsed(word)).dimensions[0]] == [type(part) for part in dimension]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("k=shuffle(1,2)", "leave shuffle\\(\\) out"),
        ("k=shuffle(range(4))", "leave shuffle\\(\\) out"),
        ("k=tag(lgo, interval(1,2))", "'lgo' means nothing here"),
        ("k=tag(log, choice(1,2))", "a choice has no scale"),
        ("k=tag(log, range(1.0,5.0))", "say tag\\(log, interval"),
        ("k=tag(log, interval(0,1))", "begins above 0"),
        ("k=interval(2,1)", "must be below"),
        ("k=interval(0,inf)", "both finite"),
        ("k=range(3,3)", "no value"),
        ("seed=interval(0,3)", "seeds are not searched"),
        ("dataset=blobs,digits", "the same data"),
        ("dataset.samples=range(9)", "the same data"),
        ("granted=0,5", "the same data and labels"),
        ("device=cpu,cuda", "not to change"),
        ("tracker=none,mlflow", "not to change"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_words(word, says):
    with pytest.raises(UserError, match=says):
        parse_space(parsed(word))


def test_one_value_is_fixed_seeds_are_listed_and_the_later_word_counts():
    found = parse_space(parsed("a=1,2", "b=choice(3)", "~c", "seed=range(3)", "a=7", "d='x,y'"))
    assert found.fixed == ("b=3", "~c", "a=7", "d='x,y'")
    assert found.seeds == ("seed=0", "seed=1", "seed=2") and not found.dimensions
    parts = parse_space(parsed("method=mmd,dann", "k=1,2")).by("method")
    assert {name: part.fixed for name, part in parts.items()} == {"mmd": ("method=mmd",), "dann": ("method=dann",)}
    assert all([d.key for d in part.dimensions] == ["k"] for part in parts.values())


def test_a_drawn_number_is_typed_as_a_sweep_has_it():
    (steps,) = parse_space(parsed("k=range(0,1,0.1)")).dimensions
    assert isinstance(steps, NumberRange) and steps.typed(0.7) == "k=0.7000000000000001"  # as 7 × 0.1 comes to
    (whole,) = parse_space(parsed("k=range(9)")).dimensions
    assert isinstance(whole, NumberRange) and whole.typed(3) == "k=3"


def test_what_is_drawn_stays_in_the_space(tmp_path):
    words = ["method.weight=range(0.5,2.5,0.5)", "train.batch=int(interval(16,18))", "augment=none,weak", RATE]
    searching = search(tmp_path, *words, trials=30)
    drawn = [dict(word.split("=") for word in asked[1]) for _ in range(30) if (asked := searching.studies[0].ask())]
    assert len(drawn) == 30 and searching.studies[0].ask() is None
    assert {each["method.weight"] for each in drawn} == {"0.5", "1.0", "1.5", "2.0"}
    assert {each["train.batch"] for each in drawn} == {"16", "17", "18"}
    assert {each["augment"] for each in drawn} == {"none", "weak"}
    rates = sorted(float(each["optimizer.lr"]) for each in drawn)
    assert rates[0] >= 1e-3 and rates[-1] <= 1e-1 and 4e-3 < rates[15] < 3e-2  # in the middle of a log scale


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.slow)])
def test_the_same_search_makes_the_same_trials_however_often_it_was_left(tmp_path, sampler):
    words = ["method.weight=choice(0.1,1,10)", RATE]
    (whole,), _ = searched(tmp_path / "a", *words, trials=6, sampler=sampler, startup=3)
    for trials in (1, 4):
        searched(tmp_path / "b", *words, trials=trials, sampler=sampler, startup=3)
    left = ended(search(tmp_path / "b", *words, trials=6, sampler=sampler, startup=3))
    next(left)
    del left  # the sixth trial was not asked for, the fifth has ended
    begun = search(tmp_path / "b", *words, trials=6, sampler=sampler, startup=3)
    next(begun.jobs())  # the sixth was asked for, and its process killed
    (again,), outcomes = searched(tmp_path / "b", *words, trials=6, sampler=sampler, startup=3)
    assert len(outcomes) == 1 and again["counts"]["ok"] == 6
    assert [(t["parameters"], t["value"]) for t in again["trials"]] == [
        (t["parameters"], t["value"]) for t in whole["trials"]
    ]
    assert len({str(trial["parameters"]) for trial in whole["trials"]}) == 6  # no session draws what another drew
    assert searched(tmp_path / "b", *words, trials=6, sampler=sampler, startup=3)[1] == []


def test_tpe_learns_and_begins_at_random(tmp_path):
    drawn: dict[str, list[float]] = {}
    for sampler in ("tpe", "random"):
        (study,) = search(
            tmp_path, "optimizer.lr=tag(log, interval(1e-6, 1))", trials=40, sampler=sampler, name=sampler
        ).studies
        while asked := study.ask():
            trial, (word,) = asked
            value = -abs(log10(float(word.partition("=")[2])) + 2)  # best at 0.01
            study.end(trial, "ok", value, information=0.0, runs=[])
            drawn.setdefault(sampler, []).append(value)
    assert drawn["tpe"][:5] == drawn["random"][:5]
    assert fmean(drawn["tpe"][20:]) > fmean(drawn["random"][20:]) + 0.5


def test_the_value_of_a_trial_is_the_mean_floor_over_the_seeds(tmp_path):
    (found,), outcomes = searched(tmp_path, RATE, "seed=3,4", trials=2)
    assert [outcome.record.seed for outcome in outcomes] == [3, 4, 3, 4]
    kept = [outcome.record.evidence["floor"] for outcome in outcomes if outcome.record.evidence]
    assert [trial["value"] for trial in found["trials"]] == pytest.approx([sum(kept[:2]) / 2, sum(kept[2:]) / 2])
    best = found["best"]
    assert best["command"].startswith("tl-run -m train=tiny") and best["command"].endswith("seed=3,4")
    assert all((Path(run) / "run.json").exists() for run in best["runs"]) and len(best["runs"]) == 2
    assert "mean of 2 seeds" in in_words(found)


def test_seeds_that_are_one_are_one_run(tmp_path):
    (found,), outcomes = searched(tmp_path, RATE, "seed=1,01", trials=1)
    assert len(outcomes) == 1 and found["counts"]["ok"] == 1


def test_of_equal_floors_the_more_informative_is_the_best(tmp_path):
    (study,) = search(tmp_path, RATE, trials=4).studies
    for value, information in ((0.9, 0.1), (0.9, 0.3), (0.9, 0.2), (0.8, 0.9)):
        asked = study.ask()
        assert asked
        study.end(asked[0], "ok", value, information=information, runs=[])
    best = study.best()
    assert best and best.number == 1


def test_a_run_that_was_made_before_is_told_at_once_and_two_trials_may_have_one_run(tmp_path):
    (found,), outcomes = searched(tmp_path, "optimizer.lr=0.01,0.02", trials=6)
    assert sorted(outcome.what for outcome in outcomes) == ["ran"] * 2 + ["skipped"] * 4
    assert found["counts"]["ok"] == 6
    searching = search(tmp_path / "other", "optimizer.lr=0.01,0.02", trials=6)
    jobs = [*searching.jobs()]  # all at once, as with six places
    assert len(jobs) == 2
    for job in jobs:
        searching.take(run_job(job.job, lambda: False, exhausted))
    assert [state(trial) for trial in searching.studies[0].trials()] == ["ok"] * 6


def test_failed_trials_count_and_their_other_seeds_are_left_out(tmp_path):
    (found,), outcomes = searched(tmp_path, "method.weight=-1.0,1.0", "seed=0,1", trials=4)
    failed = [trial for trial in found["trials"] if trial["parameters"]["method.weight"] == "-1.0"]
    assert failed and found["counts"]["failed"] == len(failed) and found["counts"]["ok"] == 4 - len(failed)
    assert len(outcomes) == 8 - len(failed)
    assert all("weight must be at least 0" in trial["why"] for trial in failed)
    (found,), _ = searched(tmp_path, "optimizer=sgd", "optimizer.lr=1e30,1e31", "train.clip=null", trials=2)
    assert found["counts"]["failed"] == 2 and found["best"] is None and "2 failed" in in_words(found)


def test_a_bad_run_is_stopped_by_its_own_curve_and_is_not_made_again(tmp_path):
    words = ["optimizer.lr=1e-9,1e-2", "method.weight=interval(0.1,1)", "train.steps=60", "train.evaluations=6"]
    (found,), outcomes = searched(tmp_path, *words, trials=10, startup=3, pruner="median")
    pruned = [trial for trial in found["trials"] if trial["state"] == "pruned"]
    assert pruned and {trial["parameters"]["optimizer.lr"] for trial in pruned} == {"1e-09"}
    assert min(trial["trial"] for trial in pruned) >= 3
    (stopped, *_) = [outcome for outcome in outcomes if outcome.what == "pruned"]
    curve = [json.loads(line) for line in (stopped.record.folder / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 20  # a third of its steps
    assert searched(tmp_path, *words, trials=10, startup=3, pruner="median")[1] == []
    assert not any(outcome.failed for outcome in outcomes)


@pytest.mark.slow
def test_who_is_pruned_does_not_depend_on_whether_the_run_was_stopped_in_time(tmp_path):
    words = ["optimizer.lr=1e-9,1e-2", "train.steps=60", "train.evaluations=6", "seed=0,1"]
    states = []
    for outputs in (tmp_path / "fresh", tmp_path / "made"):
        if outputs.name == "made":  # all runs are there before the search
            searched(outputs, *words, trials=5, name="before")
        (found,), _ = searched(outputs, *words, trials=7, startup=3, pruner="median")
        states.append([(trial["state"], trial["parameters"]) for trial in found["trials"]])
    assert states[0] == states[1] and any(name == "pruned" for name, _ in states[0])


def test_only_the_middle_of_a_curve_is_judged(tmp_path):
    record = describe_run(*composed(*TINY, "train.steps=60", f"outputs={tmp_path}"))
    assert list_midway_values(record, "floor") == []
    record.folder.mkdir(parents=True)
    points = [{"step": step, "terms": {}, "floor": step / 100} for step in (10, 20, 30, 60)]
    lines = [json.dumps(point) for point in [*points, {"step": 35, "terms": {"floor": 1}}, {"step": 40, "floor": None}]]
    (record.folder / "curve.jsonl").write_text("\n".join([*lines, '{"step": 50, "floor": 0.']))
    assert list_midway_values(record, "floor") == [(20, 0.2), (30, 0.3)]


@pytest.mark.slow
def test_every_method_gets_as_many_trials(tmp_path):
    found, outcomes = searched(tmp_path, "method=source_only,mmd", RATE, trials=3)
    assert [outcome.record.choices["method"] for outcome in outcomes] == ["source_only", "mmd"] * 3
    assert [each["counts"]["ok"] for each in found] == [3, 3] and len({each["name"] for each in found}) == 2
    rates = [[trial["parameters"] for trial in each["trials"]] for each in found]
    assert rates[0] == rates[1]  # what is drawn at random is the same for all
    assert searched(tmp_path, "method=mmd", RATE, trials=3)[1] == []  # alone it is the same study


def test_the_oracle_is_called_so_and_its_runs_are_the_same(tmp_path):
    (floor,), plain = searched(tmp_path, RATE, trials=3)
    (found,), outcomes = searched(tmp_path, RATE, trials=3, objective="oracle")
    assert [o.record.id for o in plain] == [o.record.id for o in outcomes] and {o.what for o in outcomes} == {"skipped"}
    assert [trial["value"] for trial in found["trials"]] == [
        outcome.record.scores.selected["accuracy"] for outcome in outcomes if outcome.record.scores
    ]
    assert found["name"].endswith("-oracle") and "chosen by target labels (oracle)" in in_words(found)
    assert all(outcome.variant.endswith("oracle") for outcome in outcomes)
    assert floor["objective"] == "floor" and not floor["name"].endswith("oracle") and "(oracle)" not in in_words(floor)
    assert not any("oracle" in o.variant for o in plain)
    assert "objective" not in found["best"]["command"]


def test_a_run_without_a_floor_is_no_silent_zero(tmp_path):
    record = describe_run(*composed(*TINY, f"outputs={tmp_path}"))
    reached: Metrics = {"step": 1, "accuracy": 0.5}
    record.scores = Scores(None, reached, reached, reached, reached)
    record.evidence = {"floor": None, "information": 0.1}
    with pytest.raises(
        UserError, match=r"has no floor .* granted=5 .* objective=information, bnm and agreement need no labels"
    ):
        measure_objective(record, "floor")
    assert measure_objective(record, "oracle") == (0.5, 0.1)
    record.evidence = None
    with pytest.raises(UserError, match="force=true"):
        measure_objective(record, "floor")


def test_each_objective_is_what_the_run_knows_of_its_checkpoint_and_none_of_them_is_the_floor_by_another_name(tmp_path):
    words = ["method.weight=1e-3,0.3,100", "method=mmd"]
    for objective in OBJECTIVES:
        (found,), outcomes = searched(tmp_path, *words, trials=4, objective=objective)
        assert {outcome.what for outcome in outcomes} <= {"skipped", "ran"} and found["objective"] == objective
        for trial in found["trials"]:
            (record,) = [o.record for o in outcomes if str(o.record.folder) in trial["runs"]][:1]
            assert record.evidence and record.scores
            expected = {
                "floor": record.evidence["floor"],
                "information": record.evidence["information"] / log(record.evidence["classes"]),
                "bnm": record.evidence["nuclear_norm"],
                "dev": -record.evidence["risk"],
                "oracle": record.scores.selected["accuracy"],
            }
            assert found["by"] == "agreement" or trial["value"] == trial["told"] == pytest.approx(expected[found["by"]])
        assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
        assert found["by"] == ("agreement" if objective == "auto" else objective)
        assert found["by"] in in_words(found) and ("%" in in_words(found)) == (objective != "dev")
        assert ("target labels" in found["meaning"]) == (objective == "oracle")


def test_agreement_is_that_among_all_trials_whichever_ended_first(tmp_path):
    """By hand, from the predictions that the runs keep; a trial's value when it ended was another's."""
    words = ["optimizer.lr=1e-6,1e-2,3e-2", "seed=0,1"]
    (found,), _ = searched(tmp_path, *words, trials=7, objective="agreement", sampler="tpe", startup=2)
    runs = {trial["trial"]: trial["runs"] for trial in found["trials"]}
    expected = dict.fromkeys(runs, 0.0)
    for seed in (0, 1):
        folders = {folders[seed] for folders in runs.values()}
        predicted = {folder: load_file(Path(folder) / "validation.safetensors")["target"] for folder in folders}
        mean = sum(predicted.values()).argmax(-1)  # pyright: ignore[reportAttributeAccessIssue]
        for number, of in runs.items():
            expected[number] += (predicted[of[seed]].argmax(-1) == mean).float().mean().item() / 2
    assert {trial["trial"]: trial["value"] for trial in found["trials"]} == pytest.approx(expected)
    assert found["trials"][0]["told"] == 1.0 > found["trials"][0]["value"]  # it agreed with itself
    assert found["best"]["value"] == pytest.approx(max(expected.values()))
    backwards = compute_agreements([*reversed(runs.values())])
    assert backwards == pytest.approx([*reversed(expected.values())])
    (again,), outcomes = searched(tmp_path, *words, trials=7, objective="agreement", sampler="tpe", startup=2)
    assert outcomes == [] and again["trials"] == found["trials"]


def test_a_run_without_predictions_to_agree_on_is_refused(tmp_path):
    (found,), _ = searched(tmp_path, RATE, trials=1, objective="agreement")
    (Path(found["best"]["runs"][0]) / "validation.safetensors").unlink()
    with pytest.raises(UserError, match=r"validation\.safetensors.* force=true, or choose another objective"):
        searched(tmp_path, RATE, trials=1, objective="agreement")


def test_a_run_is_pruned_by_the_objective_and_where_that_is_not_known_midway_none_is(tmp_path):
    record = describe_run(*composed(*TINY, "train.steps=60", f"outputs={tmp_path}"))
    record.folder.mkdir(parents=True)
    known = {"floor": 0.9, "information": log(2), "classes": 4, "nuclear_norm": 0.3, "risk": 0.7}
    (record.folder / "curve.jsonl").write_text(json.dumps({"step": 30, **known}) + "\n")
    expected = {"floor": 0.9, "information": 0.5, "bnm": 0.3, "dev": -0.7}
    for objective in OBJECTIVES:
        found = [(30, pytest.approx(expected[objective]))] if objective in expected else []
        assert list_midway_values(record, objective) == found
        said = search(tmp_path, RATE, objective=objective, pruner="median").studies[0].sought.words
        assert ("none is pruned" in said) == (objective in ("agreement", "oracle"))
        assert ("pruned only where granted labels are held out" in said) == (objective == "auto")
    assert list_midway_values(record, "auto") == []
    (record.folder / "curve.jsonl").write_text(json.dumps({"step": 30, **known, "floor_of": "granted"}) + "\n")
    assert list_midway_values(record, "auto") == [(30, 0.9)]


@pytest.mark.slow
def test_held_out_granted_labels_come_before_agreement_and_one_study_has_one_objective(tmp_path):
    (found,), outcomes = searched(tmp_path, RATE, "granted=5", trials=2, objective="auto")
    assert found["by"] == "floor" and found["objective"] == "auto" and "  floor " in in_words(found)
    floors = [outcome.record.evidence["floor"] for outcome in outcomes if outcome.record.evidence]
    assert [trial["value"] for trial in found["trials"]] == floors
    searching = search(tmp_path / "mixed", "backbone=mlp,linear", trials=6, objective="auto")
    searching.studies[0].end(searching.studies[0].ask()[0], "ok", 0.5, information=0.0, runs=[], by="floor")  # pyright: ignore[reportOptionalSubscript]
    with pytest.raises(UserError, match=r"judged by floor, another by agreement.*per=method"):
        for _ in ended(searching):
            pass


def test_the_objectives_that_a_configuration_takes_are_those_that_there_are():
    assert get_args(get_type_hints(Settings)["objective"]) == tuple(OBJECTIVES)


def test_a_name_holds_one_study(tmp_path):
    searched(tmp_path, RATE, trials=1, name="mine")
    assert (tmp_path / "studies/mine/journal.log").exists()
    assert searched(tmp_path, RATE, trials=1, name="mine")[1] == []
    with pytest.raises(UserError, match=r"has another study: optimizer\.lr numbers from 0\.001"):
        search(tmp_path, "optimizer.lr=interval(0.1, 0.2)", name="mine")
    with pytest.raises(UserError, match="has another study"):
        search(tmp_path, RATE, "method=coral", name="mine")


def test_half_a_line_in_the_journal_is_taken_away(tmp_path):
    searched(tmp_path, RATE, trials=2, name="mine")
    journal = tmp_path / "studies/mine/journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker')
    (found,), outcomes = searched(tmp_path, RATE, trials=3, name="mine")
    assert len(outcomes) == 1 and found["counts"]["ok"] == 3
    assert journal.read_bytes().startswith(whole + b'{"')


@pytest.mark.slow
def test_two_processes_share_a_budget(tmp_path):
    """They ask at once for all there is: each trial is given once, and the journal stays readable."""
    code = (
        "from pathlib import Path; from test_search import RATE, search\n"
        "study = search(Path('out'), RATE, trials=40).studies[0]; study.begun = []\n"
        "while asked := study.ask():\n"
        "    study.end(asked[0], 'ok', 0.5, information=0.0, runs=[])\n"
        "    print(asked[0].number)\n"
    )
    given = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    numbers = [int(number) for process in given for number in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(40)) and {process.returncode for process in given} == {0}
    study = search(Path("out"), RATE, trials=40).studies[0]
    assert [state(trial) for trial in study.trials()] == ["ok"] * 40


@pytest.mark.slow
def test_the_command_in_places_side_by_side_then_with_more_trials():
    words = [*COMMAND, RATE, "method=source_only,mmd", "hydra.sweeper.study.per=method", "hydra.launcher.n_jobs=2"]
    dry = command("tl-run", *words, "dry=true")
    assert dry.returncode == 0 and "on a log scale; 20 trials" in dry.stdout and not Path("outputs").exists()
    first = command("tl-run", *words, "hydra.sweeper.n_trials=2")
    assert first.returncode == 0, first.stderr
    assert "4 runs, 0 failed" in first.stdout and first.stdout.count("2 of 2 trials, 2 ok, 0 failed") == 2
    studies = [json.loads(file.read_text()) for file in sorted(Path("outputs/studies").glob("*/study.json"))]
    assert [study["counts"]["ok"] for study in studies] == [2, 2]
    more = command("tl-run", *words, "hydra.sweeper.n_trials=3")
    assert more.returncode == 0 and "2 runs, 0 failed" in more.stdout, more.stderr
    again = command("tl-run", *studies[0]["best"]["command"].split()[1:])
    assert "already complete, skipped" in again.stdout, again.stderr
    assert len(read_records([Path("outputs")])[0]) == 6


@pytest.mark.slow
def test_killed_at_once_it_goes_on_with_the_trials_that_were_begun():
    words = [*COMMAND, RATE, "train.steps=400", "hydra.launcher.n_jobs=1"]
    words += ["hydra.sweeper.n_trials=2", "hydra.sweeper.study.name=mine"]
    code = "import sys; sys.argv[0] = 'tl-run'; from tl_runner.cli.tl_run import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *words, "checkpoint_every=0"], stdout=subprocess.DEVNULL)
    while not [*Path().glob("outputs/runs/*/*/checkpoint.pt")] and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (held,) = Path("outputs/locks").glob("*.lock")
    with FileLock(held):  # its worker dies with it
        pass
    again = command("tl-run", *words)
    assert again.returncode == 0, again.stderr
    assert "1 started before" in again.stdout and "2 of 2 trials, 2 ok" in again.stdout
    runs = read_records([Path("outputs")])[0]
    assert [run.status for run in runs] == ["ok", "ok"] and sum(
        run.environment.resumed is not None for run in runs
    ) == 1


@pytest.mark.slow
def test_other_launchers_take_batches_and_wrong_words_are_refused():
    words = [*COMMAND, RATE, "hydra/launcher=basic", "hydra.sweeper.n_trials=3", "hydra.sweeper.batch=2"]
    made = command("tl-run", *words, "method.weight=choice(1.0, -1.0)")
    assert made.returncode == 1 and "nothing is pruned here" in made.stderr  # weight=-1 is refused, in its run
    assert "3 runs, " in made.stdout and "3 of 3 trials" in made.stdout
    for wrong, says in {
        "hydra.sweeper.n_trials=0": "n_trials takes a whole number of at least 1, got 0",
        "objective=orcale": "did you mean 'oracle'?",
    }.items():
        assert says in told(command("tl-run", *words, wrong))
    nothing = [word for word in words if word != RATE]
    assert "there is nothing to search" in told(command("tl-run", *nothing, "seed=0,1"))
    assert "source_only has no 'weight'" in told(
        command("tl-run", *words, "method=mmd,source_only", "method.weight=choice(1,2)")
    )


def test_a_file_that_is_edited_in_the_middle_changes_nothing(tmp_path):
    from tl_runner.sweep.compose import RememberingRepository

    class Files:
        names = ("a",)

        def load_config(self, config_path: str) -> dict[str, str]:
            return {"text": (tmp_path / config_path).read_text()}

    (tmp_path / "a").write_text("before")
    files = RememberingRepository(Files())
    first = files.load_config("a")
    first["text"] = "spoiled"
    (tmp_path / "a").write_text("after")
    assert files.load_config("a") == {"text": "before"} and files.names == ("a",)
