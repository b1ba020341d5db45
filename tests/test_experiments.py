"""Named experiments: their words, and that they are no more than these."""

import re
from itertools import product
from pathlib import Path

import pytest
from conftest import CONF, EXPERIMENTS, composed
from support.refusals import told

import tl_runner
from tl_runner import experiments, options
from tl_runner.errors import UserError
from tl_runner.experiments import Experiment, expand_words, list_hydra_words, list_swept
from tl_runner.pairs import expand_pairs
from tl_runner.storage.record import describe_run, read_records

CHEAP = ["device=cpu", "threads=1", "hydra/launcher=basic"]


def experiment(*lines: str) -> Experiment:
    return Experiment("mine", "for tests", tuple(tuple(line.split()) for line in lines), (), "", "", "", "")


@pytest.mark.parametrize(
    ("typed", "expanded"),
    [
        ("", ["dataset=digits method=mmd method.weight=2 seed=0,1"]),
        ("seed=5", ["dataset=digits method=mmd method.weight=2 seed=5"]),
        ("method.weight=3 +extra=1", ["dataset=digits method=mmd seed=0,1 method.weight=3 +extra=1"]),
        ("method=dann,coral", ["dataset=digits seed=0,1 method=dann,coral"]),  # method.weight is of mmd
        ("-m --config-dir mine hydra.launcher.n_jobs=1", ["dataset=digits method=mmd method.weight=2 seed=0,1"]),
    ],
)
def test_typed_words_replace_an_experiments(typed, expanded):
    words = ["experiment=mine", *typed.split()]
    found = expand_words(words, [experiment("dataset=digits method=mmd method.weight=2 seed=0,1")])
    assert [" ".join(line) for line in found] == expanded


def test_lines_that_become_one_are_made_once():
    lines = experiment("method=mmd method.weight=1 seed=0", "method=dann seed=0")
    assert expand_words(["method=coral"], [lines]) == [["seed=0", "method=coral"]]


def test_hydra_reads_what_is_for_the_command_and_not_what_is_for_its_runs():
    for_hydra = ["outputs=o", "dry=true", "--config-dir", "there", "hydra.launcher.n_jobs=1"]
    assert list_hydra_words(["experiment=mine", "-m", "seed=0,1", *for_hydra, "method=mmd"]) == for_hydra


def test_what_tells_runs_apart_is_what_lines_do_not_share():
    lines = [
        ["dataset=digits", "method=mmd,dann", "seed=0"],
        ["dataset=digits", "method=finetune", "granted=5", "seed=0"],
    ]
    swept = list_swept(lines)
    assert swept == ["dataset=digits", "method=mmd,dann,finetune", "seed=0", "granted=choice(5)"]
    assert options.describe_variant(["dataset=digits", "method=finetune", "granted=5", "seed=0"], swept) == "granted=5"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_is_and_each_of_its_lines_composes(name):
    (found,) = experiments.find_experiments([f"experiment={name}"], [CONF])
    assert found.purpose and len(found.purpose) <= 118 and f"#   tl-run experiment={name}" in found.text
    assert name == "smoke" or (found.origin and found.claim)
    for line in expand_words([], [found]):
        for of_pair, which in product(expand_pairs(line), (0, -1)):  # the first value of each key, and the last
            words = [word.partition("=") for word in of_pair]
            config, choices = composed(*(f"{key}={_list_values(value)[which]}" for key, _, value in words))
            assert describe_run({**config, "outputs": "outputs"}, choices).id


def _list_values(text: str) -> list[str]:
    return [text] if text.startswith("[") else text.split(",")


def test_an_experiment_makes_its_runs_compares_them_and_is_complete_the_second_time(here):
    """With the ids that the same words have when they are typed."""
    first = here("tl-run", "experiment=smoke", "method=source_only,mmd", "granted=0", *CHEAP)
    assert first.returncode == 0, first.stderr
    assert "2 settings, 2 runs, 0 failed" in first.stdout and "digits · backbone small" in first.stdout
    assert "folder" not in first.stdout  # the table of outcomes gives way to the comparison
    runs = {run.choices["method"]: run for run in read_records([Path("outputs")])[0]}
    shared = ["dataset.samples=300", "dataset.size=8", "train=tiny", "pretrain=tiny", "device=cpu", "threads=1"]
    for method, run in runs.items():
        config, choices = composed(f"method={method}", "granted=0", *shared)
        assert describe_run({**config, "outputs": "outputs"}, choices).id == run.id
    again = here("tl-run", "experiment=smoke", "method=source_only,mmd", "granted=0", *CHEAP)
    assert again.stdout.count("already complete, skipped") == 2 and "2 settings, 2 runs" in again.stdout


def test_an_experiment_shows_its_plan(here):
    shown = here("tl-run", "experiment=smoke", "dry=true", "seed=0,1")
    assert shown.returncode == 0 and "10 runs" in shown.stdout
    assert not read_records([Path("outputs")])[0]


def test_failed_runs_of_an_experiment_are_listed(here):
    result = here("tl-run", "experiment=smoke", "method=mmd", "granted=0", "method.weight=-1", *CHEAP)
    assert result.returncode == 1 and "1 run, 1 failed" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("experiment=smok", "there is no experiment=smok – did you mean 'smoke'?"),
        ("experiment=", "there is no experiment= (possible: "),
        ("experiment=smoke hydra/sweeper=tl_optuna", "an experiment has runs of its own, and nothing to search"),
        (
            "experiment=smoke --cfg job",
            "an experiment has several configurations: dry=true lists its runs",
        ),
        ("experiment=smoke method=nope", "there is no method=nope"),
        ("experiment=smoke train.step=3", "unknown key train.step"),
        ("+experiment=smoke", "+experiment=smoke: write experiment=smoke, as there is nothing to add it to"),
    ],
)
def test_what_no_experiment_can_do_is_refused_in_words(here, words, message):
    result = here("tl-run", *words.split())
    assert result.returncode == 1 and message in told(result)
    assert not Path("outputs/runs").exists()  # nothing was composed, and there is no method to put it down to


def test_help_lists_experiments_and_shows_one(here):
    listed = here("tl-run", "--help", "experiment").stdout
    assert all(re.search(rf"^  {name} +\w", listed, re.MULTILINE) for name in EXPERIMENTS)
    assert "runs:" in here("tl-run", "--help", "experiment=smoke").stdout


def test_a_users_own_experiment(here):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/own.yaml").write_text("# Mine.\nshared: train=tiny dataset.samples=300\nruns: [method=mmd]\n")
    result = here("tl-run", "--config-dir", "mine", "experiment=own", "dataset.size=8", *CHEAP)
    assert result.returncode == 0 and "1 setting, 1 run" in result.stdout
    Path("mine/experiment/own.yaml").write_text("# Mine.\nmethod: mmd\n")
    result = here("tl-run", "--config-dir", "mine", "experiment=own")
    assert "own.yaml: unknown key method" in told(result)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it must have keys, of which `runs` is a list of command lines"),
        ("- a", "it must have keys"),
        ("a: [", "can't be read: while parsing"),
        ("shared: seed=0", "it needs `runs`, a list of command lines"),
        ("runs: []", "it needs `runs`"),
        ("runs: method=mmd", "runs must be a list of texts, a line each"),
        ("runs: [3]", "runs must be a list of texts"),
        ("runs: ['']", "run 1 must be overrides, as in method=mmd seed=0,1; got ''"),
        ("runs: [method=mmd, -m method=dann]", "run 2: '-m' is no override of a run's: it belongs on the command line"),
        ("runs: [experiment=smoke]", "run 1: 'experiment=smoke' is no override"),
        ("runs: [method=mmd hydra/launcher=basic]", "run 1: 'hydra/launcher=basic' is no override"),
        ("runs: [method=mmd dry=true]", "run 1: 'dry=true' is no override"),
        ("runs: ['method=\"mmd']", "run 1: No closing quotation in"),
        ("share: seed=0\nruns: [method=mmd]", "unknown key share – did you mean 'shared'?"),
        ("shared: seed=0\nshared: seed=1\nruns: [method=mmd]", "shared is there twice"),
        ("shared: 3\nruns: [method=mmd]", "shared must be overrides"),
        ("runs: [method=mmd]\ncompare: [mmd vs dann]", "compare: 'mmd vs dann' must be two sides with a value each"),
        ("runs: [method=mmd]\ncompare: [method=mmd]", "compare: 'method=mmd' must be two sides"),
    ],
)
def test_a_file_that_is_no_experiment_says_why_and_leaves_the_others_alone(text, message, here):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/own.yaml").write_text(text)
    result = here("tl-run", "--config-dir", "mine", "experiment=own")
    assert result.returncode == 1 and "own.yaml" in told(result) and message in told(result)
    assert here("tl-run", "--config-dir", "mine", "experiment=smoke", "dry=true").returncode == 0
    listed = here("tl-run", "--config-dir", "mine", "--help", "experiment").stdout
    assert re.search(r"^  own +unreadable: ", listed, re.MULTILINE) and re.search(
        r"^  smoke +5 runs", listed, re.MULTILINE
    )


def test_the_option_that_an_experiment_has_keeps_its_keys():
    lines = experiment("dataset=digits dataset.size=8 method=mmd method.weight=2", "dataset.samples=300 method=dann")
    found = expand_words(["dataset=digits", "method=mmd"], [lines])
    assert found == [
        ["dataset.size=8", "method.weight=2", "dataset=digits", "method=mmd"],
        ["dataset.samples=300", "dataset=digits", "method=mmd"],
    ]


def test_a_line_replaces_shared_words(here):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/own.yaml").write_text(
        "# Mine.\nshared: seed=0,1 dataset.size=8\nruns: [seed=2 dataset=blobs]\n"
    )
    (found,) = experiments.find_experiments(["experiment=own"], [Path("mine")])
    assert found.lines == (("seed=2", "dataset=blobs"),) and found.runs == 1


def test_an_experiment_from_python(tmp_path):
    words = ["experiment=smoke", "method=mmd", "granted=0", *CHEAP]
    (record,) = tl_runner.run_sweep(words, outputs=tmp_path, progress=False)
    assert record.status == "ok" and record.config["dataset"]["samples"] == 300
    with pytest.raises(UserError, match="an experiment has several runs: make them by run_sweep"):
        tl_runner.run(words, outputs=tmp_path)
