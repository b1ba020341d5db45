"""Sound: words that the package speaks, and recordings of a user's own, read as they are or refused by name."""

import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import lfilter
from support.sounds import tone, write, write_domains

from tl_runner.datasets import recordings
from tl_runner.datasets.audio import audio
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.domain_names import list_domain_names
from tl_runner.datasets.recording import measure_recording, read_recording, try_recording
from tl_runner.datasets.recordings import choose_cut
from tl_runner.datasets.split import PARTS, Drawn, describe_seeds, fingerprint, split_domains
from tl_runner.datasets.spoken_words import SPEAKERS, WORDS, Speaker, resonate, speak
from tl_runner.domains import FULL_SCALE, Pair
from tl_runner.errors import UserError
from tl_runner.models.spectrogram import LogMel
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import hash_data
from tl_runner.storage.sections import DataInfo, SoundInfo

CPU, NOTHING = torch.device("cpu"), Budget("count", 0)
EMBEDDED = {"seed": 0, "cache": Path("cache")}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_domains(tmp_path / "data")


def loaded(seed: int = 0, **options) -> Drawn:
    return audio(seed, Path("cache"), **{"root": "data", "source": "a", "target": "b", **options})


def split(drawn: Drawn) -> tuple[Pair, DataInfo]:
    pair, _, info = split_domains(drawn, 0, NOTHING, CPU)
    return pair, info


def wave_of(drawn: Drawn, ending: str) -> np.ndarray:
    """The waveform, in [−1, 1], of the target's row whose file's name ends so."""
    assert drawn.target.names is not None
    (row,) = [i for i, name in enumerate(drawn.target.names) if name.endswith(ending)]
    return drawn.target.x[row, 0].numpy() / FULL_SCALE


# Words of the package's own


def test_words_are_a_function_of_the_seed_and_new_with_each():
    drawn, again, other = audio(**EMBEDDED), audio(**EMBEDDED), audio(1, Path("cache"))
    assert drawn.source is not None and again.source is not None
    assert fingerprint(again.source) == fingerprint(drawn.source) and fingerprint(other.target) != fingerprint(
        drawn.target
    )
    assert drawn.source.x.shape == (600, 1, 4000) and drawn.source.x.dtype == torch.int16
    assert [drawn.source.name, drawn.target.name] == ["low", "high"] and drawn.source.classes == WORDS
    assert describe_seeds(drawn, 120).kind == "independent"
    assert audio(**EMBEDDED, source="high", samples=20).target.name == "low"
    assert audio(**EMBEDDED, target="low", samples=20).target.name == "low"


def test_a_pair_of_words_is_sound_between_minus_one_and_one():
    pair, info = split(audio(**EMBEDDED, samples=50))
    assert pair.input == info.input == "audio" and pair.shape == (1, 4000)
    assert info.range == [-1.0, 1.0] and info.resize is None
    assert info.sound == SoundInfo(8000, 32, 32.0, 20.0, "utterance")
    x = pair.target.train.take(torch.arange(5))
    assert x.dtype == torch.float32 and 0.25 < x.abs().max() <= 1


def test_a_speaker_has_the_pitch_that_is_said():
    """By the cepstrum of the first vowel of each word, where a voice has a peak at its period."""
    x = speak(np.zeros(60, dtype=np.int64), Speaker(120, 1.0, 1.0, 0.0), 2800, 8000, np.random.default_rng(0))
    cepstra = np.fft.irfft(np.log(np.abs(np.fft.rfft(x[:, 700:1500] * np.hanning(800), 4096)) + 1e-3))
    periods = 40 + cepstra[:, 40:110].argmax(1)  # 73 to 200 Hz
    assert 8000 / np.median(periods) == pytest.approx(120, rel=0.08)


def test_a_shorter_vocal_tract_has_higher_formants():
    """The words `tora`, which hold no hiss, with the same randomness: the centre of their spectrum."""

    def centre(formant_factor: float) -> float:
        draw = np.random.default_rng(0)
        x = speak(np.full(40, WORDS.index("tora")), Speaker(120, formant_factor, 1.0, 0.0), 4000, 8000, draw)
        power = (np.abs(np.fft.rfft(x)) ** 2).mean(0)
        return float((power * np.linspace(0, 4000, len(power))).sum() / power.sum())

    assert 1.1 * centre(1.0) < centre(1.2) < 1.3 * centre(1.0)


def test_resonators_are_the_recursive_filters_of_scipy():
    """Each with a gain of 1 at 0 Hz and its poles at r e^(±iθ), behind the voice's low-pass; formants that stay."""
    x = np.random.default_rng(0).standard_normal((2, 600))
    hz, bandwidths = np.array([[500.0, 1500, 2500], [300, 900, 2200]]), np.array([80, 110, 170])
    heard = resonate(x, np.repeat(hz[..., None], 15, axis=2), 40, 16000)
    for row, formants in enumerate(hz):
        slow = lfilter([1], [1, -0.7], x[row])
        poles = np.exp((-np.pi * bandwidths + 2j * np.pi * formants) / 16000)
        for pole in poles:
            denominator = np.poly([pole, pole.conj()]).real
            slow = lfilter([denominator.sum()], denominator, slow)
        np.testing.assert_allclose(heard[row], slow, rtol=1e-9, atol=1e-12)


def test_a_network_that_learnt_one_speaker_errs_on_the_other():
    """Logistic regression on spectrograms; measured over three seeds: 92–95 % within, 32–39 % across."""
    from sklearn.linear_model import LogisticRegression

    drawn = audio(**EMBEDDED)
    assert drawn.source is not None
    front = LogMel(SoundInfo(8000, 32, 32.0, 20.0, "utterance"))
    x, other = (front(raw.x.float() / FULL_SCALE).flatten(1).numpy() for raw in (drawn.source, drawn.target))
    y = drawn.source.y.numpy()
    model = LogisticRegression(max_iter=500).fit(x[:400], y[:400])
    assert model.score(x[400:], y[400:]) > 0.88
    assert 0.2 < model.score(other, drawn.target.y.numpy()) < 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "low", "target": "low"}, "the two synthetic speakers, low and high, one each"),
        ({"source": "hig"}, "did you mean 'high'"),
        ({"label_set": ("masa",)}, r"dataset\.label_set is for recordings of yours: .*dataset\.root=FOLDER"),
        ({"group": "folder"}, r"dataset\.group is for recordings of yours"),
        ({"samples": 5}, "samples must be at least 20"),
        ({"window": 900.0}, r"dataset\.window=900 ms is longer than a row of 0\.5 s"),
        ({"sample_rate": 10}, "sample_rate must be between 4000"),
        ({"root": "data", "samples": 50}, r"dataset\.samples is for words of synthetic speakers"),
    ],
)
def test_what_cannot_be_made_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        audio(**EMBEDDED, **options)


def test_words_have_the_rate_and_the_length_that_are_asked_for():
    assert audio(**EMBEDDED, samples=20, sample_rate=16000, seconds=0.75).target.x.shape == (20, 1, 12000)


def test_the_target_alone_is_shifted():
    plain, noisy = audio(**EMBEDDED, samples=30), audio(**EMBEDDED, samples=30, shift="noise", severity=5)
    assert plain.source is not None and noisy.source is not None
    assert torch.equal(plain.source.x, noisy.source.x) and not torch.equal(plain.target.x, noisy.target.x)
    assert noisy.target.name == "high noise 5" and noisy.notes["severity"] == 5


# Recordings: which files are whose


def test_recordings_are_read_by_domain_and_class_in_any_format(root):
    for ending in (".flac", ".ogg", ".mp3", ".aiff"):
        write(root / "b" / "low" / f"x{ending}", tone(300), 16000)
    opus = write(root / "b" / "low" / "opus.ogg", tone(300), subtype="OPUS")
    opus.rename(opus.with_name("x.opus"))
    drawn = loaded()
    assert drawn.source is not None and drawn.target.names is not None
    assert drawn.source.x.shape == (16, 1, 8000) and drawn.target.x.shape == (21, 1, 8000)
    assert drawn.target.classes == ("high", "low") and drawn.target.y.tolist() == [0] * 8 + [1] * 13
    assert drawn.target.names[0] == "data/b/high/0.wav" and drawn.notes["sound"].sample_rate == 16000
    for ending in ("x.flac", "x.mp3", "x.ogg", "x.opus", "x.aiff"):
        spectrum = np.abs(np.fft.rfft(wave_of(drawn, ending)))
        assert spectrum.argmax() / 0.5 == pytest.approx(300, abs=5)


def test_the_source_may_be_several_and_the_target_unlabelled_or_divided(root):
    write_domains(root, "c")
    assert loaded(source=("a", "c")).source.members == ("a", "c")  # pyright: ignore[reportOptionalMemberAccess]
    for i, file in enumerate(sorted((root / "b").rglob("*.wav"))):
        file.rename(root / "b" / f"{i}.wav")
    for name in ("high", "low"):
        (root / "b" / name).rmdir()
    assert loaded().target.y.unique().tolist() == [-1]
    for part in PARTS:
        shutil.copytree(root / "a", root / "d" / part)
    assert loaded(target="d").target.part is not None


def test_a_file_that_changes_makes_another_run_and_where_files_lie_does_not(root, tmp_path):
    node = {"_target_": "audio", "root": "data", "source": "a", "target": "b"}
    before = hash_data(node, Contents(tmp_path))
    shutil.copytree(root, tmp_path / "moved")
    assert hash_data({**node, "root": "moved"}, Contents(tmp_path)) == before and before.files == 32
    write(root / "b" / "low" / "0.wav", tone(301))
    assert hash_data(node, Contents(tmp_path)).digest != before.digest
    assert hash_data({"_target_": "audio", "root": None}, Contents(tmp_path)).digest is None


def test_files_are_decoded_once_until_one_changes(root, monkeypatch):
    first = loaded()
    read: list[Path] = []

    def watched(path: Path, rate: int, samples: int):
        read.append(path)
        return try_recording(path, rate, samples)

    monkeypatch.setattr(recordings, "try_recording", watched)
    assert torch.equal(loaded().target.x, first.target.x) and not read
    write(root / "b" / "low" / "0.wav", tone(900))
    assert not torch.equal(loaded().target.x, first.target.x) and len(read) == 16
    assert loaded(memory=0.0).on_disk and torch.equal(loaded(memory=0.0).target.x, loaded().target.x)
    pair, _ = split(loaded(memory=0.0))
    assert pair.input == "audio" and pair.target.train.take(torch.arange(3)).abs().max() < 1
    with pytest.raises(UserError, match=r"dataset\.shift=noise needs the target in memory"):
        loaded(memory=0.0, shift="noise")


def test_its_domains_can_be_paired(root):
    assert list_domain_names("audio", {"root": "data"}) == ["a", "b"]
    assert list_domain_names("audio", {"root": None}) == [*SPEAKERS]


# Groups: a speaker is in one split


def test_a_speaker_by_folder_or_by_the_name_of_the_file_stays_in_one_split(root):
    for domain in "ab":
        for file in sorted((root / domain).rglob("*.wav")):
            file.rename(file.with_name(f"anna{int(file.stem) % 4}_{file.stem}.wav"))
    by_name = loaded(group="^[^_]+")
    assert by_name.target.group is not None and {*by_name.target.group} == {"anna0", "anna1", "anna2", "anna3"}
    by_number = loaded(group=r"anna(\d)_").target.group
    assert by_number is not None and {*by_number} == {*"0123"}
    for domain in "ab":
        for file in sorted((root / domain).rglob("*.wav")):
            (file.parent / file.stem[:5]).mkdir(exist_ok=True)
            file.rename(file.parent / file.stem[:5] / file.name)
    drawn = loaded(group="folder")
    assert drawn.target.group is not None
    group = drawn.target.group.tolist()
    assert group == by_name.target.group.tolist()
    _, answers, info = split_domains(drawn, 0, NOTHING, CPU)
    assert sum(info.notes["divided"]["target"]["groups"].values()) == 4
    assert answers.places is not None
    rows = [{group[i] for i in getattr(answers.places, part).tolist()} for part in PARTS]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("folder", r"dataset\.group: 'data/a/high/0\.wav' lies in no folder within its class"),
        ("speaker(.)", r"dataset\.group: 'data/a/high/0\.wav' has nothing in its name that dataset\.group="),
        ("(", r"dataset\.group=\( is no regular expression"),
    ],
)
def test_a_file_without_a_group_is_named(root, group, said):
    with pytest.raises(UserError, match=said):
        loaded(group=group)


# Hostile files: read, with a word on what was done, or refused by name


def test_a_wave_of_16_bits_comes_back_to_the_last_bit(root):
    wave = np.random.default_rng(1).integers(-32768, 32768, 8000).astype(np.int16)
    write(root / "b" / "low" / "x.wav", wave)
    assert np.array_equal(np.round(wave_of(loaded(), "x.wav") * FULL_SCALE), wave)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "PCM_U8"])
def test_other_depths_are_rounded(root, subtype):
    write(root / "b" / "low" / "x.wav", tone(440), subtype=subtype)
    step = 1 / 128 if subtype == "PCM_U8" else 1 / FULL_SCALE
    np.testing.assert_allclose(wave_of(loaded(), "x.wav"), tone(440), atol=step, rtol=0)


def test_channels_are_averaged(root, caplog):
    caplog.set_level("INFO")
    write(root / "b" / "low" / "x.wav", np.stack([tone(440), np.zeros(8000)], 1))
    np.testing.assert_allclose(wave_of(loaded(), "x.wav"), tone(440) / 2, atol=2 / FULL_SCALE)
    assert "1 recording is of several channels: their mean is used" in caplog.text


def test_one_of_8_khz_among_16_khz_brings_all_to_8_and_that_is_said(root, caplog):
    write(root / "b" / "low" / "x.wav", tone(440, rate=8000), 8000)
    drawn = loaded()
    assert drawn.target.x.shape[-1] == 4000 and drawn.notes["sound"].sample_rate == 8000
    assert "different rates" in caplog.text and "lowest, 8000 Hz; dataset.sample_rate" in caplog.text
    up = loaded(sample_rate=16000)
    assert up.target.x.shape[-1] == 8000
    middle = slice(500, -500)
    np.testing.assert_allclose(wave_of(up, "x.wav")[middle], tone(440)[middle], atol=0.01)
    assert "1 recording is of a lower rate than 16000 Hz, and empty above half of it" in caplog.text


@pytest.mark.parametrize("rate", [1, 2000, 400000])
def test_a_rate_that_no_sound_has_is_the_fault_of_its_file(root, rate):
    write(root / "b" / "low" / "x.wav", tone(440), rate)
    with pytest.raises(UserError, match=rf"x\.wav.*its header says {rate} Hz: 4000 to 192000 Hz are read"):
        loaded()
    assert loaded(on_bad="skip").notes["sound"].sample_rate == 16000


def test_domains_of_other_lengths_are_said(root, caplog):
    loaded()
    assert "medians" not in caplog.text
    for name in ("low", "high"):
        for i in range(8):
            write(root / "b" / name / f"{i}.wav", tone(300 + i, seconds=1.5))
    loaded()
    assert "the source's recordings last 0.5 s and the target's 1.5 s (medians)" in caplog.text


def test_the_lowest_rate_is_found_wherever_it_is(root):
    write(root / "b" / "low" / "x.wav", tone(440, rate=8000), 8000)
    high, low = root / "b" / "low" / "0.wav", root / "b" / "low" / "x.wav"
    assert choose_cut({"target": [high, low, *[high] * 1001]}, "auto", "auto") == (8000, 4000)


def test_resampling_keeps_tones_and_leaves_out_what_the_lower_rate_cannot_hold(root):
    write(root / "b" / "low" / "x.wav", tone(1000) + tone(6000))
    wave = wave_of(loaded(sample_rate=8000), "x.wav")
    np.testing.assert_allclose(wave[300:-300], tone(1000, rate=8000)[300:-300], atol=0.01)


def test_the_middle_of_a_longer_one_is_used_and_a_shorter_one_stands_in_silence(root, caplog):
    long = np.concatenate([np.zeros(4000), tone(440), np.zeros(4000)])
    write(root / "b" / "low" / "long.wav", long)
    write(root / "b" / "low" / "short.wav", tone(440, 0.25))
    drawn = loaded(seconds=0.5)
    np.testing.assert_allclose(wave_of(drawn, "long.wav"), tone(440), atol=1 / FULL_SCALE)
    short = wave_of(drawn, "short.wav")
    assert not short[:2000].any() and not short[-2000:].any()
    np.testing.assert_allclose(short[2000:-2000], tone(440, 0.25), atol=1 / FULL_SCALE)
    assert "data/b: 1 recording is longer than 0.5 s: the middle is used (dataset.seconds)" in caplog.text


def test_of_an_hour_no_more_is_read_than_is_used(root, monkeypatch):
    hour = root / "b" / "low" / "hour.wav"
    with soundfile.SoundFile(hour, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8000, dtype=np.int16))
    assert measure_recording(hour).seconds == 3600
    asked: list[int] = []
    read = soundfile.SoundFile.read

    def counted(self, frames=-1, *words, **options):
        asked.append(frames)
        return read(self, frames, *words, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    wave, met = read_recording(hour, 8000, 4000)
    assert len(wave) == 4000 and met.longer == 1 and asked == [4000]
    assert loaded().target.x.shape[-1] == 4000  # nine of ten files are of half a second


def test_silent_clipped_and_too_loud_files_are_read_and_said(root, caplog):
    write(root / "b" / "low" / "silent.wav", np.zeros(8000))
    write(root / "b" / "low" / "too soft for 16 bits.wav", tone(440, level=1e-6), subtype="FLOAT")
    quiet_middle = np.concatenate([tone(440), np.zeros(16000), tone(440)])
    write(root / "b" / "low" / "silent in the middle.wav", quiet_middle)
    write(root / "b" / "low" / "clipped.wav", np.clip(tone(440, level=3), -1, 1))
    write(root / "b" / "low" / "loud.wav", tone(440, level=3), subtype="FLOAT")
    drawn = loaded(seconds=0.5)
    assert "data/b: 3 recordings are silent in the part that is used" in caplog.text
    assert "data/b: 2 recordings are clipped: 1 % of the samples or more are at full scale" in caplog.text
    assert "data/b: 1 recording is louder than full scale, as files of floats may be: cut off there" in caplog.text
    assert np.abs(wave_of(drawn, "loud.wav")).max() == 1 and not wave_of(drawn, "silent.wav").any()
    for normalise in ("utterance", "domain", "none"):
        front = LogMel(SoundInfo(16000, 32, 32.0, 20.0, normalise))
        assert torch.isfinite(front(drawn.target.x.float() / FULL_SCALE)).all()


def break_file(path: Path, how: str) -> None:
    good = write(path, tone(440)).read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif how == "text":
        path.write_text("no sound")
    elif how == "head":
        path.write_bytes(good[:30])
    elif how == "no samples":
        write(path, np.zeros(0))
    elif how in ("NaN", "infinity"):
        wave = tone(440).astype(np.float32)
        wave[100] = np.nan if how == "NaN" else np.inf
        write(path, wave, subtype="FLOAT")
    elif how.startswith("cut "):
        whole = write(path.with_suffix(how.replace("cut ", ".")), np.random.default_rng(0).uniform(-1, 1, 8000))
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(content[:6000])
    elif how == "stopped":  # a recorder that completes the header at its end
        path.write_bytes(good[:4] + struct.pack("<I", 36) + good[8:40] + bytes(4) + good[44:])
    elif how == "dangling":
        path.unlink()
        path.symlink_to("nowhere.wav")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "it is empty"),
        ("noise", r"it is damaged, or no sound file that libsndfile reads \(Format not recognised\)"),
        ("text", "it is damaged, or no sound file"),
        ("head", "it is damaged, or no sound file"),
        ("no samples", "it holds no samples"),
        ("NaN", r"it holds numbers that are not finite \(NaN or infinity\)"),
        ("infinity", "it holds numbers that are not finite"),
        ("cut flac", "it is cut off|it is damaged"),
        ("cut wav", "it is cut off: 5956 of 16000 bytes of sound are there"),
        ("cut aiff", "it is cut off: 5954 of 16008 bytes of sound are there"),
        ("stopped", "its header was never completed: it says that there are no samples, but bytes follow"),
        ("dangling", "it is damaged, or no sound file|no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause_or_skipped(root, how, said, caplog):
    break_file(root / "b" / "low" / "bad.wav", how)
    with pytest.raises(UserError, match=rf"1 of 33 files can't be read: 'data/b/low/bad\.wav' \(({said})"):
        loaded()
    drawn = loaded(on_bad="skip")
    assert len(drawn.target.x) == 16 and drawn.notes["skipped"] == {"source": 0, "target": 1}
    assert "skipped: 1 of 33 files" in caplog.text


@pytest.mark.parametrize("said", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wave_that_was_streamed_is_read_to_its_end(root, said):
    """Programs that write to a pipe don't know the size, and say the largest, or nearly so."""
    path = write(root / "b" / "low" / "x.wav", tone(440))
    good = path.read_bytes()
    path.write_bytes(good[:40] + struct.pack("<I", said) + good[44:])
    np.testing.assert_allclose(wave_of(loaded(), "x.wav"), tone(440), atol=1 / FULL_SCALE)


def test_a_wrong_extension_is_read_by_what_is_in_the_file_and_others_are_left_out(root, caplog):
    flac = write(root / "b" / "low" / "y.flac", tone(440))
    flac.rename(root / "b" / "low" / "x.wav")
    (root / "b" / "low" / "notes.txt").write_text("no sound")
    np.testing.assert_allclose(wave_of(loaded(), "x.wav"), tone(440), atol=1 / FULL_SCALE)
    assert "ignored 1 file without the extension of a sound file" in caplog.text


def test_a_copy_in_both_domains_is_said_and_equal_domains_are_refused(root, caplog):
    shutil.copy(root / "a" / "low" / "0.wav", root / "b" / "low" / "copy.wav")
    split(loaded())
    assert "1 of 17 recordings of the target also occurs in the source" in caplog.text
    shutil.copytree(root / "a", root / "c")
    with pytest.raises(UserError, match="every recording of the target also occurs in the source"):
        split(loaded(target="c"))


def test_where_no_header_can_be_read_a_file_is_named(root):
    for file in root.rglob("*.wav"):
        file.write_bytes(os.urandom(500))
    with pytest.raises(UserError, match=r"no header of a sound file can be read, such as that of 'data/a/high/0\.wav'"):
        loaded()


def test_without_soundfile_the_extra_is_named_and_words_need_none(root, monkeypatch):
    from tl_runner.datasets import recording

    monkeypatch.setitem(sys.modules, "soundfile", None)
    recording.import_soundfile.cache_clear()
    with pytest.raises(UserError, match=r'pip install "tl_runner\[audio\]"'):
        loaded()
    assert len(audio(**EMBEDDED, samples=20).target.x) == 20
    recording.import_soundfile.cache_clear()
