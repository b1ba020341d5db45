"""`scripts/make_spoken_words`: its plan depends on its seed alone; it speaks where a synthesiser is installed."""

import shutil
import subprocess
import sys
import wave
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/make_spoken_words"
loader = SourceFileLoader("make_spoken_words", str(SCRIPT))
spec = spec_from_loader("make_spoken_words", loader)
assert spec is not None
make_spoken_words = module_from_spec(spec)
sys.modules[spec.name] = make_spoken_words  # NamedTuple looks its module up
loader.exec_module(make_spoken_words)


def call(*words: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = None if path is None else {"PATH": path}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False, env=environment
    )


def test_a_plan_holds_all_digits_speakers_and_no_word_twice(tmp_path):
    plan = list(make_spoken_words.plan_words("flite", tmp_path, 80, seed=0))
    assert plan == list(make_spoken_words.plan_words("flite", tmp_path, 80, seed=0))
    assert len({word.file for word in plan}) == len(plan) == 80
    assert {(word.text, word.speaker) for word in plan} == {
        (text, speaker) for text in make_spoken_words.ENGLISH for speaker in ("awb", "kal16", "rms", "slt")
    }
    other = list(make_spoken_words.plan_words("flite", tmp_path, 80, seed=1))
    assert [word.slowness for word in other] != [word.slowness for word in plan]
    assert all(0.8 <= word.slowness <= 1.3 and 0.8 <= word.pitch <= 1.25 for word in plan)


def test_languages_have_the_same_classes_and_other_words(tmp_path):
    words = {name: list(make_spoken_words.plan_words(name, tmp_path, 10, 0)) for name in ("espeak", "german")}
    assert [word.file.parent.name for word in words["espeak"]] == [word.file.parent.name for word in words["german"]]
    assert words["german"][5].text == "fünf"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--words", "15"], "counts all ten digits"), (["--domains", "klingon"], "there is no domain klingon")],
)
def test_wrong_options_are_refused(tmp_path, words, said):
    done = call(tmp_path / "out", *words)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    done = call(tmp_path / "out", "--domains", "espeak, flite")
    assert done.returncode == 2 and "is no folder" in done.stderr


def test_a_missing_synthesiser_is_named_with_its_package(tmp_path):
    done = call(tmp_path / "out", "--domains", "espeak,flite", path=str(tmp_path))
    assert done.returncode == 1
    assert "espeak-ng and flite must be installed first: apt-get install espeak-ng flite" in done.stderr


@pytest.mark.parametrize(("domain", "program"), [("espeak", "espeak-ng"), ("flite", "flite"), ("festival", "festival")])
def test_words_are_spoken(tmp_path, domain, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    done = call(tmp_path, "--words", 10, "--domains", domain)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / domain).glob("*/*.wav"))
    assert [file.parent.name for file in files] == [*"0123456789"]
    for file in files:
        with wave.open(str(file)) as sound:
            assert sound.getnchannels() == 1 and 0.2 < sound.getnframes() / sound.getframerate() < 3
            assert any(sound.readframes(sound.getnframes()))
    assert "stays" in call(tmp_path, "--words", 10, "--domains", domain).stdout  # nothing is written over
