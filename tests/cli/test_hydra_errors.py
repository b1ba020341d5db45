"""Words that Hydra can't read come back as the shell and Hydra take them, and then mean what was typed."""

import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from tl_runner.cli.hydra_errors import quote_word


def read(word: str):
    """What Hydra reads; in a sweep the values of its choices."""
    value = OverridesParser.create().parse_override(word).value()
    if isinstance(value, ChoiceSweep):
        return tuple(map(_text, value.list))
    return value


def _text(part):
    if isinstance(part, list):
        return [*map(_text, part)]
    return part.text if isinstance(part, QuotedString) else part


def pasted(text: str) -> str:
    """The word that a POSIX shell makes of a text on its command line."""
    shell = subprocess.run(["sh", "-c", f"printf %s\\\\0 {text}"], capture_output=True, check=True).stdout.decode()
    assert shell.endswith("\0") and [shell[:-1]] == shlex.split(text)
    return shell[:-1]


@pytest.fixture
def tried(typed, monkeypatch):
    """A command that shows no traceback; tl-run leaves the variable set in its process, which is this one."""

    def tried(*words):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        return typed(*words)

    return tried


@pytest.mark.parametrize(
    ("word", "several", "meant"),
    [
        ("dataset.root=/data/lr=0.1/a", False, "/data/lr=0.1/a"),
        ("dataset.root=Übung/Straße", False, "Übung/Straße"),
        ("dataset.root=it's here", False, "it's here"),
        ("dataset.label=a \"b\" c's = d", False, "a \"b\" c's = d"),
        ("dataset.root=photos (2020)", False, "photos (2020)"),
        ("dataset.root=$HOME;`ls`!", False, "$HOME;`ls`!"),
        ("dataset.root=Müller, Anna", False, "Müller, Anna"),
        ("dataset.root=ü\\", False, "ü\\"),
        ("dataset.root=ü\nb\tc", False, "ü\nb\tc"),
        ("+dataset.classes=[Köln,a=b, \"c,ü\",3,null]", False, ["Köln", "a=b", "c,ü", 3, None]),
        ("dataset.classes=[[Köln],it's]", False, [["Köln"], "it's"]),
        ("dataset.target=Köln,Ulm", True, ("Köln", "Ulm")),
        ("dataset.target=Köln,Ulm", False, "Köln,Ulm"),
        ("dataset.target=choice(Köln,a=b)", True, ("Köln", "a=b")),
        ("~dataset.target=ü", False, "ü"),
        ("dataset.source=[studio,'web, old'],[a=b,x+y]", True, (["studio", "web, old"], ["a=b", "x+y"])),
        ("dataset.source=[studio,'web, old'],[a=b,x+y]", False, (["studio", "web, old"], ["a=b", "x+y"])),
        ("dataset.source=[[a],[b=c, 'd]']],'e, f',it's", True, ([["a"], ["b=c", "d]"]], "e, f", "it's")),
    ],
)  # fmt: skip
def test_a_word_that_hydra_cannot_read_is_quoted_for_it_and_the_shell(word, several, meant):
    with pytest.raises(HydraException):
        read(word)
    text = quote_word(word, several)
    assert text
    assert read(pasted(text)) == meant
    assert pasted(text).partition("=")[0] == word.partition("=")[0]


def test_any_text_survives():
    draw, parser = random.Random(0), OverridesParser.create()
    signs, tried = "ab1= ,'\"\\äß$!`#&;|<>()]}:*?~\t€-+/.%^@", 0
    for _ in range(2000):
        value = "".join(draw.choices(signs, k=draw.randint(1, 7)))
        try:
            parser.parse_override(f"key={value}")
        except HydraException:
            tried += 1
            text = quote_word(f"key={value}")
            assert text
            (word,) = shlex.split(text)
            assert read(word) == value
    assert tried > 1000


@pytest.mark.parametrize(
    "word", ["Übung=3", "a b=3", "dataset={a: ü}", "x=ü\x1b[2J", "x=ü\udcff", "x=[a=b,'c]", "x=[[a=b],c]]d]"]
)
def test_what_no_quotes_can_mend_gets_none(word):
    assert quote_word(word) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.root=a=b"], "'dataset.root=a=b' can't be read: Hydra needs its own quotes around such text."),
        (["dataset.root=a=b", "dataset.source=ü"], "Paste this instead: 'dataset.root=\"a=b\"' 'dataset.source=\"ü\"'"),
        (["-m", "dataset.source=Köln,Ulm"], "Paste this instead: 'dataset.source=\"Köln\",Ulm'"),
        (
            ["dataset.root=a, b"],
            "run each; if the comma is part of one value, write 'dataset.root=\"a, b\"'",
        ),
        (["tracker=wandb,trackio"], "tracker=wandb,trackio has several values: add -m to run each"),
        (["seed=0,1"], "seed=0,1 has several values: add -m to run each"),
        (["dataset.source=[a],[b]"], "dataset.source=[a],[b] has several values: add -m to run each"),
        (["Übung=3"], "'Übung=3' can't be read: 'Übung' is not a valid key"),
        (["method"], "'method' can't be read: write key=value"),
    ],
)
def test_the_command_prints_it_ready_to_paste(words, message, tried):
    said = tried("tl-run", *words)
    assert said.code == 1 and message in said.err
    assert ("write '" in said.err) == ("write '" in message)


def test_tl_screen_prints_it_too(tried):
    said = tried("tl-screen", "dataset.source=Köln,Ulm")
    assert said.code == 1 and "Paste this instead: 'dataset.source=\"Köln\",Ulm'" in said.err


def test_the_pasted_command_reads_that_folder(tried):
    folder = Path("Übung's a=b, c")
    for label in ("Äpfel", "x=y"):
        for domain in ("one", "two"):
            (folder / domain / label).mkdir(parents=True)
    words = ["dataset=image_folder", f"dataset.root={folder}", "dataset.source=one", "dataset.target=two"]
    said = tried("tl-run", *words)
    (text,) = [line.strip() for line in said.err.split("instead: ")[1:]]
    assert read(*shlex.split(text)) == str(folder)
    again = tried("tl-run", words[0], *shlex.split(text), *words[2:])
    assert "holds no image" in again.err or "no images" in again.err, again.err
