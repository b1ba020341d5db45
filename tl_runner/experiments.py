"""Named experiments: command lines that belong together, read from YAML files of the group `experiment`.

An experiment adds nothing to what can be typed: its runs have the ids that the same words have on a command line.
"""

import shlex
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import yaml

from tl_runner import options
from tl_runner.errors import UserError, nearest

KEY = "experiment"


class Experiment(NamedTuple):
    """The `lines` are sweeps, each of overrides as typed; `compare` are the differences that answer the claim.

    Each of these is of two sides, the values of keys that tell them apart. `claim` is what the `origin` says, `seen`
    what was measured.
    """

    name: str
    purpose: str
    lines: tuple[tuple[str, ...], ...]
    compare: tuple[tuple[dict[str, str], dict[str, str]], ...]
    origin: str
    claim: str
    seen: str
    text: str

    @property
    def told(self) -> list[str]:
        """The claim, and what was seen of it, where the file has them."""
        named = {"the claim": self.claim, "seen before": self.seen}
        return [f"{name}: {text}" for name, text in named.items() if text]

    @property
    def runs(self) -> int:
        """How many runs it makes: all combinations of each line."""
        return sum(prod(len(_list_values(word)) for word in line) for line in self.lines)


def list_experiments(folders: Sequence[Path]) -> list[Experiment]:
    """Every experiment in these folders, sorted by name."""
    return sorted(_read(file) for folder in folders for file in (folder / KEY).glob("*.yaml"))


def find_experiments(words: Sequence[str], folders: Sequence[Path]) -> list[Experiment]:
    """Those that `experiment=a,b` names among the words; raises `UserError` where there is none of a name."""
    named = [name for word in words if word.startswith(f"{KEY}=") for name in word.partition("=")[2].split(",")]
    known = {each.name: each for each in list_experiments(folders)} if named else {}
    for name in named:
        if name not in known:
            listed = ", ".join(known)
            raise UserError(f"there is no {KEY}={name}{nearest(name, known)} (possible: {listed})")
    return [known[name] for name in dict.fromkeys(named)]


def expand_words(words: Sequence[str], experiments: Sequence[Experiment]) -> list[list[str]]:
    """The sweeps of these experiments, each with the other words that were typed.

    A typed word replaces those of its key, and the choice of a group's option those of the group's keys, too.
    """
    typed = [word for word in words if _is_override(word) and not word.startswith("hydra")]
    lines = [[*_without(line, typed), *typed] for each in experiments for line in each.lines]
    return [list(line) for line in dict.fromkeys(map(tuple, lines))]


def list_hydra_words(words: Sequence[str]) -> list[str]:
    """Of words that name an experiment, those that are for Hydra or for the command, not for its runs alone."""
    own = {"outputs", "dry"}
    others = [word for word in words if word not in ("-m", "--multirun") and not word.startswith(f"{KEY}=")]
    return [word for word in others if not _is_override(word) or word.startswith("hydra") or _key(word) in own]


def list_swept(lines: Sequence[Sequence[str]]) -> list[str]:
    """Every key with all of its values; one that some line lacks is `choice(…)`, so that it counts as swept."""
    values: dict[str, list[str]] = {}
    for line in lines:
        for key, value in options.parse_words(line).items():
            values.setdefault(key, []).append(value)
    words = []
    for key, said in values.items():
        distinct = list(dict.fromkeys(said))
        swept_by_absence = len(distinct) == 1 and len(said) < len(lines)
        words.append(f"{key}=choice({distinct[0]})" if swept_by_absence else f"{key}={','.join(distinct)}")
    return words


def describe_experiments(folders: Sequence[Path]) -> str:
    """The text of `tl-run --help experiment`."""
    listed = list_experiments(folders)
    width = max(len(each.name) for each in listed)
    lines = [f"  {each.name:<{width}} {each.runs:>4} runs  {each.purpose}" for each in listed]
    return "\n".join([HELP, "", *lines, "", "docs/experiments.md has what each of them showed."])


HELP = """Named experiments: tl-run experiment=NAME makes all runs of one and compares them; rerun it to resume.

  tl-run experiment=NAME seed=0,1,2          other values of a key, for all of its runs
  tl-run experiment=NAME dry=true            what it would run
  tl-run --help experiment=NAME              its command lines, where it comes from, and what was seen"""


def _without(line: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The words of a line that no typed word replaces."""
    keys = {_key(word) for word in typed}
    groups = keys & options.defaults().keys()
    return [word for word in line if _key(word) not in keys and _key(word).partition(".")[0] not in groups]


def _list_values(word: str) -> list[str]:
    value = word.partition("=")[2]
    return [value] if value.startswith(("[", "{", "'", '"')) else value.split(",")


def _is_override(word: str) -> bool:
    """Whether it is a word for a run, and names no experiment."""
    return ("=" in word or word.startswith("~")) and not word.startswith(("-", f"{KEY}="))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _read(file: Path) -> Experiment:
    text = file.read_text(encoding="utf-8")
    purpose = text.partition("\n")[0].lstrip("# ").strip()
    try:
        said = yaml.safe_load(text)
        shared = shlex.split(said.get("shared", ""))
        lines = tuple((*_without(shared, words), *words) for words in map(shlex.split, said["runs"]))
        compare = tuple(_read_sides(line) for line in said.get("compare", ()))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is no experiment: it needs `runs`, a list of command lines ({error})") from error
    origin, claim, seen = (" ".join(str(said.get(key, "")).split()) for key in ("origin", "claim", "seen"))
    return Experiment(file.stem, purpose, lines, compare, origin, claim, seen, text)


def _read_sides(line: str) -> tuple[dict[str, str], dict[str, str]]:
    """The values of both sides of `method=mmd vs method=dann`."""
    one, other = (options.parse_words(shlex.split(side)) for side in line.split(" vs "))
    return one, other
