"""Recordings on the page: which changed class between two settings, as spectrograms under their files' names."""

import base64
import csv
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import made
from PIL import Image
from support.sounds import tone, write_domains

from tl_runner.domains import InMemory
from tl_runner.evaluation.figure_data import POINTS, SIDE, draw_spectrograms
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page import samples
from tl_runner.report.page.groups import SettingRuns, group_by_pair
from tl_runner.storage.record import RunRecord, read_record
from tl_runner.storage.sections import SoundInfo

TINY = ["dataset=audio", "train=tiny", "pretrain=tiny", "threads=1", "save=false"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """Two methods that disagree: one of them hardly trained."""
    home = tmp_path_factory.mktemp("tones")
    words = [*TINY, f"dataset.root={write_domains(home / 'tones', files=30)}", "dataset.source=a", "dataset.target=b"]
    made(home / "outputs", *words, "method=source_only", "optimizer.lr=1e-9", "optimizer.lr_backbone=1e-9")
    made(home / "outputs", *words, "method=weighted", "method.view=features")
    found = [read_record(file) for file in (home / "outputs").rglob("run.json")]
    return {record.choices["method"]: record for record in found}


@pytest.fixture
def groups(records) -> list[SettingRuns]:
    runs = [*records.values()]
    (of_pair,) = group_by_pair(runs, build_leaderboard(runs), []).values()
    return of_pair


def picture_of(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(BytesIO(base64.b64decode(content))))


def test_the_recordings_that_changed_class_are_shown_with_their_names(records, groups):
    figure = samples.figure(groups)
    runs = {group.method: group.runs[0] for group in groups}
    told = {method: run.diagnosis("target_predicted") for method, run in runs.items()}
    labels, images = (runs["source_only"].diagnosis(name) for name in ("target_labels", "target_spectrograms"))
    changed = np.flatnonzero(told["source_only"] != told["weighted"])
    assert len(changed), "both settings predict the same: the test shows nothing"
    (gallery,) = figure.galleries
    assert f"{len(changed)} of {len(labels)} recordings changed class from source_only to weighted" in gallery.heading
    with (records["weighted"].folder / "test.csv").open(newline="") as lines:
        names = [Path(row[0]).name for row in csv.reader(lines)][1:]
    classes = records["weighted"].data.classes
    assert len(gallery.pictures) == min(12, len(changed))
    for row, picture in zip(changed, gallery.pictures, strict=False):
        (name, _), (true, _), *settings = picture.lines
        assert (name, true) == (names[row], classes[labels[row]])
        assert settings == [
            (f"{method}: {classes[told[method][row]]}", told[method][row] == labels[row])
            for method in ("source_only", "weighted")
        ]
        assert np.array_equal(picture_of(picture.uri), images[row, 0])
    assert ("12 are shown." in figure.caption) == (len(changed) > 12)
    right, before = (int((told[m][changed] == labels[changed]).sum()) for m in ("weighted", "source_only"))
    assert f"{right} became right, and {before} were right before" in figure.caption


def test_one_setting_alone_shows_its_mistakes(groups):
    one = [group for group in groups if group.method == "source_only"]
    run = one[0].runs[0]
    wrong = int((run.diagnosis("target_predicted") != run.diagnosis("target_labels")).sum())
    figure = samples.figure(one)
    assert [len(gallery.pictures) for gallery in figure.galleries] == [min(12, wrong)]
    assert f"source_only gets {wrong} of" in figure.galleries[0].heading


def test_words_of_synthetic_speakers_have_numbers_for_names(tmp_path):
    made(tmp_path, *TINY, "dataset.samples=60", "method=source_only")
    runs = [read_record(file) for file in tmp_path.rglob("run.json")]
    (of_pair,) = group_by_pair(runs, build_leaderboard(runs), []).values()
    (gallery,) = samples.figure(of_pair).galleries
    assert all(re.fullmatch(r"test row \d+", picture.lines[0][0]) for picture in gallery.pictures)


def test_what_weighed_most_is_shown_as_spectrograms(groups):
    galleries = samples.draw_weighted_rows(groups).galleries
    assert [gallery.heading.rpartition(" ")[2] for gallery in galleries] == ["heaviest", "lightest"]
    run = next(group.runs[0] for group in groups if group.method == "weighted")
    heaviest = run.diagnosis("heaviest")
    assert heaviest is not None and heaviest.dtype == np.uint8
    assert np.array_equal(picture_of(galleries[0].pictures[0].uri), heaviest[0, 0])


def test_a_low_tone_is_drawn_below_and_a_later_one_further_right():
    rate = 8000
    low, high = tone(300, 0.5, rate), tone(2500, 0.5, rate)
    x = torch.from_numpy(np.stack([np.concatenate([low, high]), np.concatenate([high, low])])).float()[:, None]
    pictures = draw_spectrograms(InMemory(x), torch.arange(2), SoundInfo(rate, 32, 32.0, 20.0, "none"))
    assert pictures.shape[0] == 2 and pictures.dtype == torch.uint8 and max(pictures.shape[2:]) == SIDE
    quarter = pictures.shape[3] // 4
    rows = pictures[:, 0].float()[:, :, [quarter, -quarter]].argmax(1)  # of the brightest pixel in two columns
    middle = pictures.shape[2] // 2
    assert (rows[0] > middle).tolist() == [True, False] and (rows[1] > middle).tolist() == [False, True]


def test_what_a_run_keeps_for_figures_stays_small(records):
    kept = records["weighted"].folder / "diagnosis.safetensors"
    numbers = POINTS * SIDE * SIDE  # the most that spectrograms of a domain can take
    assert numbers < 2**19 and kept.stat().st_size < 2**19
