"""Sound: words of two synthetic speakers, or recordings of a user's own in a folder per domain and class."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from tl_runner.datasets.image_shifts import severity_of
from tl_runner.datasets.labelled import ScoreOn, WhetherLabelled
from tl_runner.datasets.listed_images import OnBad
from tl_runner.datasets.recording import HIGHEST, LOWEST
from tl_runner.datasets.recording_folders import RecordingOptions, draw_recordings
from tl_runner.datasets.recordings import Cut
from tl_runner.datasets.sound_shifts import SoundShift, shift_sound, to_whole_numbers
from tl_runner.datasets.source_names import Several
from tl_runner.datasets.split import Drawn, Raw
from tl_runner.datasets.spoken_words import SPEAKERS, WORDS, speak
from tl_runner.errors import UserError, check_range, nearest
from tl_runner.rng import Rng
from tl_runner.storage.sections import SoundInfo

RATE, SECONDS = 8000, 0.5  # of the synthetic speakers' words


def audio(
    seed: int,
    cache: Path,
    root: str | None = None,
    source: Several = None,
    target: str | None = None,
    samples: int = 600,
    labels: Literal["same", "shared", "differ"] = "same",
    label_set: tuple[str, ...] = (),
    labelled: WhetherLabelled = "auto",
    score_on: ScoreOn = "test",
    test: str | None = None,
    group: str | None = None,
    sample_rate: int | Literal["auto"] = "auto",
    seconds: float | Literal["auto"] = "auto",
    mels: int = 32,
    window: float = 32.0,
    hop: float = 20.0,
    normalise: Literal["utterance", "domain", "none"] = "utterance",
    shift: SoundShift = "none",
    severity: int | None = None,
    on_bad: OnBad = "error",
    memory: float = 2.0,
) -> Drawn:
    """Waveforms of one rate and length: `samples` words of each of two synthetic speakers, or a user's own recordings.

    Without a `root` the domains are the speakers `low` and `high` (see `spoken_words`). With one they are folders,
    `root/<domain>/<class>/` or `root/<domain>/{train,val,test}/<class>/` with files at any depth: source, target, test,
    labels, label_set, labelled, score_on, on_bad and memory are as in `folder.image_folder`. group: rows that must stay
    in one part, such as a speaker's, by a `folder` within the class, or by a regular expression that is looked for in
    the file's name, whose first group counts, or all that it matched.

    sample_rate (Hz) and seconds: of what is used of each, see `choose_cut`; channels are averaged. mels, window, hop
    (ms), normalise: the spectrogram that models begin with, see `models.spectrogram.LogMel`. shift, severity (1–5, by
    default 3): what is done to the target's sound, see `sound_shifts`.
    """
    check_range(8, 512, mels=mels)
    check_range(2, 1000, window=window, hop=hop)
    if sample_rate != "auto":
        check_range(LOWEST, HIGHEST, sample_rate=sample_rate)
    if seconds != "auto":
        check_range(0.1, 60, seconds=seconds)  # a batch of longer ones would fill the memory
    check_range(0, memory=memory)
    check_range(20, samples=samples)
    severity = severity_of(shift, severity)
    if root is None:
        of_files = {"labels": labels, "label_set": label_set, "labelled": labelled, "score_on": score_on, "test": test}
        of_files |= {"group": group, "on_bad": on_bad, "memory": memory}
        _refuse_options(of_files, "is for recordings of yours: name their folder, dataset.root=FOLDER")
        cut = Cut(RATE if sample_rate == "auto" else sample_rate, 0)
        cut = cut._replace(samples=round((SECONDS if seconds == "auto" else seconds) * cut.sample_rate))
        drawn = _draw_words(seed, source, target, samples, cut)
    else:
        _refuse_options({"samples": samples}, "is for words of synthetic speakers, and dataset.root for recordings")
        options = RecordingOptions(labels, label_set, labelled, score_on, group, sample_rate, seconds, on_bad, memory)
        asked: dict[str, Several] = {"source": source, "target": target, "test": test}
        drawn, cut = draw_recordings(Path(root).expanduser(), asked, options, cache)
    if window / 1000 * cut.sample_rate > cut.samples:
        raise UserError(f"dataset.window={window:g} ms is longer than a row of {cut.samples / cut.sample_rate:g} s")
    if shift != "none" and drawn.on_disk:
        raise UserError(f"dataset.shift={shift} needs the target in memory: set a larger dataset.memory")
    generator = Rng(seed).child("audio", "shift").generator()
    x = shift_sound(drawn.target.x, shift, severity, cut.sample_rate, generator)
    changed = "" if shift == "none" else f" {shift} {severity}"
    target_rows = drawn.target._replace(name=f"{drawn.target.name}{changed}", x=x)
    sound = SoundInfo(cut.sample_rate, mels, window, hop, normalise)
    notes = {**drawn.notes, "sound": sound, "shift": shift, "severity": severity if changed else None}
    return drawn._replace(target=target_rows, notes=notes)


def _draw_words(seed: int, source: Several, target: str | None, samples: int, cut: Cut) -> Drawn:
    """So many words of each of the two speakers, new ones for each seed."""
    names = [*SPEAKERS]
    source = source or next(name for name in names if name != target)
    if source not in names or target not in (None, *names) or source == target:
        raise UserError(
            f"dataset.source={source} dataset.target={target}: without a dataset.root they are the two synthetic"
            f" speakers, {' and '.join(names)}, one each{nearest(str(source), names) if source not in names else ''}"
        )

    def raw(name: str) -> Raw:
        draw = Rng(seed).child("spoken words", name).numpy()
        y = draw.integers(len(WORDS), size=samples)
        waves = torch.from_numpy(speak(y, SPEAKERS[name], cut.samples, cut.sample_rate, draw))
        return Raw(name, to_whole_numbers(waves)[:, None], torch.from_numpy(y), WORDS)

    return Drawn(raw(str(source)), raw(next(name for name in names if name != source)), {}, fresh=True)


def _refuse_options(given: Mapping[str, Any], why: str) -> None:
    """Refuse options that mean nothing here, where they are not left alone."""
    defaults = inspect.signature(audio).parameters
    if said := [key for key, value in given.items() if value != defaults[key].default]:
        raise UserError(f"dataset.{said[0]} {why}")
