"""The HTML report: its figures against hand counts and other libraries, its words, and that it says what is missing."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from math import isnan, nan, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import confusion_matrix
from support.made_up_runs import ROWS, STEPS, made_up

from tl_runner.functional import metrics as scores
from tl_runner.report.caveats import list_caveats
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page import (
    bound,
    calibration,
    confusions,
    counts,
    effects,
    features,
    gap,
    hyperparameters,
    learning,
    ranks,
    samples,
)
from tl_runner.report.page.answer import answer
from tl_runner.report.page.drawing import Chart, Scale, columns, spanning
from tl_runner.report.page.groups import SettingRuns, baseline, choose_settings, find_partner, group_by_pair
from tl_runner.report.page.leaderboard_table import Cell, build_leaderboard_table
from tl_runner.report.page.render import page
from tl_runner.report.page.run_files import RunFiles
from tl_runner.report.ranking import Ranking, rankings
from tl_runner.report.statistics import Ranks
from tl_runner.storage.record import RunRecord, read_records

MADE = datetime(2026, 11, 21, 12, tzinfo=UTC)
SEEDS = (0, 1, 2)
ENDS = ("difference", "low", "high")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods and a failure on images, one that weighs on a table."""
    folder = tmp_path_factory.mktemp("outputs")
    for seed in SEEDS:
        for method in ("source_only", "mmd", "kmm"):
            made_up(folder, method, seed)
        made_up(folder, "weighted", seed, dataset="table", images=False)
    made_up(folder, "weighted", 0)
    made_up(folder, "mmd", 3, status="failed")
    return folder


@pytest.fixture(scope="module")
def found(outputs: Path) -> list[RunRecord]:
    return read_records([outputs])[0]


@pytest.fixture(scope="module")
def groups(found: list[RunRecord]) -> dict[str, SettingRuns]:
    """Those on images, by method."""
    return {group.method: group for group in group_by_pair(found, build_leaderboard(found), [])["digits"]}


@pytest.fixture(scope="module")
def whole(found: list[RunRecord]) -> str:
    frame = build_leaderboard(found)
    return page(found, frame, list(rankings(found)), list_caveats(found, frame), MADE)


def truth(run: RunFiles) -> np.ndarray:
    return load_file(run.record.folder / "diagnosis.safetensors")["labels"]


def predicted(run: RunFiles, step: int) -> np.ndarray:
    return load_file(run.record.folder / "predictions.safetensors")[f"step_{step}"]


def rows_of(frame: Any) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def text(markup: str) -> str:
    return " ".join(markup.replace("\u00a0", " ").split())


# --- the numbers


def test_a_confusion_matrix_is_that_of_scikit_learn(groups):
    run = groups["mmd"].runs[1]
    expected = confusion_matrix(truth(run), predicted(run, STEPS[-1]).argmax(-1), labels=range(4))
    assert np.array_equal(run.confusion, expected) and expected.sum() == ROWS


def test_shares_are_of_the_true_class_and_mean_over_seeds(groups):
    table, n = confusions.mean_shares(groups["mmd"]) or (None, 0)
    by_hand = [confusion_matrix(truth(r), predicted(r, 90).argmax(-1), labels=range(4)) for r in groups["mmd"].runs]
    assert n == 3
    assert table == pytest.approx(np.mean([each / each.sum(1, keepdims=True) for each in by_hand], 0))
    assert (
        isnan(counts.shares(np.array([[0, 0], [1, 3]]))[0, 0])
        and counts.shares(np.array([[0, 0], [1, 3]]))[1, 1] == 0.75
    )


def test_bins_of_reliability_sum_to_the_calibration_error_of_the_run():
    assert counts.BINS == scores.BINS
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(5), 300).astype(np.float32)
    rows[0] = (1, 0, 0, 0, 0)  # wholly sure: in the last bin
    labels = random.integers(0, 5, 300)
    one = counts.reliability(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 0]))
    assert [list(one[number]) for number in (7, 11)] == [[1, 0.5, 1], [1, 0.8, 0]]  # 7/15 < 0.5 <= 8/15, 11/15 < 0.8
    table = counts.reliability(rows, labels)
    assert table[:, 0].sum() == 300 and table[-1, 0] >= 1
    expected = scores.calibration_error(torch.from_numpy(rows), torch.from_numpy(labels))
    assert counts.binned_calibration_error(table) == pytest.approx(expected, abs=1e-9)  # both sum in float64


def test_learning_curves_are_mean_and_deviation_over_seeds_by_step(groups):
    by_hand = [[(predicted(run, step).argmax(-1) == truth(run)).mean() for run in groups["mmd"].runs] for step in STEPS]
    points = learning.curve(learning.target_curve, groups["mmd"].runs)
    assert [step for step, *_ in points] == list(STEPS)
    assert [mean for _, mean, _ in points] == pytest.approx([np.mean(each) for each in by_hand])
    assert [sd for *_, sd in points] == pytest.approx([np.std(each, ddof=1) for each in by_hand])
    assert learning.curve(learning.source_curve, groups["mmd"].runs)[0][:2] == (30, pytest.approx(0.65))
    assert learning.information_curve(groups["mmd"].runs[0])[30] == pytest.approx(0.3 / np.log(4))
    assert learning.entropy_curve(groups["mmd"].runs[0])[30] == pytest.approx(0.7 / np.log(4))


def test_classes_gain_against_the_baseline_of_the_same_seed(groups):
    base = groups["source_only"]
    assert baseline(groups["mmd"], list(groups.values())) is base and baseline(base, list(groups.values())) is None
    rows = confusions.paired_differences(groups["mmd"], base)
    for row, mine, theirs in zip(rows, groups["mmd"].runs, base.runs, strict=True):
        assert mine.record.seed == theirs.record.seed and find_partner(mine, base) is theirs
        accuracy = [
            [(predicted(run, 90).argmax(-1)[truth(run) == c] == c).mean() for c in range(4)] for run in (mine, theirs)
        ]
        assert row == pytest.approx(np.subtract(accuracy[0], accuracy[1]))
    assert rows.mean() > 0 > confusions.paired_differences(groups["kmm"], base).mean()


def test_accuracies_of_classes_are_counted_where_the_diagnosis_has_none(groups):
    run = groups["mmd"].runs[0]
    bare = RunFiles(replace(run.record, diagnosis={}), [])
    assert confusions.by_class(bare) == pytest.approx(confusions.by_class(run))


def test_the_gap_is_told_before_and_after(groups):
    assert gap.distance(groups["mmd"].runs[0], "before") == (1.6, 1.4, 1.8)
    assert gap.distance(groups["mmd"].runs[0], "after") == pytest.approx((0.9, 0.7, 1.1))
    words = gap.figure([groups["mmd"]]).panels[0].chart
    assert "mmd 1.60 before, 0.90 after" in words and "n = 3" in words
    before, after = marks(words, r"c1 hollow"), marks(words, "c0")
    assert after < before and len(before) == len(after) == 1


def test_the_terms_of_the_bound_stand_end_to_end(groups):
    group = groups["mmd"]
    assert bound.terms(group.runs[0])[:3] == (0.05, 0.5, 0.1)
    error = 1 - np.mean([run.record.scores.selected["accuracy"] for run in group.runs])
    words = bound.figure([group]).panels[0].chart
    assert f"mmd: 0.05 + 0.50 + 0.10, target error {error:.2f}" in words
    boxes = [
        tuple(map(float, found)) for found in re.findall(r'class="bar c\d" x="([\d.]+)".*? width="([\d.]+)"', words)
    ]
    assert [x + width for x, width in boxes[:2]] == pytest.approx([x for x, _ in boxes[1:]], abs=0.11)
    assert boxes[1][1] == pytest.approx(10 * boxes[0][1], abs=0.6)  # 0.5 and 0.05, in tenths of a pixel
    bare = replace(group, runs=tuple(RunFiles(replace(run.record, diagnosis=None), []) for run in group.runs))
    assert "has the terms of the bound" in (bound.figure([bare]).missing or "")


def test_reliability_is_drawn_as_accuracy_over_confidence(groups):
    run = groups["mmd"].runs[0]
    rows, labels = predicted(run, 90), truth(run)
    sure = rows.max(-1) > 14 / 15  # the last bin
    hits = (rows[sure].argmax(-1) == labels[sure]).mean()
    figure = calibration.figure([replace(groups["mmd"], runs=(run,))])
    chart = Chart(Scale(0, 1), Scale(0, 1), "")
    chart.dots([(rows[sure].max(-1).astype(float).mean(), hits)], "c0")
    last = re.findall(r'd="(M[^"]*)"', chart.svg)[-1]
    assert last in figure.panels[0].chart and figure.panels[0].note == "ECE 10.0 %, n = 1"


def test_what_gives_no_probabilities_has_no_reliability(groups):
    run = groups["mmd"].runs[0]
    scores = replace(run.record.scores, target={"accuracy": 0.5})
    bare = replace(groups["mmd"], runs=(RunFiles(replace(run.record, scores=scores), []),))
    assert "no probabilities" in calibration.figure([bare]).missing
    assert len(calibration.figure([bare, groups["kmm"]]).panels) == 1


def test_below_five_pairs_no_ranks_are_drawn():
    few = ranks.figure(Ranking("0", 4, None, ()))
    assert not few.panels and "4 pairs" in few.missing and "at least 5" in few.missing


def test_differences_and_ranks_are_marked_at_their_values(groups, tmp_path):
    chart = effects.figure([groups["mmd"], groups["kmm"], groups["source_only"]]).panels[0].chart
    assert marks(chart, "quiet|c0")[0] > marks(chart, "reference|quiet|c3")[-1]
    own = Chart.of_rows(
        ["mmd"], spanning([0.0, *(groups[m].row[e] for m in ("mmd", "kmm") for e in ENDS)], percent=True), ""
    )
    own.mark(groups["mmd"].row["difference"], -0.5, "c0")
    assert marks(own.svg, "c0")[0] == marks(chart, "quiet|c0")[0]
    ranked = Ranking("0", 6, Ranks({"a": 1.2, "b": 2.0, "c": 3.5}, 6, 1.0, 0.01), ("left",))
    figure = ranks.figure(ranked)
    assert len(marks(figure.panels[0].chart, "c0")) == 2 and len(marks(figure.panels[0].chart, "quiet")) == 1
    assert "p = 0.01" in figure.caption and "1.00 (Nemenyi" in figure.caption and "left" in figure.caption


def marks(chart: str, kinds: str) -> list[float]:
    """Where the discs of these kinds lie, from the left."""
    return [float(x) for x in re.findall(rf'class="mark (?:{kinds})" cx="([\d.]+)"', chart)]


def test_a_spread_knows_what_it_does_not_know():
    assert counts.mean_and_deviation([0.2, 0.4, nan]) == (pytest.approx(0.3), pytest.approx(sqrt(0.02)), 2)
    assert counts.mean_and_deviation([0.2])[0] == 0.2 and isnan(counts.mean_and_deviation([0.2])[1])
    assert isnan(counts.mean_and_deviation([])[0]) and counts.mean_and_deviation([])[2] == 0
    assert counts.ends(0.5, 0.1) == (0.4, 0.6) and counts.ends(0.5, nan) == (0.5, 0.5)


def test_numbers_that_vary_within_a_method_are_swept(tmp_path):
    for seed in (0, 1):
        for weight in (0.01, 0.1, 1.0):
            made_up(tmp_path, "coral", seed, weight=weight, flag=True, right=0.4 + weight / 5)
        made_up(tmp_path, "mmd", seed, weight=5.0)
    for seed, kind in ((5, "a"), (6, "b")):  # settings that were made with other seeds
        made_up(tmp_path, "kmm", seed, kind=kind)
    found = read_records([tmp_path])[0]
    groups = group_by_pair(found, build_leaderboard(found), [])["digits"]
    ((method, key, points),) = hyperparameters.varied(groups)
    assert (method, key, [value for value, _ in points]) == ("coral", "method.weight", [0.01, 0.1, 1.0])
    assert all(group.row["variant"] == f"method.weight={value:g}" for value, group in points)
    figure = hyperparameters.figure(groups)
    means = ", ".join(f"{value:g}: {100 * group.row['target']:.1f} %" for value, group in points)
    assert f"coral, target accuracy by method.weight: {means}" in figure.panels[0].chart
    assert ">0.01<" in figure.panels[0].chart and ">0.1<" in figure.panels[0].chart  # powers of ten: two decades
    assert counts.decades([1, 50]) < 2 <= counts.decades([1, 100]) and counts.decades([0, 100]) == 0


def test_one_seed_has_no_whisker_in_a_sweep(tmp_path):
    for weight in (0.1, 1.0):
        made_up(tmp_path, "coral", 0, weight=weight)
    found = read_records([tmp_path])[0]
    (panel,) = hyperparameters.figure(group_by_pair(found, build_leaderboard(found), [])["digits"]).panels
    spans = re.findall(r'class="whisker c0" d="M[\d.]+ ([\d.]+)V([\d.]+)"', panel.chart)
    assert len(spans) == 2 and all(low == high for low, high in spans)


# --- the drawing


def test_a_point_lies_where_its_value_says():
    chart = Chart(Scale(0, 10, "x"), Scale(0, 1, "y"), "words", size=(150, 154))
    left, top, width, height = chart.box
    assert (width, height) == (100, 100)
    chart.mark(2, 0.75, "c0")
    assert f'cx="{left + 20:.1f}" cy="{top + 25:.1f}"' in chart.svg
    chart.line([0, 10], [0, 1], "c1")
    assert f"M{left:.1f} {top + 100:.1f}L{left + 100:.1f} {top:.1f}" in chart.svg
    chart.band([0, 10], [0, 0], [1, 0.5], "c1")
    assert f"M{left:.1f} {top:.1f}L{left + 100:.1f} {top + 50:.1f}L{left + 100:.1f} {top + 100:.1f}" in chart.svg
    before = chart.svg
    chart.line([nan], [1], "c0")
    chart.whisker(1, nan, 2, "c0")
    chart.band([0], [nan], [nan], "c0")
    assert chart.svg == before


def test_rows_are_below_each_other():
    chart = Chart.of_rows(["first", "second"], Scale(0, 1, "x"), "words")
    chart.mark(0.5, -0.5, "c0")
    chart.mark(0.5, -1.5, "c0")
    one, two = (float(y) for y in re.findall(r'cy="([\d.]+)"', chart.svg))
    assert one < two
    assert chart.svg.index("first") < chart.svg.index("second")
    assert columns(list(range(40))) == ([list(range(14)), list(range(14, 28)), list(range(28, 40))], 280)
    assert columns([1, 2]) == ([[1, 2]], 360)


def test_ticks_are_round_and_within():
    assert Scale(0.31, 0.97, percent=True).ticks() == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert Scale(-0.47, 0.36).ticks(most=4) == pytest.approx([-0.4, -0.2, 0.0, 0.2])  # and no lonely 0
    assert Scale(-0.3, 7.1).ticks() == [0, 2, 4, 6]
    assert Scale(0.005, 200, log=True).ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert Scale(0.01, 100, log=True).at(1) == pytest.approx(0.5)
    assert Scale(0, 1, percent=True).format_value(-0.2) == "−20"
    axis = spanning([3.0, nan, 5.0])
    assert axis.low < 3 and axis.high > 5 and spanning([2.0]).high > 2 and spanning([]).high > 0


def test_a_figure_keeps_the_baseline_the_best_and_the_worst(groups):
    rows = [SimpleNamespace(method=name) for name in "abcdef"]
    rows.insert(3, SimpleNamespace(method="source_only"))
    kept, said = choose_settings(rows, 4)  # type: ignore[arg-type]
    assert [each.method for each in kept] == ["source_only", "a", "b", "f"] and "4 of 7" in said
    kept, said = choose_settings(rows, 7)  # type: ignore[arg-type]
    assert len(kept) == 7 and kept[0].method == "source_only" and not said


def test_a_map_of_features_is_reproducible_and_keeps_neighbours(groups):
    middles = np.repeat(np.eye(3) * 50, 20, 0)
    rows = (middles + np.random.default_rng(0).normal(size=middles.shape)).astype(np.float32)
    places, how = features.project_to_plane(rows)
    assert how == "t-SNE" and np.array_equal(places, features.project_to_plane(rows)[0])
    distances = np.linalg.norm(places[:, None] - places, axis=-1) + 1e9 * np.eye(60)
    assert (distances.argmin(-1) // 20 == np.arange(60) // 20).all()
    few, how = features.project_to_plane(rows[:10])
    assert how == "first two principal components" and np.array_equal(few, rows[:10, :2].astype(float))


def test_features_are_drawn_by_class_and_by_domain(groups):
    figure = features.figure([groups["mmd"]])
    by_class, by_domain = figure.panels
    assert "by class" in by_class.note and "by domain" in by_domain.note and "seed 0" in by_class.note
    assert f"{ROWS} source and {ROWS} target rows of run {groups['mmd'].runs[0].record.id}" in by_class.chart
    crosses = {name: re.findall(r'class="cross (\w+)" d="([^"]*)"', each) for name, each in
               (("class", by_class.chart), ("domain", by_domain.chart))}  # fmt: skip
    assert len(crosses["class"]) == 4 and [kind for kind, _ in crosses["domain"]] == ["c3"]
    assert sum(path.count("M") for _, path in crosses["class"]) == ROWS
    run = groups["mmd"].runs[0]
    rows = [load_file(run.record.folder / "diagnosis.safetensors")[f"{side}_features"] for side in ("source", "target")]
    places = features.project_to_plane(np.concatenate(rows))[0]
    x, y = (spanning(column) for column in places.T)
    own = Chart(x, y, "", features.SIZE, bare=True)
    own.crosses(places[ROWS:].tolist(), "c3")  # the target's rows come second
    assert own.svg.partition(">")[2].removesuffix("</svg>") in by_domain.chart


# --- samples and weights


def test_mistakes_are_marked_and_the_samples_are_those_of_the_labels(groups):
    figure = samples.figure(list(groups.values()))
    source, target = figure.galleries
    assert source.heading == "source: rendered" and len(target.pictures) == 6
    runs = [groups[name].runs[0] for name in ("source_only", "mmd")]
    for number, picture in enumerate(target.pictures):
        label = truth(runs[0])[number]
        guesses = [predicted(run, 90)[number].argmax() for run in runs]
        assert picture.lines[0] == (groups["mmd"].classes[label], None)
        assert [right for _, right in picture.lines[1:]] == [guess == label for guess in guesses]
        assert picture.lines[2][0] == f"mmd: {groups['mmd'].classes[guesses[1]]}"
    assert any(right is False for picture in target.pictures for _, right in picture.lines)
    assert "seed 0" in figure.caption and "of source_only and of mmd predicts" in figure.caption
    long = [replace(groups["mmd"], name="mmd of a long name"), groups["kmm"]]
    figure = samples.figure(long)
    assert figure.galleries[1].pictures[0].lines[1][0].startswith("(1): class") and "of (1) mmd of a" in figure.caption


def test_a_picture_holds_the_pixels():
    import base64
    from io import BytesIO

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
    kind, _, content = samples.uri(image).partition(";base64,")
    assert kind == "data:image/png"
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(content)))), image.transpose(1, 2, 0))
    kind, _, content = samples.uri(np.zeros((1, 300, 150), np.uint8)).partition(";base64,")
    assert kind == "data:image/jpeg" and Image.open(BytesIO(base64.b64decode(content))).size == (48, 96)


def test_weights_are_told_of_images_and_of_rows(groups, found):
    figure = samples.draw_weighted_rows(list(groups.values()))
    assert [gallery.heading for gallery in figure.galleries] == [
        "weighted · seed 0 · heaviest",
        "weighted · seed 0 · lightest",
    ]
    assert [picture.lines[0][0] for picture in figure.galleries[0].pictures] == ["5.5", "4", "3", "2.5"]
    table = group_by_pair(found, build_leaderboard(found), [])["table"]
    cells = samples.draw_weighted_rows(table).cells
    assert cells[0].rows[0][0] == "5.5" and cells[0].columns[-1] == "and 2 more" and len(cells[0].rows) == 4
    assert cells[0].columns[1:3] == ["x0", "x1"]
    first = table[0].runs[0].record
    named = [{"name": "city", "kind": "categorical", "categories": ["Bonn", "Ulm"]}]
    named += [{"name": f"n{n}", "kind": "numeric", "gaps": n == 0} for n in range(9)]
    first.data.encoding = {"columns": named}
    columns = samples.draw_weighted_rows(table).cells[0].columns
    assert columns[1:6] == ["city=Bonn", "city=Ulm", "n0 (scaled)", "n0 missing", "n1 (scaled)"]
    rows = load_file(first.folder / "diagnosis.safetensors")["heaviest"]
    assert cells[0].rows[1][1:11] == [f"{value:.2f}" for value in rows[1, :10]]


# --- the words


def row(method: str, target: float, **more) -> tuple[str, dict]:
    known = {"setting": method, "method": method, "granted": "0", "target": target, "target_sd": 0.038, "n": 10}
    known |= {
        "pairs": 10,
        "difference": nan,
        "low": nan,
        "high": nan,
        "p": nan,
        "verdict": "",
        "baseline": "source_only",
    }
    return method, known | more


def test_the_answer_in_words():
    best = row("mmd", 0.826, difference=0.128, low=0.095, high=0.162, p=0.0004, verdict="better")
    worse = row("kmm", 0.579, difference=-0.119, low=-0.155, high=-0.084, p=0.001, verdict="negative transfer")
    base = row("source_only", 0.698, baseline="")
    full = row("target_only", 0.99, granted="all")
    assert answer([full, best, base, worse]) == [
        "Highest without target labels: mmd 82.6 ± 3.8 %, +12.8 points over source_only"
        " (+9.5 to +16.2; p < 0.001, n = 10).",
        "Shown to be better than the baseline: 1 of 2 settings.",
        "Negative transfer: kmm −11.9.",
    ]
    granted = row("finetune", 0.9, granted="5")
    assert answer([granted, base])[1:3] == [
        "Highest with granted target labels: finetune (granted=5) 90.0 ± 3.8 % (n = 10).",
        "Nothing was compared with a baseline by a test: that takes runs of both on the same seeds, at least"
        " three, with the same labels.",
    ]
    maybe = row("afn", 0.65, difference=-0.048, low=-0.09, high=-0.006, p=0.2, verdict="maybe worse")
    assert answer([base, maybe])[-2:] == [
        "No negative transfer is shown.",
        "Maybe worse, before Holm's correction alone: afn −4.8.",
    ]
    other = row("finetune", 0.9, granted="5", difference=0.2, verdict="other labels")
    assert answer([other, base])[1:] == [
        "Highest with granted target labels: finetune (granted=5) 90.0 ± 3.8 %, +20.0 points over source_only"
        " (which saw other labels: not tested, n = 10).",
        "Nothing was compared with a baseline by a test: that takes runs of both on the same seeds, at least three,"
        " with the same labels.",
    ]
    assert answer([worse, base])[1] == "Nothing that was tried did better than no adaptation."
    assert answer([row("mmd", nan, n=0)]) == ["No run of this pair has ended well: there is no answer yet."]


def test_the_table_shows_and_sorts_by_the_same_numbers(found):
    frame = build_leaderboard(found)
    columns, lines = build_leaderboard_table([row for row in rows_of(frame) if row["pair"] == "digits"])
    titles = [column.title for column in columns]
    shown = {line["method"]: dict(zip(titles, cells, strict=True)) for line, cells in lines}
    mmd = frame.set_index(["pair", "method"]).loc[("digits", "mmd")]
    assert shown["mmd"]["Target, %"].value == mmd["target"]
    assert shown["mmd"]["Target, %"].text == f"{100 * mmd['target']:.1f} ± {100 * mmd['target_sd']:.1f}"
    assert shown["mmd"]["Difference"].text == f"{100 * mmd['difference']:+.1f}"
    assert shown["mmd"]["Failed"].text == "1" and shown["mmd"]["n"].value == 3
    assert shown["mmd"]["W / T / L"].value == mmd["wins"] - mmd["losses"]
    assert shown["source_only"]["Difference"].text == "–" and str(shown["source_only"]["W / T / L"].value) == "nan"
    assert shown["kmm"]["Difference"].text.startswith("−")
    assert shown["kmm"]["W / T / L"] == Cell("0 / 0 / 3", -3.0)


# --- the page


def test_the_page_needs_no_network_and_trusts_no_name(whole):
    assert not re.search(r"https?:|@import|url\(", whole)
    assert all(value.startswith(("#", "data:")) for value in re.findall(r'(?:src|href)="([^"]*)"', whole))
    assert "<script>alert(1)" not in whole and "&lt;script&gt;alert(1)" in whole  # a failed run's error
    assert "<b>1</b>" not in whole and "&lt;b&gt;1&lt;/b&gt;" in whole  # a class
    assert "default-src 'none'" in whole


def test_the_page_has_everything(whole, found):
    titles = ["Difference to the baseline", "Learning curves", "Domain gap", "Features of both", "Confusions on"]
    titles += ["Classes that", "Calibration on", "Samples and mistakes", "What weighed most"]
    for title in titles:
        assert f"<h3>{title}" in whole, title
    said = text(re.sub(r"<[^>]+>", " ", whole))
    assert re.search(r"Runs 14 Failed 1 Pairs 2 Methods 4 Seeds 4 Made on 2026-11-21", said)
    assert "fewer than 3 seeds of weighted" in said  # a caveat
    assert all(record.id in whole and str(record.folder) in whole for record in found)
    assert "0123456789 + changes" in said and "Highest without target labels: mmd" in said
    assert said.count("n = ") > 20
    labels = re.findall(r'<svg class="chart" [^>]*role="img" aria-label="([^"]+)"', whole)
    assert len(labels) == whole.count("<svg") > 20
    assert whole.count("<figcaption>") == whole.count("<figure ")
    assert all("alt=" in image and 'alt=""' not in image for image in re.findall(r"<img [^>]*>", whole))


def test_the_same_folders_make_the_same_page(whole, found):
    frame = build_leaderboard(found)
    assert page(found, frame, list(rankings(found)), list_caveats(found, frame), MADE) == whole


def test_what_runs_have_not_kept_is_said_in_its_place(tmp_path):
    for seed in (0, 1):
        for method in ("source_only", "mmd"):
            made_up(tmp_path, method, seed, diagnosed=False)
    found = read_records([tmp_path])[0]
    frame = build_leaderboard(found)
    whole = page(found, frame, [], [], MADE)
    for name, why in (
        ("gap", "No run of this pair has a distance"),
        ("features", "has features to show"),
        ("weighed", "kept its weights"),
    ):
        assert f'-{name}" class' not in whole and why in whole
    assert "these runs have no true labels" in text(whole) and "information of target predictions" in whole
    assert "<h3>Learning curves" in whole


def test_that_there_are_no_ranks_is_said_on_the_page(found):
    few = [Ranking("0", 2, None, ())]
    assert "granted=0: 2 pairs have settings in common: ranks need at least 5." in text(
        page(found, build_leaderboard(found), few, [], MADE)
    )


def test_a_page_of_failures_alone_is_a_page(tmp_path):
    made_up(tmp_path, "mmd", 0, status="failed")
    found = read_records([tmp_path])[0]
    whole = page(found, build_leaderboard(found), [], [], MADE)
    assert "there is no answer yet" in whole and "UserError: &lt;script&gt;" in whole


def test_broken_files_are_told_and_the_rest_is_drawn(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path, "mmd", seed)
    found = read_records([tmp_path])[0]
    (found[0].folder / "curve.jsonl").write_text("{no json\n")
    (found[0].folder / "diagnosis.safetensors").write_bytes(b"nothing")
    other = found[1].folder / "predictions.safetensors"
    tensors = {name: rows[:-1] for name, rows in load_file(other).items()}
    from safetensors.numpy import save_file

    save_file(tensors, other)
    said = text(page(found, build_leaderboard(found), [], [], MADE))
    assert "curve.jsonl can&#39;t be read" in said and "diagnosis.safetensors can&#39;t be read" in said
    assert "labels and predictions do not fit together" in said
    assert "<h3>Domain gap" in said


def test_rows_of_a_source_with_other_classes_are_grey(groups, tmp_path):
    made_up(tmp_path, "mmd", 0)
    (record,) = read_records([tmp_path])[0]
    file = record.folder / "run.json"
    content = json.loads(file.read_text())
    content["scores"]["source"] = None
    file.write_text(json.dumps(content))
    found = read_records([tmp_path])[0]
    others = group_by_pair(found, build_leaderboard(found), [])["digits"]
    assert set(re.findall(r'class="dot (\w+)"', features.figure(others).panels[0].chart)) == {"quiet"}
    assert set(re.findall(r'class="dot (\w+)"', features.figure([groups["mmd"]]).panels[0].chart)) == {
        "c0",
        "c1",
        "c2",
        "c3",
    }
    source, target = samples.figure(others).galleries
    assert all(not picture.lines for picture in source.pictures) and all(picture.lines for picture in target.pictures)
