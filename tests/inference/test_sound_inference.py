"""From a saved run on sound: files are read as its own were, and what is exported takes their waveforms."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import made
from scipy.signal import resample_poly
from support.sounds import tone, write, write_domains
from support.stored import calibrated

import tl_runner
from tl_runner.domains import FULL_SCALE
from tl_runner.errors import UserError
from tl_runner.inference.export import Format, export
from tl_runner.inference.samples import samples
from tl_runner.storage.record import RunRecord

TINY = ["train=tiny", "pretrain=tiny", "threads=1"]
EXACT = 1e-5  # batches of other sizes add up in another order

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),
]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run on tones of half a second, whose domains have other rates: it keeps 0.4 s at 8 kHz."""
    home = tmp_path_factory.mktemp("tones")
    root = write_domains(home / "tones", "a", files=20)
    write_domains(root, "b", files=20, ending=".flac", rate=8000)
    words = [f"dataset.root={root}", "dataset.source=a", "dataset.target=b", "dataset.seconds=0.4"]
    return made(home / "outputs", "dataset=audio", *words, "method=source_only", *TINY)


def rows_of(file: Path) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()]


def test_the_test_split_gets_the_predictions_that_the_run_stored(heard, typed):
    said = typed("tl-predict", heard.folder, "--test", "--out", "found.csv")
    assert said.code == 0 and "8 of 8 rows have the class of the run's stored predictions" in said.err
    _, *rows = rows_of(Path("found.csv"))
    found = torch.tensor([[float(number) for number in row[3:]] for row in rows])
    torch.testing.assert_close(found, calibrated(heard), atol=EXACT, rtol=0)


def test_a_folder_is_read_at_any_depth_and_in_any_format(heard, typed, tmp_path):
    wave = tone(440, 1.0, 44100)
    wave = (wave * FULL_SCALE).astype(np.int16)  # libsndfile rounds floats in one way for WAV, in another for FLAC
    for name in ("flat.wav", "deep/er/one.flac", "deep/two.ogg", "stereo.wav"):
        write(tmp_path / "in" / name, np.stack([wave, wave], 1) if name == "stereo.wav" else wave, 44100)
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    said = typed("tl-predict", heard.folder, tmp_path / "in", "--out", "found.csv")
    assert said.code == 0 and "what was predicted: 4 recordings are longer than 0.4 s" in said.err
    head, *rows = rows_of(Path("found.csv"))
    assert head == ["path", "predicted", "probability", "high", "low"]
    files = ("deep/er/one.flac", "deep/two.ogg", "flat.wav", "stereo.wav")
    assert [row[0] for row in rows] == [str(tmp_path / "in" / name) for name in files]
    predicted = dict(zip(files, np.array([row[2:] for row in rows], float), strict=True))
    for lossless in ("deep/er/one.flac", "stereo.wav"):
        np.testing.assert_allclose(predicted[lossless], predicted["flat.wav"], atol=EXACT)


def test_a_file_named_twice_is_predicted_twice(heard, typed, tmp_path):
    file = write(tmp_path / "one.wav", tone(440))
    said = typed("tl-predict", heard.folder, file, file)
    assert said.code == 0 and len(said.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.wav", b"", "it is empty"),
        ("text.wav", b"no sound", "it is damaged, or no sound file"),
        ("head.wav", b"RIFF\x24\x00\x00\x00WAVE", "it is damaged, or no sound file"),
        ("mute.wav", None, "it holds no samples"),
    ],
)
def test_a_hostile_file_is_refused_by_name_or_left_out(heard, typed, tmp_path, name, content, why):
    folder = tmp_path / "in"
    bad = write(folder / name, np.zeros(0))
    if content is not None:
        bad.write_bytes(content)
    write(folder / "good.wav", tone(440))
    said = typed("tl-predict", heard.folder, folder)
    assert said.code == 1 and f"{bad}: {why}" in said.err and "--on-bad skip" in said.err
    said = typed("tl-predict", heard.folder, folder, "--on-bad", "skip")
    assert said.code == 0 and [line.split(",")[0] for line in said.out.splitlines()[1:]] == [str(folder / "good.wav")]


def test_silence_is_predicted_and_said(heard, typed, tmp_path):
    said = typed("tl-predict", heard.folder, write(tmp_path / "silent.wav", np.zeros(8000)))
    assert said.code == 0 and "1 recording is silent in the part that is used" in said.err
    row = [float(number) for number in said.out.splitlines()[1].split(",")[2:]]
    assert all(np.isfinite(row))


def test_a_pipe_is_refused_and_not_waited_for(heard, typed, tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    said = typed("tl-predict", heard.folder, tmp_path / "x.wav")
    assert said.code == 1 and "x.wav: that is no regular file" in said.err


def test_a_folder_without_sound_is_refused(heard, typed, tmp_path):
    (tmp_path / "photo.jpg").touch()
    said = typed("tl-predict", heard.folder, tmp_path)
    assert said.code == 1 and "holds no sound files (other files, at any depth: 1)" in said.err


def test_in_python_a_file_becomes_the_middle_of_its_sound_at_the_runs_rate(heard, tmp_path):
    model, preprocessing, classes = tl_runner.load(heard.folder)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    file = write(tmp_path / "noise.wav", wave, 16000, "FLOAT")
    x = preprocessing(file)
    whole = resample_poly(wave, 1, 2)
    middle = np.round(whole[2400:5600] * FULL_SCALE) / FULL_SCALE
    assert x.shape == (1, 1, 3200) and x.dtype == torch.float32
    # what resampling reads beside the part that is kept ends it: a filter's length of samples is all that it needs
    np.testing.assert_allclose(x[0, 0].numpy(), middle, atol=1.5 / FULL_SCALE)
    assert model(x).shape == (1, len(classes))
    with pytest.raises(UserError, match="name at least one sound file"):
        preprocessing()
    with pytest.raises(UserError, match="that is a folder"):
        preprocessing(tmp_path)


def test_a_target_that_was_shifted_is_not_what_its_files_hold(heard, typed, tmp_path):
    data = heard.config["dataset"]
    words = [f"dataset.root={data['root']}", "dataset.source=a", "dataset.target=b", "dataset.shift=noise"]
    run = made(tmp_path / "outputs", "dataset=audio", *words, "method=source_only", *TINY)
    said = typed("tl-predict", run.folder, "--test")
    assert said.code == 1 and "their sound after dataset.shift=noise" in said.err
    assert typed("tl-predict", run.folder, Path(data["root"]) / "b", "--out", "found.csv").code == 0


def run_onnx(file: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@pytest.mark.parametrize("to", ["onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("backbone", ["small", "crnn"])
def test_what_is_exported_takes_waveforms_and_says_what_the_model_says(heard, tmp_path, to: Format, backbone):
    run, words = heard, ["dataset=audio", "dataset.samples=40", "dataset.normalise=domain", "backbone=crnn"]
    if backbone == "crnn":
        run = made(tmp_path / "outputs", *words, "method=source_only", *TINY)
    trained = tl_runner.load(run.folder)
    tried = samples(trained, run, 12)
    assert tried.real == (6 if backbone == "small" else 0)
    file, difference = export(trained, tried.x, to, tmp_path / f"model.{to}", {})
    assert difference < EXACT
    readers = {"onnx": run_onnx, "torchscript": lambda path: torch.jit.load(str(path)),
               "pt2": lambda path: torch.export.load(path).module()}  # fmt: skip
    x = torch.from_numpy(tone(300, run.data.shape[-1] / run.data.sound.sample_rate, run.data.sound.sample_rate))
    x = x.float()[None, None].repeat(5, 1, 1)
    with torch.no_grad():
        expected = trained.model.task.predict(trained.model(x))
        torch.testing.assert_close(readers[to](file)(x), expected, atol=EXACT, rtol=0)
    facts = trained.preprocessing.facts
    assert facts["kind"] == "sound" and facts["shape"] == run.data.shape


def test_pairs_of_sound_are_screened_stage_by_stage(typed, tmp_path):
    words = ["dataset=audio", "dataset.samples=60", "backbone=crnn", "pretrain=tiny", "threads=1"]
    said = typed("tl-screen", *words, "stage=all", "--format", "csv", f"outputs={tmp_path}")
    assert said.code == 0
    stages = [line.split(",") for line in said.out.splitlines()]
    assert [row[stages[0].index("stage")] for row in stages[1:]]
    assert {"spectrogram", "conv1", "gru"} <= {row[stages[0].index("stage")] for row in stages[1:]}
