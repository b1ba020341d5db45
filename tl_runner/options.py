"""What can be said on the command line, read from the YAML files alone: no Hydra, no torch, a few milliseconds."""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tl_runner.errors import UserError, nearest


class NoEffect:
    """Annotates a parameter that does nothing where another option has one of these values; who sets it is warned.

    As in `k: Annotated[int, NoEffect("head", "svm", "logistic")] = 5`.
    """

    def __init__(self, other: str, *values: str):
        self.other, self.values = other, values


class Option(NamedTuple):
    """One choice of a group: `keys` are its own configuration keys, `text` its whole YAML."""

    group: str
    name: str
    purpose: str
    keys: tuple[str, ...]
    text: str


def conf() -> Path:
    """The folder of the configuration package."""
    spec = find_spec("tl_runner.conf")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package tl_runner.conf is missing: install tl_runner again")
    return Path(next(iter(spec.submodule_search_locations)))


def list_options(folders: Sequence[Path]) -> list[Option]:
    """Every option in these folders, sorted by group and name."""
    groups = [*defaults(), *_plugins(), "experiment"]
    found = [(file, group) for folder in folders for group in groups for file in (folder / group).glob("*.yaml")]
    return sorted((_read(file, group) for file, group in found if file.is_file()), key=lambda option: option[:2])


def read_settings() -> Option:
    """The keys that belong to no group, from config.yaml."""
    return _read(conf() / "config.yaml", "")


def defaults() -> dict[str, str]:
    """Each group's default option."""
    return dict(re.findall(r"^  - (\w+): (\w+)$", read_settings().text, re.MULTILINE))


def _plugins() -> dict[str, str]:
    """Hydra's default launcher and sweeper."""
    return dict(re.findall(r"^  - override (hydra/launcher|hydra/sweeper): (\w+)$", read_settings().text, re.MULTILINE))


def parse_words(words: Sequence[str]) -> dict[str, str]:
    """Each key=value of a command line, as typed."""
    return dict(word.lstrip("+").split("=", 1) for word in words if "=" in word and not word.startswith("-"))


def resolve_choices(overrides: Sequence[str]) -> dict[str, str]:
    """The option of every group under these overrides, as typed."""
    said = parse_words(overrides)
    return {group: said.get(group, default) for group, default in defaults().items()}


def describe_variant(overrides: Sequence[str], words: Sequence[str]) -> str:
    """What tells a job from others of its sweep, beside its dataset, backbone, method and seed: its overrides of
    the keys that have several values among the typed words."""
    several = {key for key, value in parse_words(words).items() if _sweeps(value)} - {
        "dataset",
        "backbone",
        "method",
        "seed",
    }
    return " ".join(word for word in overrides if word.lstrip("+").partition("=")[0] in several)


def settle_swept_keys(words: Sequence[str]) -> list[str]:
    """The words of a multirun, a fixed key of a swept group made a sweep of one: method=a,b method.weight=choice(1).

    Hydra first composes what is not swept, on the groups' defaults, and would refuse a key that they do not have.
    """
    if not {"-m", "--multirun"} & set(words):
        return list(words)
    swept = {group for group, choice in parse_words(words).items() if group in defaults() and _sweeps(choice)}

    def settle(word: str) -> str:
        key, _, value = word.partition("=")
        fixed = key.partition(".")[0] in swept and "." in key and value and not _sweeps(value)
        return f"{key}=choice({value})" if fixed else word

    return [settle(word) for word in words]


def _sweeps(value: str) -> bool:
    """Whether a value is several: a,b or choice(…); the commas of a list or of quoted text do not count."""
    outside = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in outside or bool(re.match(r"(choice|range|interval|glob)\(", outside))


def find_shadowed(folder: Path) -> list[str]:
    """Options in a user's folder with the name of a built-in one, which Hydra would silently prefer."""
    ours = {option[:2] for option in list_options([conf()])}
    return [f"{option.group}/{option.name}" for option in list_options([folder]) if option[:2] in ours]


def overview(folders: Sequence[Path]) -> str:
    """The text of `tl-run --help`."""
    return "\n".join([USAGE, *_groups(folders), "", "keys", *_keys(), "", FOOTER])


def detail(words: Sequence[str], folders: Sequence[Path]) -> str:
    """The YAML of each option named as group=name: what `tl-run --help method=mmd` prints.

    Raises `UserError` where there is no such option.
    """
    known = {f"{option.group}={option.name}": option.text for option in list_options(folders)}
    for word in words:
        if word not in known:
            raise UserError(f"there is no {word}{nearest(word, known)}; tl-run --help lists all options")
    return "\n".join(f"{word}\n\n{known[word]}" for word in words)


USAGE = """tl-run – which way of transferring works on your data?

  tl-run                                            the default run
  tl-run method=mmd backbone=resnet18               other options of a group
  tl-run method.weight=0.5 train.steps=1000         other values of a key
  tl-run -m method=source_only,mmd seed=0,1,2       a sweep: all combinations
  tl-run pairs=all method=source_only,mmd           each pair of a dataset's domains; pairs=leave_one_out pools sources
  tl-run experiment=smoke                           a named experiment: all of its runs, and their comparison
  tl-run --help method=mmd                          the keys of one option; --help experiment lists these
  tl-run --cfg job                                  the whole configuration, run nothing
  tl-run --config-dir DIR method=mine               with options of your own: DIR/method/mine.yaml
  tl-report [PATH …] [--html FILE]                  compare the runs found there; also tl-report diff RUN1 RUN2
  tl-screen, tl-predict, tl-export                  before training, and after: see their --help"""

FOOTER = """hydra/launcher also takes fused (runs that differ in numbers train as one program), basic (one after
another, in one process), ray, submitit_slurm, submitit_local.
HYDRA_FULL_ERROR=1 shows the traceback of an error. Runs are stored in outputs/runs. See README.md."""


SHARED = ("optimizer.lr_backbone",)  # that all options of their group have, and every method heeds


def _groups(folders: Sequence[Path]) -> Iterator[str]:
    default, group, listed = {**defaults(), **_plugins()}, None, list_options(folders)
    width = {option.group: 16 for option in listed}  # of the names in a group
    width |= {each: max(width[each], *(len(o.name) for o in listed if o.group == each)) for each in width}
    for option in listed:
        if option.group != group:
            group = option.group
            yield f"\n{group}"
        star = "*" if default.get(option.group) == option.name else " "
        yield f"  {star} {option.name:<{width[option.group]}} {option.purpose}"
    yield "\n  * is the default"


def _keys() -> Iterator[str]:
    for key, value, comment in re.findall(r"^(\w+): (\S+) +# (.*)$", read_settings().text, re.MULTILINE):
        yield f"    {f'{key}={value}':<21} {comment}"
    for shared in SHARED:
        group, _, name = shared.partition(".")
        text = next(option.text for option in list_options([conf()]) if option.group == group)
        for value, comment in re.findall(rf"^{name}: (\S+) +# (.*)$", text, re.MULTILINE):
            yield f"    {f'{shared}={value}'} {comment}"


def _read(file: Path, group: str) -> Option:
    text = file.read_text(encoding="utf-8", errors="replace")
    first = text.partition("\n")[0]
    purpose = first.lstrip("# ").strip() if first.startswith("#") else "(its YAML begins with no comment)"
    keys = tuple(re.findall(r"^(?!_target_|defaults|hydra)(\w+):", text, re.MULTILINE))
    return Option(group, file.stem, purpose, keys, text)
