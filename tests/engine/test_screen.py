"""tl-screen: what it scores, on whose labels, what it shares with runs, and how it tells."""

import csv
import io
import json
import logging
import subprocess
import sys
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
from conftest import CONF, QUICK, composed, made
from rich.console import Console
from safetensors.torch import load_file
from support.permuted import mislabelled
from support.quantities import sums

from tl_runner import config
from tl_runner.cli.tl_screen import BY, USED, main
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Answers, Domain, InMemory, LabelledSplit, Pair
from tl_runner.engine import screen
from tl_runner.engine.screen import Screened
from tl_runner.errors import UserError
from tl_runner.functional.divergence import mmd_test, separate_domains
from tl_runner.functional.estimated_accuracy import bound_estimate, estimate_accuracy, fit_temperature
from tl_runner.functional.transferability import h_score, leep, linear_error, logme, nce
from tl_runner.report import screening
from tl_runner.report.rank_correlation import correlate_ranks, spearman
from tl_runner.report.rank_correlation import match_runs as of_runs
from tl_runner.rng import Rng
from tl_runner.storage.record import RunRecord, describe_run, read_records
from tl_runner.storage.sections import DataInfo, Metrics, Scores, SeedInfo, TrainingInfo
from tl_runner.sweep.combinations import compose_combinations
from tl_runner.tasks import Classification

TINY = [*QUICK, "device=cpu", "threads=1"]
QUICKER = [word for word in TINY if not word.startswith("train=")]
BLOBS = ["dataset=blobs", "dataset.samples=100", "device=cpu"]


def screened(*words: str, stages: tuple[str, ...] = ()) -> list[Screened]:
    """What tl-screen makes of one combination, in this process."""
    record = describe_run(*composed(*words))
    points = screen.screen(record, stages)
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value


def the_pair(*words: str) -> Pair:
    content, _ = composed(*words)
    settings = config.check_settings(content)
    with Rng(settings.seed).child("data").as_default():
        drawn = config.call_with(config.build(content["dataset"], "dataset"), seed=settings.seed, cache=Path("cache"))
        budget = Budget.parse(settings.granted).settle(needed=False)
        return split_domains(drawn, settings.seed, budget, torch.device("cpu"))[0]


def test_the_scores_are_those_of_the_source_models_own_features_and_predictions():
    """With no network but a head everything can be had again from the rows and the head's kept weights."""
    words = [*BLOBS, "backbone=identity", "pretrain=tiny"]
    (found,) = screened(*words)
    source, labels = the_pair(*words).labelled_source
    f, y = source.val.take(torch.arange(20)), labels.val
    (weights,) = Path("outputs/cache/source_models").glob("*.safetensors")
    head = load_file(weights)
    predicted = (f @ head["head.weight"].T + head["head.bias"]).softmax(1)
    apart = separate_domains(f, the_pair(*words).target.val.take(torch.arange(20)))
    g = the_pair(*words).target.val.take(torch.arange(20))
    test = mmd_test(f, g, 500)
    estimates = estimate_accuracy(
        (g @ head["head.weight"].T + head["head.bias"]).softmax(1), predicted, y, fit_temperature(predicted, y)
    )
    value, low, high = bound_estimate(estimates.values(), None, 20)
    assert high - low > 0.5  # as wide as where no training on the target was seen
    assert apart and test and len(source.val) == 20
    error = linear_error(f, y)
    assert error is not None and found.scores == pytest.approx(
        {
            "logme": logme(f, y),
            "h_score": h_score(f, y),
            "leep": leep(predicted, y),
            "nce": nce(predicted.argmax(1), y),
            "error": error,
            "bound": error + apart.a_distance.value / 2,
            **dict(zip(("a_distance", "a_low", "a_high"), apart.a_distance, strict=True)),
            "mmd": test.value,
            "mmd_p": test.p,
            "estimated": value,
            "estimated_low": low,
            "estimated_high": high,
        },
        rel=1e-5,
    )
    assert (found.whose, found.rows, found.stage, found.last) == ("the source's labels", 20, "flat", True)


def test_with_granted_labels_the_scores_are_on_them_and_all_of_them():
    words = [*BLOBS, "backbone=identity", "pretrain=none", "granted=5"]
    (found,) = screened(*words)
    pair = the_pair(*words)
    parts = [part for part in (pair.granted, pair.held_out) if part]
    f = torch.cat([part.x.take(torch.arange(len(part.y))) for part in parts])
    y = torch.cat([part.y for part in parts])
    assert (found.whose, found.rows, len(parts)) == ("granted target labels", 25, 2)
    assert found.scores["logme"] == pytest.approx(logme(f, y)) and found.scores["h_score"] == pytest.approx(
        h_score(f, y)
    )
    without = {"leep", "nce", "error", "bound", "estimated"}  # no source model, and no label of the source
    assert not without & found.scores.keys()


def test_the_targets_hidden_labels_reach_nothing(monkeypatch):
    def opened(_: Answers) -> None:
        raise AssertionError("the answers were opened")

    monkeypatch.setattr(Answers, "open", opened)
    other = [
        f"dataset._target_={mislabelled.__module__}.{mislabelled.__name__}",
        "~dataset.source",
        "~dataset.target",
        "~dataset.shift",
    ]
    words = [*QUICKER, "backbone=linear"]
    for granted, equal in (("0", True), ("5", False)):
        plain, permuted = screened(*words, f"granted={granted}"), screened(*words, *other, f"granted={granted}")
        assert (plain[0].scores == permuted[0].scores) == equal  # the second shows that the labels were in fact others


def test_stages_are_scored_where_feature_extract_reads_them():
    found = screened(*QUICKER, "pretrain=none", "backbone=small", stages=("all",))
    assert [(each.stage, each.last) for each in found] == [
        ("pixels", False), ("conv1", False), ("conv2", False), ("hidden", True),
    ]  # fmt: skip
    assert len({each.scores["logme"] for each in found}) == 4
    (one,) = screened(*QUICKER, "pretrain=none", "backbone=small", stages=("conv2",))
    assert one.scores == found[2].scores
    with pytest.raises(UserError, match="no stage 'conv3' – did you mean 'conv2'"):
        screened(*QUICKER, "backbone=small", stages=("conv3",))


def test_of_a_large_split_some_rows_are_drawn_with_their_labels(monkeypatch):
    words = [*BLOBS, "backbone=identity", "pretrain=none"]
    source, labels = the_pair(*words).labelled_source
    monkeypatch.setattr(screen, "ROWS", 12)
    rows = screen._draw_rows(LabelledSplit(source.val, labels.val), Rng(0))
    assert len(rows.unique()) == 12 and rows.tolist() == rows.sort().values.tolist() != list(range(12))
    (found,) = screened(*words)
    assert found.rows == 12 and found.scores["logme"] == pytest.approx(logme(source.val.take(rows), labels.val[rows]))


def test_what_can_not_be_scored_is_refused():
    rows = InMemory(torch.zeros(4, 2))
    with pytest.raises(UserError, match="no source and no label to score on: granted=5"):
        screen.sample_labelled(Pair(None, Domain("target", Classification(("a", "b")), rows, rows, rows)))
    own = LabelledSplit(rows, torch.tensor([0, 1, 0, 1]))
    assert screen.sample_labelled(Pair(None, Domain("target", Classification(("a", "b")), rows, rows, rows), own)) == (
        "granted target labels",
        [own],
    )


@pytest.fixture
def typed(capsys, monkeypatch):
    """tl-screen as it is typed, in this process: its exit code, what it prints and what it complains of."""
    logger, handlers = logging.getLogger("tl_runner"), [*logging.getLogger("tl_runner").handlers]

    def screen_by(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tl-screen", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as end:
            main()
        logger.handlers[:] = handlers
        return int(end.value.code or 0), *capsys.readouterr()

    return screen_by


def test_the_source_model_and_the_features_are_shared_with_runs(typed):
    code, first, told = typed(*QUICKER)
    assert code == 0 and "trained a source model of 20 steps in" in told
    assert [path.name for path in Path("outputs").iterdir()] == ["cache"]
    code, second, told = typed(*QUICKER)
    assert code == 0 and told == "" and "best first by ε+½d on the source's labels only" in first
    figures = [cells[:-1] for cells in (line.split("│")[1:-1] for line in first.splitlines()) if cells]  # but seconds
    assert figures and figures == [
        cells[:-1] for cells in (line.split("│")[1:-1] for line in second.splitlines()) if cells
    ]
    record = made(Path("outputs"), *TINY, "method=feature_extract", "granted=5")
    assert record.training.source_model.shared
    kept = set(Path("outputs/cache/features").rglob("*.safetensors"))
    code, table, told = typed(*QUICKER, "granted=5", "--runs", "outputs", "--runs", "nowhere")
    assert code == 1 and told == "warning: nowhere does not exist\n"
    assert kept == set(Path("outputs/cache/features").rglob("*.safetensors"))  # the run had computed the granted rows'
    assert "best first by LogME on granted target labels, n=50" in table and "source's labels" not in table
    assert "1 run of feature_extract granted=5, 1 candidate: 3 candidates with runs are needed" in table
    assert record.scores and f"{100 * record.scores.selected['accuracy']:.1f} │" in table


def test_csv_and_json_have_all_candidates_best_first(typed):
    words = [*QUICKER, "backbone=small,linear", "pretrain=none", "stage=all"]
    code, text, told = typed(*words, "--format", "csv", "--by", "logme")
    assert code == 0 and "random weights" in told
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    stages = [("small", stage) for stage in ("pixels", "conv1", "conv2", "hidden")]
    assert {(row["backbone"], row["stage"]) for row in rows} == {*stages, ("linear", "flat"), ("linear", "linear")}
    scores = [float(row["logme"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and rows[0]["leep"] == "" and rows[0]["target"] == "handwritten"
    (told_json,) = json.loads(typed(*words, "--format", "json", "--by", "a_distance")[1])
    distances = [row["a_distance"] for row in told_json["candidates"]]
    assert distances == sorted(distances) and len(distances) == 6 and told_json["by"] == "a_distance"
    assert told_json["agreement"] == [] and told_json["candidates"][0]["labels"] == "the source's labels"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone=smal"], "there is no backbone=smal – did you mean 'small'?"),
        (["dataset=digit"], "did you mean 'digits'?"),
        (["backbon=small"], "unknown key backbon – did you mean 'backbone'?"),
        (["stages=all"], "unknown key stages – did you mean 'stage'?"),
        (["backbone.widht=3"], "backbone=small has no 'widht' – did you mean 'width'?"),
        (["stage=conv3"], "no stage 'conv3' – did you mean 'conv2'? (possible: pixels, conv1, conv2, hidden)"),
        (["stage="], "stage takes all, or names of stages"),
        (["method=dann"], "method=dann does nothing here"),
        (["optimizer.lr=0.1,0.2"], "optimizer.lr=0.1,0.2 does nothing here"),
        (["hydra.launcher.n_jobs=2"], "does nothing here"),
        (["seed=interval(0,1)"], "an interval has no list of values to try"),
        (["granted=0.5"], "granted takes auto, 0, a count per class"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
    ],
)
def test_wrong_words_get_one_line(words, message, typed):
    code, out, told = typed(*QUICKER, *words)
    assert code == 1 and out == "" and told.startswith("error: ")
    assert message in told and len(told.splitlines()) == 1
    assert not Path("outputs/runs").exists()


def test_a_word_that_hydra_can_not_read_is_printed_ready_to_paste(typed):
    code, out, told = typed(*QUICKER, "backbone=[small")
    assert code == 1 and out == "" and "can't be read" in told and told.splitlines()[1:] == ["  'backbone=\"[small\"'"]


def test_one_candidate_that_fails_ends_no_other_and_the_exit_code_tells(typed):
    code, out, told = typed(*BLOBS, "backbone=resnet18,mlp", "pretrain=none")
    assert code == 1 and "layer2" in out
    assert told.startswith("error: blobs resnet18 seed=0: backbone=resnet18 reads images, but")


def test_help_needs_no_heavy_library_and_names_all_that_can_be_said():
    code = (
        "import sys; sys.argv = ['tl-screen', '--help']\n"
        "from tl_runner.cli.tl_screen import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pandas', 'sklearn', 'numpy', 'rich', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert all(name in text for name in (*USED, "--format", "--runs", "--config-dir"))
    assert set(BY) == set(screening.SCORES)


def test_combinations_are_composed_as_a_sweeps_are_and_each_once(tmp_path):
    own = tmp_path / "mine" / "backbone"
    own.mkdir(parents=True)
    (own / "wide.yaml").write_text((CONF / "backbone/linear.yaml").read_text().replace("64", "9"))
    words = ["backbone=linear,wide", "dataset.samples=20,20.0,30", "seed=range(2)", "dataset.size=8"]
    orders = compose_combinations(words, [tmp_path / "mine"], USED)
    said = [
        (order.record.choices["backbone"], order.record.config["dataset"]["samples"], order.record.seed)
        for order in orders
    ]
    assert said == [(b, n, s) for b in ("linear", "wide") for n in (20, 30) for s in (0, 1)]
    assert orders[-1].record.config["backbone"]["width"] == 9 and orders[-1].variant == "dataset.samples=30"
    run = describe_run(*composed("backbone=linear", "dataset.samples=20", "dataset.size=8"))
    assert orders[0].record.id == run.id  # the identity of the same run of tl-run, and so its source model


QUANTITY = [
    *("dataset=blobs", f"dataset._target_={sums.__module__}.{sums.__name__}", "dataset.samples=100"),
    *(f"~dataset.{key}" for key in ("features", "classes", "separation", "shift")),
    *("backbone=mlp", "pretrain=tiny", "device=cpu", "threads=1"),
]


def test_of_a_quantity_there_are_logme_and_the_distances():
    distances = {"a_distance", "a_low", "a_high", "mmd", "mmd_p"}
    (found,) = screened(*QUANTITY)
    assert found.scores.keys() == {"logme", *distances}
    assert (found.whose, found.rows, found.record.metric) == ("the source's labels", 20, "r2")
    (granted,) = screened(*QUANTITY, "granted=20")
    assert granted.scores.keys() == {"logme", *distances}
    assert (granted.whose, granted.rows) == ("granted target labels", 20)


def test_logme_of_a_quantity_is_of_its_values():
    words = [*QUANTITY, "backbone=identity", "pretrain=none", "granted=20"]
    (found,) = screened(*words)
    pair = the_pair(*words)
    parts = [part for part in (pair.granted, pair.held_out) if part]
    f, y = torch.cat([part.x.take(torch.arange(len(part.y))) for part in parts]), torch.cat([part.y for part in parts])
    assert found.scores["logme"] == pytest.approx(logme(f, y)) and y.dtype == torch.float32
    (worse,) = screened(*words, "+dataset.spread=3")
    assert worse.scores["logme"] < found.scores["logme"] - 0.5


def test_a_quantity_is_told_by_what_it_has(typed):
    """Sorted by the distance without labels, by LogME with; and no word of classes."""
    code, table, _ = typed(*QUANTITY, "backbone=mlp,linear")
    assert code == 0 and "best first by A-distance, which needs no labels" in table
    assert "LogME on the source's labels only: it says how well" in table and "(granted=50 scores" in table
    assert not [word for word in ("LEEP", "NCE", "H-score", "ε+½d", "estimate", "%") if word in table], table
    code, table, _ = typed(*QUANTITY, "granted=20")
    assert code == 0 and "best first by LogME on granted target labels, n=20" in table
    (told,) = json.loads(typed(*QUANTITY, "--format", "json", "--by", "logme")[1])
    assert told["by"] == "logme" and told["candidates"][0]["leep"] is None


def candidate(stage: str, last: bool = False, words: tuple[str, ...] = (), **scores: float) -> Screened:
    record = describe_run(*composed(*words))
    record.data = DataInfo(domains={"source": "s", "target": "t"}, fingerprint={"target": "f"})
    return Screened(record, stage, last, "the source's labels", 10, scores, 0.5)


def finished(accuracy: float, *words: str) -> RunRecord:
    record = describe_run(*composed(*words))
    record.status, record.training = "ok", TrainingInfo(start="source")
    reached: Metrics = {"step": 1, "accuracy": accuracy}
    record.scores = Scores(None, reached, reached, reached, reached)
    return record


EXTRACT = "method=feature_extract"
THREE = [
    candidate("conv1", logme=1.0, a_distance=0.1),
    candidate("conv2", logme=2.0, a_distance=0.3),
    candidate("hidden", last=True, logme=3.0, a_distance=0.2),
]
RUNS = [
    *(finished(0.3 + 0.2 * seed, EXTRACT, "method.layer=conv1", f"seed={seed}") for seed in (0, 1)),
    finished(0.6, EXTRACT, "method.layer=conv2"),
    finished(0.7, EXTRACT),
]


def test_runs_count_for_the_stage_that_they_read_and_seeds_are_averaged():
    (of_extract,) = of_runs(THREE, RUNS)
    assert of_extract == ("feature_extract", "auto", pytest.approx([0.4, 0.6, 0.7]), 4)
    signs = {"logme": 1, "a_distance": -1, "leep": 1}
    of_logme, of_distance = correlate_ranks(THREE, [of_extract], signs)
    assert of_logme[:3] == ("logme", "feature_extract", 3) and of_logme.rho == pytest.approx(1.0)
    assert of_distance[:3] == ("a_distance", "feature_extract", 3)
    assert of_distance.rho == pytest.approx(-0.5)  # ranks 3 1 2 of nearness beside 1 2 3
    assert correlate_ranks(THREE[:2], of_runs(THREE[:2], RUNS), signs) == []  # two have a rank correlation of ±1 always


def test_runs_of_another_setting_or_of_other_parts_do_not_count():
    others = [
        finished(0.9, EXTRACT, "granted=5"),  # with another label budget: a setting with fewer candidates
        finished(0.9, EXTRACT, "backbone.width=64"),
        finished(0.9, EXTRACT, "dataset.size=8"),
        finished(0.9, EXTRACT, "pretrain=tiny"),
        finished(0.9, EXTRACT, "augment=weak"),
        finished(0.9, "method=dann"),
        replace(finished(0.9, EXTRACT), status="failed"),
        replace(finished(0.9, EXTRACT), data=DataInfo(files="others")),
    ]
    assert of_runs(THREE, [*others, *RUNS]) == of_runs(THREE, RUNS)
    (fewer,) = of_runs(THREE, [others[0], *RUNS[:1]])
    assert sum(not isnan(a) for a in fewer.accuracy) == 1


def test_source_only_counts_for_the_last_stage_whatever_the_source_models_plan():
    run = finished(0.8, "method=source_only", "pretrain=tiny")
    run.training = TrainingInfo(start="backbone")
    (found,) = of_runs(THREE, [run])
    assert [isnan(a) for a in found.accuracy] == [True, True, False] and found.accuracy[2] == 0.8


def test_spearman_is_scipys_and_has_no_value_where_all_are_equal():
    from scipy.stats import spearmanr

    x, y = (torch.randint(5, (12,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in (0, 1))
    assert spearman(x, y) == pytest.approx(spearmanr(x, y)[0])  # with ties
    assert isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_of_a_quantity_runs_are_compared_by_r2():
    here, run = candidate("hidden", last=True, a_distance=1.0, a_low=0.8, a_high=1.2), finished(0.0, EXTRACT)
    here.record.data.task, run.data.task = "regression", "regression"
    reached: Metrics = {"step": 1, "r2": 0.8125, "mae": 3.0}
    run.scores = Scores(None, reached, reached, reached, reached)
    (group,) = screening.group_by_target([(here, "")], None, [run, replace(run, scores=None)])
    assert group.made == [("feature_extract", "auto", [0.8125], 1)] and group.by == "a_distance"
    out = io.StringIO()
    Console(file=out, width=200).print(*screening.tables([group], 200))
    assert " 0.812 │" in out.getvalue() and "extract R² ┃" in out.getvalue() and "81.2" not in out.getvalue()
    (row,) = csv.DictReader(io.StringIO(screening.as_csv([group])))
    assert row["r2_feature_extract"] == "0.8125" and row["accuracy_feature_extract"] == ""


def test_targets_have_tables_of_their_own_and_seeds_one_line():
    first, second = (
        candidate("hidden", True, bound=1.0, logme=0.0, mmd=0.5, mmd_p=0.1),
        candidate("conv1", bound=0.5, logme=1.0),
    )
    again = candidate("hidden", True, ("seed=1",), bound=0.4, logme=1.0, mmd=0.7, mmd_p=0.3)
    other = candidate("hidden", True, ("dataset.size=8",), logme=5.0)
    other.record.data.fingerprint["target"] = "g"
    groups = screening.group_by_target([(each, "") for each in (first, second, again, other)], None, RUNS)
    assert [group.by for group in groups] == ["bound", "logme"] and len(groups[0].candidates) == 2
    ((best, _), (worst, _)) = groups[0].candidates
    assert best.stage == "conv1" and worst.scores == pytest.approx({"bound": 0.7, "logme": 0.5, "mmd": 0.6})
    assert (worst.seeds, worst.seconds) == (2, 1.0) and worst.record.seed == 0


def test_runs_with_several_label_budgets_become_advice():
    def granted(method: str, count: int, accuracy: float, *words: str) -> list[RunRecord]:
        found = [finished(accuracy, f"method={method}", f"granted={count}", f"seed={s}", *words) for s in range(3)]
        for run in found:
            run.data = DataInfo(classes=[*"0123456789"], granted=10 * count, seeds=SeedInfo("independent", 100))
        return found

    runs = [*granted("finetune", 1, 0.6), *granted("finetune", 5, 0.9), *granted("feature_extract", 5, 0.9)]
    runs += granted("feature_extract", 1, 0.9)
    elsewhere = [*granted("finetune", 2, 0.9, "dataset.size=8"), *granted("l2sp", 2, 0.9), *granted("l2sp", 5, 0.9)]
    here = candidate("hidden", last=True, logme=3.0)
    (group,) = screening.group_by_target([(here, "")], None, [*runs, *elsewhere])
    said = "".join(str(each) for each in screening.tables([group]))
    assert (
        "To reach 85 % on this target at 300 steps, finished runs took: feature_extract 1 label a class (1), finetune 5"
        " (5); n = 3, ranges by 95 % intervals in brackets"
    ) in said
    (told,) = json.loads(screening.as_json([group]))
    assert told["budgets"]["accuracy"] == 0.85 and told["budgets"]["needed"][0] == {
        "line": "finetune", "by": "labels", "steps": 300, "budget": 50, "most": 50, "low": 50, "high": 50,
    }  # fmt: skip
    (plain,) = screening.group_by_target([(here, "")], None, [*runs[3:9], *elsewhere])
    assert "To reach" not in "".join(str(each) for each in screening.tables([plain]))
    assert json.loads(screening.as_json([plain]))[0]["budgets"] is None
    assert screening.as_csv([group]).splitlines()[0] == screening.as_csv([plain]).splitlines()[0]


def test_a_run_of_the_folder_is_compared_with(tmp_path):
    """From a real run's record: its own candidate finds it."""
    record = made(tmp_path / "outputs", "method=source_only", *QUICK, "backbone=linear")
    (found,) = screened(*QUICKER, "backbone=linear")
    assert record.scores
    ((method, granted, accuracy, runs),) = of_runs([found], read_records([tmp_path / "outputs"])[0])
    assert (method, granted, runs) == ("source_only", "0", 1)
    assert accuracy == [record.scores.selected["accuracy"]]
