"""A finished run on texts put to use: its folder is all that is needed, and what it predicts is what it stored."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import made
from support.stored import calibrated

import tl_runner
from tl_runner.datasets.reviews import reviews
from tl_runner.errors import UserError
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page.figure import FigureTable
from tl_runner.report.page.groups import group_by_pair
from tl_runner.report.page.samples import draw_weighted_rows, figure
from tl_runner.storage.record import RunRecord

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),
]
TINY = ["train=tiny", "pretrain=tiny", "threads=1", "dataset.samples=80"]
BACKBONES = ("bag_of_embeddings", "embedding_gru", "tfidf")
EXACT = 1e-6  # batches of other sizes add up in another order


def write_reviews(folder: Path) -> None:
    """The two domains of reviews as files of a user's own, a CSV and JSON lines."""
    drawn = reviews(0, samples=80)
    for name, raw in (("films.csv", drawn.source), ("gadgets.jsonl", drawn.target)):
        assert raw is not None and raw.texts is not None
        rows = [(text, raw.classes[label]) for text, label in zip(raw.texts, raw.y.tolist(), strict=True)]
        if name.endswith("csv"):
            lines = ["review,label", *(f'"{text}",{label}' for text, label in rows)]
        else:
            lines = [json.dumps({"review": text, "label": label}) for text, label in rows]
        (folder / name).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Path, dict[str, RunRecord]]:
    """Runs of each backbone on files, and where those lie."""
    home = tmp_path_factory.mktemp("texts")
    write_reviews(home)
    dataset = [
        "dataset=text",
        f"dataset.source={home}/films.csv",
        f"dataset.target={home}/gadgets.jsonl",
        "dataset.text=review",
    ]
    return home, {
        name: made(home / "outputs", *dataset, f"backbone={name}", "method=source_only", *TINY[:-1])
        for name in BACKBONES
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_test_split_is_predicted_as_the_run_stored_it(backbone, stored, typed):
    run = stored[1][backbone]
    assert run.status == "ok" and run.data.input == "text"
    said = typed("tl-predict", run.folder, "--test")
    assert said.code == 0 and "16 of 16 rows have the class of the run's stored predictions" in said.err, said.err
    rows = [line.split(",") for line in said.out.splitlines()[1:]]
    found = torch.tensor([[float(number) for number in row[-2:]] for row in rows])
    torch.testing.assert_close(found, calibrated(run), rtol=0, atol=EXACT)


def test_the_folder_alone_is_enough(stored, tmp_path, typed):
    shutil.copytree(stored[1]["embedding_gru"].folder, tmp_path / "alone")
    model, preprocessing, classes = tl_runner.load(tmp_path / "alone")
    text = "A gripping film. I loved it."
    Path("one.txt").write_text(text)
    Path("many.csv").write_text(f'review\n"{text}"\n\U0001f525\n')
    with torch.no_grad():
        expected = model(preprocessing(text)).softmax(-1)[0]
    said = typed("tl-predict", tmp_path / "alone", "one.txt", "many.csv")
    lines = [line.split(",") for line in said.out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["one.txt", "many.csv:2", "many.csv:3"] and said.code == 0, said.err
    assert lines[0][1:] == lines[1][1:] and lines[0][1] == classes[int(expected.argmax())]
    assert [float(number) for number in lines[0][-2:]] == pytest.approx(expected.tolist(), abs=EXACT)
    Path("empty.txt").write_text("")
    refused = typed("tl-predict", tmp_path / "alone", "empty.txt")
    assert refused.code and "empty.txt: it is empty: there is nothing to predict" in refused.err
    (tmp_path / "alone" / "tokenizer.json").unlink()
    refused = typed("tl-predict", tmp_path / "alone", "one.txt")
    assert refused.code and "tokenizer.json, by which the run reads texts, can't be read" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_exported_model_reads_texts_of_any_length(backbone, to, stored, typed):
    check_export(stored[1][backbone], to, typed)


def test_a_gru_is_exported_with_its_tokenizer(stored, typed):
    check_export(stored[1]["embedding_gru"], "pt2", typed)


def check_export(run: RunRecord, to: str, typed) -> None:
    said = typed("tl-export", run.folder, "--to", to, "--out", f"model.{to}", "--samples", "40")
    length = run.data.shape[0]
    assert said.code == 0 and f"input (n, 1 to {length}) int64 -> probabilities (n, 2)" in said.out, said.err
    assert "on 40 samples (16 of the run's data, 24 random)" in said.out
    model, preprocessing, _ = tl_runner.load(run.folder)
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(f"model.{to}", providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map["preprocessing"]
        predict = lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])  # noqa: E731
    else:
        extra = {"tl_runner.json": ""}
        if to == "pt2":
            predict = torch.export.load(f"model.{to}", extra_files=extra).module()
        else:
            predict = torch.jit.load(f"model.{to}", _extra_files=extra)
        facts = json.dumps(json.loads(extra["tl_runner.json"])["preprocessing"])
    kept = json.loads((run.folder / "tokenizer.json").read_text())
    assert json.loads(facts)["tokenizer"] == kept and json.loads(facts)["kind"] == "text"
    x = preprocessing("A dull film.", "I loved it, and it broke on Monday.")
    with torch.no_grad():
        for part in (x, x[:1], x[:, :7], x[:, :1], x[:1, : length // 2]):
            torch.testing.assert_close(predict(part), model(part).softmax(-1), rtol=0, atol=1e-5)


def test_a_run_on_made_up_texts_has_no_files_to_predict_and_is_checked_on_what_it_keeps(tmp_path, typed):
    run = made(tmp_path, "dataset=reviews", "backbone=bag_of_embeddings", "method=source_only", *TINY)
    said = typed("tl-predict", run.folder, "--test")
    assert said.code and "its dataset is not made of files" in said.err
    said = typed("tl-export", run.folder, "--to", "torchscript", "--samples", "20")
    assert "(10 of the run's data, 10 random)" in said.out, said.err


def test_the_page_shows_texts_that_changed_class_and_those_that_weigh_most(tmp_path):
    dataset = ["dataset=reviews", "backbone=embedding_gru", *TINY]
    found = [
        made(tmp_path, *dataset, "method=source_only"),
        made(tmp_path, *dataset, "method=target_only", "granted=all"),
        made(tmp_path, *dataset, "method=kliep", "method.view=features"),
    ]
    assert all(run.status == "ok" for run in found)
    groups = next(iter(group_by_pair(found, build_leaderboard(found), []).values()))
    shown = figure(groups)
    (cells,) = shown.cells
    assert isinstance(cells, FigureTable) and cells.columns[:2] == ["text", "class"]
    runs = {group.method: group.runs[0] for group in groups}
    before, after = (runs[name].diagnosis("target_predicted") for name in ("source_only", "kliep"))
    assert before is not None and after is not None
    changed = int((before != after).sum())
    assert f"{changed} of 16 texts changed class from source_only to kliep" in cells.heading
    assert len(cells.rows) == min(changed, 12)
    texts = runs["kliep"].texts("target_texts")
    assert len(texts) == 16 and all(0 < len(text) <= 200 for text in texts)
    assert [row[0] for row in cells.rows] == [text for text, a, b in zip(texts, before, after, strict=True) if a != b][
        :12
    ]
    weighed = draw_weighted_rows(groups)
    assert [each.columns for each in weighed.cells] == [["weight", "text"]] * 2
    assert len(weighed.cells[0].rows) == 8 and float(weighed.cells[0].rows[0][0]) >= float(weighed.cells[1].rows[0][0])


def test_the_stages_of_a_network_for_texts_are_screened(typed):
    said = typed(
        "tl-screen",
        "dataset=reviews",
        "backbone=embedding_gru,tfidf",
        "stage=all",
        "pretrain=tiny",
        "device=cpu",
        "dataset.samples=80",
    )
    assert said.code == 0 and "4 candidates" in said.out, said.err
    for stage in ("embedding", "gru", "mean", "tfidf"):
        assert f" {stage} " in said.out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=kliep"], "method.view=features"),
        (["method=fixmatch"], "texts have no random views"),
        (["method=adamatch"], "texts have no random views"),
        (["method=bi_tuning", "granted=5"], "these rows are texts"),
        (["method=source_only", "augment=weak"], "use augment=none"),
        (["method=source_only", "backbone=mlp"], "mlp does not read texts: use backbone=embedding_gru"),
    ],
)
def test_what_makes_no_sense_for_texts_is_refused_in_words(overrides, words, tmp_path):
    with pytest.raises(UserError, match=words):
        made(tmp_path, "dataset=reviews", "backbone=bag_of_embeddings", *TINY, *overrides)
