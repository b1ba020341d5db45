"""Whole runs on texts: cut off and resumed, loaded without their encoder, exported; no target label reaches them."""

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import described, made
from support.encoders import save_encoder
from support.equal_runs import equal

import tl_runner
from tl_runner.engine.run import run
from tl_runner.inference.export import export
from tl_runner.inference.inputs import list_test_inputs
from tl_runner.inference.predict import compare_with_stored, predictions
from tl_runner.inference.samples import samples
from tl_runner.storage.record import RunRecord

TINY = [
    "dataset=reviews",
    "dataset.samples=60",
    "train.steps=12",
    "train.batch=8",
    "pretrain=tiny",
    "checkpoint_every=0",
]
WORDS = ["good", "bad", "bright", "dull"]


def write_domains(folder: Path) -> list[str]:
    """Two files of short reviews whose words the tiny encoders know."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, noun in (("films", "film with the plot"), ("gadgets", "gadget and its battery")):
        rows = [f"this {noun} is {WORDS[i % 4]} and {WORDS[(i + i // 4) % 4]} {'a ' * (i % 7)}" for i in range(60)]
        lines = [f'"{text}",{"positive" if i % 2 == 0 else "negative"}' for i, text in enumerate(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    files = [f"dataset.source={folder}/films.csv", f"dataset.target={folder}/gadgets.csv"]
    return ["dataset=text", *files, "train.steps=12", "train.batch=8", "pretrain=tiny", "checkpoint_every=0"]


def with_encoder(tmp_path: Path) -> list[str]:
    encoder = save_encoder(tmp_path / "encoder")
    return [*write_domains(tmp_path / "data"), "backbone=transformer", f"backbone.path={encoder}", "backbone.length=16"]


def finish(points: Generator[Any, None, RunRecord]) -> None:
    for _ in points:
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["backbone=transformer", "method=finetune", "granted=5"],
        ["backbone=transformer", "method=finetune", "granted=5", "method.lora_rank=2"],
        ["backbone=transformer", "method=udalm"],
        ["backbone=embedding_gru", "method=mmd"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_a_run_on_texts_that_was_cut_off_ends_as_one_that_was_not(words, tmp_path):
    shared = with_encoder(tmp_path) if words[0].endswith("transformer") else TINY
    told = [*shared, *words, "train.log_every=4", "diagnose=none"]
    whole = described(tmp_path / "whole", *told)
    points = len([*run(whole)])
    cut = described(tmp_path / "cut", *told)
    steps = run(cut)
    for _ in range(points // 2 + 1):
        next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    again = described(tmp_path / "cut", *told)
    finish(run(again))
    assert again.environment.resumed
    equal(whole, again)


def test_a_finished_run_needs_neither_encoder_nor_data(tmp_path):
    """It predicts what it had predicted, exports, and says the same of the same text in a longer batch."""
    record = made(tmp_path, *with_encoder(tmp_path), "method=finetune", "granted=5")
    assert record.status == "ok" and record.data.input == "text"
    shutil.rmtree(tmp_path / "encoder")
    trained = tl_runner.load(record.folder)
    found = torch.cat([each.predicted for each in predictions(trained, list_test_inputs(record.folder, trained[1]))])
    rows, same, largest = compare_with_stored(found, record)
    assert rows == same and largest < 1e-5
    shutil.rmtree(tmp_path / "data")
    text, longer = "this gadget is good", "this gadget is good and bright and its battery is dull"
    alone = trained.model(trained.preprocessing(text))
    torch.testing.assert_close(trained.model(trained.preprocessing(text, longer))[:1], alone, atol=1e-5, rtol=1e-4)
    for to in ("onnx", "pt2", "torchscript"):
        tried = samples(trained, record, 12)
        assert export(trained, tried.x, to, tmp_path / f"model.{to}", {}).difference < 1e-4


def test_permuting_the_targets_labels_changes_no_byte_of_what_is_learnt(tmp_path):
    """The vocabulary, too, is of the source's texts: the target's labels say nothing to it."""
    words = write_domains(tmp_path / "data")
    target = tmp_path / "data" / "gadgets.csv"
    shared = [*words, "backbone=embedding_gru", "method=mmd", "backbone.vocabulary_from=all"]
    one = made(tmp_path / "one", *shared)
    lines = target.read_text().splitlines()
    texts, labels = zip(*(line.rsplit(",", 1) for line in lines[1:]), strict=True)
    order = np.random.default_rng(0).permutation(len(labels))
    mixed = [f"{text},{labels[at]}" for text, at in zip(texts, order, strict=True)]
    target.write_text("\n".join([lines[0], *mixed]) + "\n")
    other = made(tmp_path / "other", *shared)
    assert one.id != other.id  # the files are others
    for name in ("model.safetensors", "tokenizer.json", "predictions.safetensors", "validation.safetensors"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert one.evidence == other.evidence


def test_the_encoders_content_is_part_of_who_the_run_is(tmp_path):
    words = with_encoder(tmp_path)
    one = described(tmp_path, *words, "method=source_only")
    moved = [word.replace("/encoder", "/elsewhere") for word in words]
    shutil.copytree(tmp_path / "encoder", tmp_path / "elsewhere")
    assert described(tmp_path, *moved, "method=source_only").id == one.id
    save_encoder(tmp_path / "encoder", "roberta")
    assert described(tmp_path, *words, "method=source_only").id != one.id


def test_a_rate_that_is_too_high_for_a_transformer_is_said_with_the_recipe(tmp_path, caplog):
    words = [*with_encoder(tmp_path), "method=source_only", "train.steps=2"]
    made(tmp_path, *words)
    assert "optimizer.lr trains the transformer at 0.0003" in caplog.text and "optimizer=transformer" in caplog.text
    caplog.clear()
    made(tmp_path, *words, "optimizer=transformer")
    made(tmp_path, *words, "backbone.weights=null")
    assert "trains the transformer" not in caplog.text
