"""Whole runs on targets without labels: everything works but the scores, and no number is shown that is not known."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import METHODS, built, made, some_slow
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

import tl_runner
from tl_runner.errors import UserError
from tl_runner.storage.record import RunRecord, read_record

TINY = ["train=tiny", "pretrain=tiny", "device=cpu", "threads=1"]
TABLES = ["dataset=table", "dataset.source=a.csv", "backbone=mlp", *TINY]
BATCHNORM = {"adabn", "tent"}  # they need it, and a perceptron has none
FREE = [name for name in METHODS if name == "auto" or not ("granted" in built(name).needs or name in BATCHNORM)]
UNKNOWN = re.compile("(?i)accuracy.{0,20}nan|nan ?%|none ?%")


def tables(n: int = 120) -> None:
    """a.csv and b.csv with labels, unlabelled.csv and permuted.csv: b's rows without their labels, and with others."""
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 0.7)):
        y = rng.integers(0, 3, n)
        x = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y] + shift
        rows = [[f"{value:.5f}" for value in row] for row in x]
        with Path(f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["p", "q", "r", "s", "label"], *([*row, f"c{k}"] for row, k in zip(rows, y, strict=True))]
            )
    lines = [line.rpartition(",") for line in Path("b.csv").read_text().splitlines()]
    labels = [label for _, _, label in lines[1:]]
    rng.shuffle(labels)
    for folder, kept in (("none", [""] * n), ("others", [f",{label}" for label in labels])):
        Path(folder).mkdir()
        head = "p,q,r,s" + (",label" if folder == "others" else "")
        body = [row + label for (row, _, _), label in zip(lines[1:], kept, strict=True)]
        Path(folder, "b.csv").write_text("\n".join([head, *body, ""]))


def predictions(record: RunRecord) -> list[dict[str, str]]:
    return list(csv.DictReader((record.folder / "predictions.csv").read_text().splitlines()))


def alike(printed: str, record: RunRecord) -> bool:
    """Whether tl-predict printed what the run kept, but for the last digits: it calibrates before the softmax."""
    mine, kept = [*csv.DictReader(printed.splitlines())], predictions(record)
    same = all(a["path"] == b["path"] and a["predicted"] == b["predicted"] for a, b in zip(mine, kept, strict=True))
    gaps = [abs(float(a["probability"]) - float(b["probability"])) for a, b in zip(mine, kept, strict=True)]
    return same and max(gaps) < 1e-5


@pytest.mark.parametrize("method", some_slow(FREE))
def test_removing_or_permuting_the_targets_labels_changes_no_byte_of_weights_and_predictions(method, tmp_path):
    tables()
    runs = {
        name: made(tmp_path / name, *TABLES, f"dataset.target={folder}b.csv", f"method={method}")
        for name, folder in (("with", ""), ("without", "none/"), ("permuted", "others/"))
    }
    for file in ("model.safetensors", "predictions.safetensors", "validation.safetensors", "curve.jsonl"):
        kept = {name: (run.folder / file).read_bytes() for name, run in runs.items()}
        if file == "curve.jsonl":
            kept = {name: re.sub(rb'"seconds": [\d.]+', b"", text) for name, text in kept.items()}
        assert kept["with"] == kept["without"] == kept["permuted"], file
    sheets = {
        name: [{**row, "path": row["path"].rpartition(":")[2]} for row in predictions(run)]
        for name, run in runs.items()
    }
    assert len(sheets["without"]) == 120 and sheets["with"] == sheets["without"] == sheets["permuted"]
    with_, without, permuted = (runs[name].scores for name in ("with", "without", "permuted"))
    assert with_ and without and permuted and without.target is None and without.oracle is None
    assert with_.target != permuted.target and {*without.selected} == {*without.last} == {"step"}
    assert with_.estimated == without.estimated == permuted.estimated


def test_every_target_row_is_predicted_with_calibrated_probabilities(tmp_path):
    tables()
    record = made(tmp_path, *TABLES, "dataset.target=none/b.csv", "method=mmd")
    rows, temperature = predictions(record), record.training.temperature
    assert [row["path"] for row in rows] == [f"none/b.csv:{line}" for line in range(2, 122)]
    assert [*rows[0]] == ["path", "predicted", "probability", "c0", "c1", "c2"] and temperature
    by_name = {row["path"]: [float(row[name]) for name in ("c0", "c1", "c2")] for row in rows}
    assert record.scores is not None
    test = load_file(record.folder / "predictions.safetensors")[f"step_{record.scores.selected['step']}"]
    names = (record.folder / "test.csv").read_text().splitlines()[1:]
    scaled = np.log(test.astype(float)) / temperature
    expected = np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)
    np.testing.assert_allclose([by_name[name] for name in names], expected, atol=1e-6)
    assert all(row["predicted"] == max(("c0", "c1", "c2"), key=lambda name: float(row[name])) for row in rows)


def test_what_a_person_sees_of_an_unlabelled_target_holds_no_unknown_number(typed, tmp_path):
    tables()
    words = [*TABLES, "dataset.target=none/b.csv"]
    single = typed("tl-run", *words, "method=mmd")
    assert single.code == 0 and "unknown: no labels" in single.out and "estimated without its labels" in single.out
    assert "no labels, so its accuracy stays unknown" in single.err + single.out
    assert "predictions.csv there has the class of each of the target's 120 rows" in " ".join(single.out.split())
    assert "no baseline" not in single.out and "best, by target labels" not in single.out
    again = typed("tl-run", *words, "method=mmd")
    assert again.code == 0 and "unknown: no labels" in again.out
    made_up = [made(Path("outputs"), *words, f"method={method}") for method in ("source_only", "coral")]
    made_up.append(made(Path("outputs"), *words, "method=coral", "seed=1"))
    table = typed("tl-report", "outputs")
    assert table.code == 0 and "the target has no labels" in table.out and "agreement, %" in table.out
    assert "target, %" not in table.out and "nothing is tested" in " ".join(table.out.split())
    page = typed("tl-report", "outputs", "--html", "page.html")
    html = Path("page.html").read_text()
    assert page.code == 0 and "The target has no labels: no accuracy on it is known." in html
    for form in ("csv", "json", "markdown", "latex"):
        assert typed("tl-report", "outputs", "--format", form).code == 0
    compared = typed("tl-report", "diff", *(run.folder for run in made_up[:2]))
    assert compared.code == 0
    for said in (single.out, table.out, html, compared.out):
        assert not UNKNOWN.search(said)
    rows = json.loads(typed("tl-report", "outputs", "--format", "json").out)["settings"]
    assert all(row["target"] is None and row["estimated"] is not None for row in rows)
    agree = {row["method"]: row["seeds_agree"] for row in rows}
    one, two = (predictions(run) for run in made_up[1:])
    shares = [a["predicted"] == b["predicted"] for a, b in zip(one, two, strict=True)]
    assert agree == {"mmd": None, "source_only": None, "coral": pytest.approx(sum(shares) / 120)}


def test_a_run_on_an_unlabelled_target_predicts_exports_and_resumes(typed, tmp_path):
    tables()
    record = made(Path("outputs"), *TABLES, "dataset.target=none/b.csv", "method=mmd")
    said = typed("tl-predict", record.folder, "none/b.csv")
    assert said.code == 0 and alike(said.out, record)
    tested = typed("tl-predict", record.folder, "--test", "--out", "t.csv")
    assert tested.code == 0 and "24 of 24 rows have the class" in tested.err and "accuracy" not in tested.err
    assert typed("tl-export", record.folder, "--to", "pt2").code == 0
    from tl_runner.engine.run import run
    from tl_runner.storage.record import describe_run

    config = {**record.config, "outputs": str(tmp_path / "halted"), "checkpoint_every": 0.0}
    halted = describe_run(config, record.choices)
    making = run(halted)
    next(making)
    making.close()
    resumed = describe_run(config, record.choices)
    for _ in run(resumed):
        pass
    assert resumed.environment.resumed and resumed.scores == record.scores
    assert (resumed.folder / "predictions.csv").read_bytes() == (record.folder / "predictions.csv").read_bytes()
    assert read_record(resumed.folder / "run.json").scores == record.scores


def test_a_search_by_target_labels_is_refused_where_there_are_none(typed):
    tables()
    search = ["-m", *TABLES, "dataset.target=none/b.csv", "hydra/sweeper=tl_optuna", "hydra.sweeper.n_trials=2"]
    said = typed("tl-run", *search, "method.weight=interval(0.1,10)", "objective=oracle")
    assert said.code == 1 and "objective=oracle takes the target's test labels" in said.err + said.out
    assert typed("tl-run", *search, "method.weight=interval(0.1,10)").code == 0


def test_labels_of_some_rows_are_granted_or_scored(tmp_path):
    tables()
    lines = Path("b.csv").read_text().splitlines()
    Path("half.csv").write_text(
        "\n".join([lines[0], *(row if i % 3 else row[:-2] for i, row in enumerate(lines[1:])), ""])
    )
    words = [*TABLES, "dataset.target=half.csv"]
    scored = made(tmp_path / "a", *words, "method=mmd", "dataset.score_on=labelled")
    assert scored.data.labelled == [0, 0, 80] and scored.headline is not None and scored.data.granted == 0
    granted = made(tmp_path / "b", *words, "method=finetune", "granted=labelled")
    assert granted.data.labelled == [80, 0, 0] and granted.headline is None and granted.data.granted == 80
    assert granted.granted == "labelled"
    both = made(tmp_path / "c", *words, "method=finetune", "granted=5")
    assert both.data.granted == 15 and both.headline is not None
    assert len(predictions(scored)) == len(predictions(granted)) == 120


def test_a_method_that_needs_target_labels_says_so(tmp_path):
    tables()
    for method in ("target_only", "finetune", "feature_extract"):
        with pytest.raises(UserError, match="this method learns from granted target labels, and no row of the train"):
            made(tmp_path, *TABLES, "dataset.target=none/b.csv", f"method={method}")


def test_a_folder_of_images_without_classes_is_a_target(typed):
    images, y = load_digits(return_X_y=True)
    for i, (image, label) in enumerate(zip(images[:300], y, strict=False)):
        place = Path("photos/studio", str(label)) if i < 200 else Path("photos/inbox")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(image.reshape(8, 8) * 255 / 16).astype(np.uint8)).save(place / f"{i:03}.png")
    words = [
        "dataset=image_folder",
        "dataset.root=photos",
        "dataset.source=studio",
        "dataset.target=inbox",
        "method=mmd",
    ]
    said = typed("tl-run", *words, "dataset.size=8", *TINY)
    assert said.code == 0 and "unknown: no labels" in said.out and "estimated without its labels" in said.out
    (folder,) = Path("outputs/runs/image_folder").iterdir()
    rows = predictions(read_record(folder / "run.json"))
    assert [row["path"] for row in rows] == [f"photos/inbox/{i}.png" for i in range(200, 300)]
    predicted = typed("tl-predict", folder, "photos/inbox")
    assert predicted.code == 0 and alike(predicted.out, read_record(folder / "run.json"))
    trained = tl_runner.load(folder)
    probabilities = trained.model(trained.preprocessing("photos/inbox/200.png")).softmax(-1)[0]
    assert probabilities.max().item() == pytest.approx(float(rows[0]["probability"]), abs=1e-5)
    page = typed("tl-report", "--html", "page.html")
    assert page.code == 0 and "no label says whether it is right" in Path("page.html").read_text()
