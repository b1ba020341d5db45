"""Named experiments: command lines that belong together, read from YAML files of the group `experiment`.

An experiment adds nothing to what can be typed: its runs have the ids that the same words have on a command line.
"""

import re
import shlex
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

from tl_runner import options
from tl_runner.errors import UserError, nearest
from tl_runner.pairs import expand_pairs
from tl_runner.plurals import count_noun

KEY = "experiment"
KEYS = ("shared", "runs", "compare", "origin", "claim", "seen")  # of a file


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
        expanded = [each for line in self.lines for each in expand_pairs(line)]
        return sum(prod(len(_list_values(word)) for word in line) for line in expanded)


def find_experiments(words: Sequence[str], folders: Sequence[Path]) -> list[Experiment]:
    """Those that `experiment=a,b` names among the words; raises `UserError` where there is none of a name."""
    if odd := [word for word in words if word.startswith(("+", "~")) and _key(word) == KEY]:
        raise UserError(f"{odd[0]}: write {odd[0].lstrip('+~')}, as there is nothing to add it to")
    named = [name for word in words if word.startswith(f"{KEY}=") for name in word.partition("=")[2].split(",")]
    files = list_files(folders) if named else {}
    for name in named:
        if name not in files:
            raise UserError(f"there is no {KEY}={name}{nearest(name, files)} (possible: {', '.join(files)})")
    return [read_experiment(files[name]) for name in dict.fromkeys(named)]


def list_files(folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each experiment in these folders, by name and sorted by that."""
    found = {file.stem: file for folder in folders for file in (folder / KEY).glob("*.yaml") if file.is_file()}
    return dict(sorted(found.items()))


def read_experiment(file: Path) -> Experiment:
    """The experiment of this file; raises `UserError` where it is none, and says why."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig")
        said = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} can't be read: {' '.join(str(error).split())}") from error
    try:
        _check(said, text)
        shared = _read_line(said.get("shared", ""), "shared")
        sweeps = [_read_line(line, f"run {number}") for number, line in enumerate(said["runs"], 1)]
        compare = tuple(_read_sides(line) for line in said.get("compare") or ())
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    lines = tuple((*_without(shared, words), *words) for words in sweeps)
    first = text.partition("\n")[0]
    purpose = first.lstrip("# ").strip() if first.startswith("#") else "(its YAML begins with no comment)"
    origin, claim, seen = (" ".join(str(said.get(key, "")).split()) for key in ("origin", "claim", "seen"))
    return Experiment(file.stem, purpose, lines, compare, origin, claim, seen, text)


def expand_words(words: Sequence[str], experiments: Sequence[Experiment]) -> list[list[str]]:
    """The sweeps of these experiments, each with the other words that were typed.

    A typed word replaces those of its key, and the choice of a group's option those of the group's keys, too.
    """
    typed = list_overrides(words)
    lines = [[*_without(line, typed), *typed] for each in experiments for line in each.lines]
    return [list(line) for line in dict.fromkeys(map(tuple, lines))]


def list_overrides(words: Sequence[str]) -> list[str]:
    """The words that are for a run."""
    return [word for word in words if _is_override(word) and not word.startswith("hydra")]


def list_hydra_words(words: Sequence[str]) -> list[str]:
    """Of words that stand for several lines, those that are for Hydra or for the command, not for its runs alone."""
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
    files = list_files(folders)
    width = max(map(len, files))
    lines = []
    for name, file in files.items():
        try:
            found = read_experiment(file)
            told = f"{count_noun(found.runs, 'run'):>8}  {found.purpose}"
        except UserError as error:  # a draft: the others are listed, and run, all the same
            told = f"unreadable: {error}"
        lines.append(f"  {name:<{width}} {told}")
    return "\n".join([HELP, "", *lines, "", "docs/experiments.md has what each of them showed."])


HELP = """Named experiments: tl-run experiment=NAME makes all runs of one and compares them; rerun it to resume.

  tl-run experiment=NAME seed=0,1,2          other values of a key, for all of its runs
  tl-run experiment=NAME dry=true            what it would run
  tl-run --help experiment=NAME              its command lines, where it comes from, and what was seen"""


def _without(line: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The words of a line that no typed word replaces; the option that the line has already replaces nothing."""
    said, own = options.parse_words(typed), {**options.defaults(), **options.parse_words(line)}
    keys = {_key(word) for word in typed}
    groups = {group for group in keys & options.defaults().keys() if said.get(group) != own[group]}
    return [word for word in line if _key(word) not in keys and _key(word).partition(".")[0] not in groups]


def _list_values(word: str) -> list[str]:
    value = word.partition("=")[2]
    return [value] if value.startswith(("[", "{", "'", '"')) else value.split(",")


def _is_override(word: str) -> bool:
    """Whether it is a word for a run, and names no experiment."""
    return ("=" in word or word.startswith("~")) and not word.startswith(("-", f"{KEY}="))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _check(said: object, text: str) -> None:
    """Raise `ValueError` where a file has not the keys that it needs, has others, or has one twice."""
    if not isinstance(said, dict):
        raise ValueError("it must have keys, of which `runs` is a list of command lines")
    for key, value in said.items():
        if key not in KEYS:
            raise ValueError(f"unknown key {key}{nearest(str(key), KEYS)} (possible: {', '.join(KEYS)})")
        if len(re.findall(rf"^{key}:", text, re.MULTILINE)) > 1:
            raise ValueError(f"{key} is there twice")
        if key in ("runs", "compare") and not (
            isinstance(value, list) and all(isinstance(line, str) for line in value)
        ):
            raise ValueError(f"{key} must be a list of texts, a line each")
    if not said.get("runs"):
        raise ValueError("it needs `runs`, a list of command lines")


def _read_line(line: object, where: str) -> list[str]:
    """The overrides of a line; raises `ValueError` where it has other words."""
    if not isinstance(line, str) or (where != "shared" and not line.strip()):
        raise ValueError(f"{where} must be overrides, as in method=mmd seed=0,1; got {line!r}")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"{where}: {error} in {line!r}") from error
    for word in words:
        if not _is_override(word) or _key(word) in ("dry", KEY) or word.startswith("hydra"):
            raise ValueError(f"{where}: {word!r} is no override of a run's: it belongs on the command line")
    return words


def _read_sides(line: str) -> tuple[dict[str, str], dict[str, str]]:
    """The values of both sides of `method=mmd vs method=dann`; raises `ValueError` where it is not so written."""
    sides = [options.parse_words(shlex.split(side)) for side in line.split(" vs ")]
    if len(sides) != 2 or not all(sides):
        raise ValueError(f"compare: {line!r} must be two sides with a value each, as in method=mmd vs method=dann")
    return sides[0], sides[1]
