"""Whole runs on sound: cut off and resumed, loaded again, told apart by their spectrogram; no target label counts."""

from pathlib import Path

import pytest
import torch
from conftest import described, made
from safetensors import safe_open
from support.equal_runs import equal
from support.sounds import write_domains

import tl_runner
from tl_runner.datasets.audio import audio
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.engine.run import run
from tl_runner.inference.predict import compare_with_stored
from tl_runner.models.batchnorm import SOURCE
from tl_runner.storage.record import read_record
from tl_runner.storage.sections import SoundInfo

TINY = [
    "dataset=audio",
    "dataset.samples=80",
    "backbone.channels=8",
    "train.steps=12",
    "train.batch=8",
    "pretrain=tiny",
    "checkpoint_every=0",
]


@pytest.mark.parametrize(
    "words",
    [
        ["backbone=small", "dataset.normalise=domain", "method=mmd"],
        ["backbone=small", "augment=strong", "method=fixmatch"],
        ["backbone=crnn", "augment=weak", "method=finetune", "granted=2"],
    ],
    ids=" ".join,
)
def test_a_run_on_sound_that_was_cut_off_ends_as_one_that_was_not(words, tmp_path):
    told = [*TINY, *words, "train.log_every=4", "diagnose=none"]
    whole = described(tmp_path / "whole", *told)
    points = len([*run(whole)])
    steps = run(described(tmp_path / "cut", *told))
    for _ in range(points // 2 + 1):
        next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    again = described(tmp_path / "cut", *told)
    for _ in run(again):
        pass
    assert again.environment.resumed
    equal(whole, again)


@pytest.mark.parametrize("backbone", ["small", "crnn"])
@pytest.mark.parametrize("normalise", ["utterance", "domain"])
def test_a_saved_model_takes_waveforms(backbone, normalise, tmp_path):
    record = made(
        tmp_path, *TINY, f"backbone={backbone}", f"dataset.normalise={normalise}", "method=mmd", "diagnose=full"
    )
    assert record.status == "ok" and record.data.input == "audio"
    assert read_record(record.folder / "run.json").data.sound == SoundInfo(8000, 32, 32.0, 20.0, normalise)
    assert "sample_rate=8000, mels=32" in str(record.training.input)
    trained = tl_runner.load(record.folder)
    assert trained.model.stages[0] == "spectrogram"
    pair, _, _ = split_domains(audio(0, Path("cache"), samples=80), 0, Budget("count", 0), torch.device("cpu"))
    x = pair.target.test.take(torch.arange(len(pair.target.test)))
    rows, same, largest = compare_with_stored(trained.model(x).softmax(-1).detach(), record)
    assert rows == same == 16 and largest < 1e-5
    held = trained.model.state_dict()
    assert any(name.startswith(SOURCE) for name in list_tensors(record.folder))
    on_source = tl_runner.load(record.folder, "source").model.backbone.get_submodule("spectrogram")
    moved = [name for name, value in on_source.state_dict().items()
             if not torch.equal(value, held[f"backbone.spectrogram.{name}"])]  # fmt: skip
    assert moved == (["bands.running_mean", "bands.running_var"] if normalise == "domain" else [])


def list_tensors(folder: Path) -> list[str]:
    """The names of those in the file of weights."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return [*file.keys()]


def test_another_spectrogram_is_another_run_and_another_source_model(tmp_path):
    words = [*TINY, "method=feature_extract", "diagnose=none", "granted=2"]
    one, other = made(tmp_path, *words), made(tmp_path, *words, "dataset.mels=24")
    assert one.id != other.id and one.training.source_model.id != other.training.source_model.id
    again = made(tmp_path, *words, "method.head=ncm")
    assert again.training.source_model.shared and again.training.source_model.id == one.training.source_model.id


def test_permuting_the_targets_labels_changes_no_byte_of_what_is_learnt(tmp_path):
    """The files of the target change their folders: the same recordings, other labels."""
    root = write_domains(tmp_path / "data", files=12)
    shared = ["dataset=audio", f"dataset.root={root}", "dataset.source=a", "dataset.target=b", "method=mmd", *TINY[2:]]
    one = made(tmp_path / "one", *shared)
    for i in range(0, 12, 2):
        high, low = root / "b" / "high" / f"{i}.wav", root / "b" / "low" / f"{i}.wav"
        kept = high.read_bytes()
        high.write_bytes(low.read_bytes())
        low.write_bytes(kept)
    other = made(tmp_path / "other", *shared)
    assert one.id != other.id  # the files are others
    for name in ("model.safetensors", "predictions.safetensors", "validation.safetensors"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert one.evidence == other.evidence


def test_an_unlabelled_target_gets_predictions_by_file(tmp_path):
    root = write_domains(tmp_path / "data", files=12)
    (root / "b" / "high").rename(root / "b" / "unlabelled")
    for file in (root / "b" / "low").iterdir():
        file.rename(root / "b" / "unlabelled" / f"low_{file.name}")
    (root / "b" / "low").rmdir()
    record = made(tmp_path, "dataset=audio", f"dataset.root={root}", "dataset.source=a", "dataset.target=b", *TINY[2:])
    assert record.status == "ok" and record.scores.target is None
    lines = (record.folder / "predictions.csv").read_text().splitlines()
    assert len(lines) == 25 and sum("unlabelled/low_" in line for line in lines) == 12
