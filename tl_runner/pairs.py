"""`pairs=all` and `pairs=leave_one_out`: a command line for each pair of a dataset's domains."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_runner import options
from tl_runner.errors import UserError, nearest

KEY, NAMES = "pairs", "domains"
WAYS = {
    "all": "each domain as the source, each other one as the target",
    "leave_one_out": "each domain as the target, all others together as its source",
}


def names_pairs(words: Sequence[str]) -> bool:
    """Whether a command line asks for pairs of domains."""
    return any(_key(word) in (KEY, NAMES) for word in words)


def expand_pairs(line: Sequence[str]) -> list[list[str]]:
    """The line for each pair of domains that its `pairs` asks for; the line itself where it has none.

    The domains are those that `domains=[a,b,c]` names, or all that the dataset has. Raises `UserError` where they can't
    be told, or the line names a source or a target as well.
    """
    if not names_pairs(line):
        return [[*line]]
    said = options.parse_words(line)
    how, chosen = said.get(KEY), options.resolve_choices(line)["dataset"]
    if how is None:
        raise UserError(f"{NAMES}={said[NAMES]} names what {KEY}=all or {KEY}=leave_one_out pairs: say which")
    if how not in WAYS:
        listed = ", ".join(f"{way} ({what})" for way, what in WAYS.items())
        raise UserError(f"{KEY}={how}{nearest(how, WAYS)} (possible: {listed})")
    if both := [key for key in ("dataset.source", "dataset.target") if key in said]:
        raise UserError(f"{KEY}={how} sets the source and the target of each run: leave {both[0]} out")
    domains = _read_list(NAMES, said[NAMES]) if NAMES in said else _find_domains(chosen, said)
    places = [Path(name).expanduser().resolve() for name in domains]
    if twice := [name for name, place in zip(domains, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{NAMES}=[{','.join(domains)}] names one domain twice, as {' and '.join(map(repr, twice))}")
    if len(domains) < 2 + (how == "leave_one_out"):
        least = "three domains, two of them sources" if how == "leave_one_out" else "two domains"
        raise UserError(f"{KEY}={how} needs {least}, and there are {', '.join(domains) or 'none'}")
    rest = [word for word in line if _key(word) not in (KEY, NAMES)]
    return [
        [*rest, f"dataset.source={_write(sources)}", f"dataset.target={_quote(target)}"]
        for sources, target in pair_up(domains, how)
    ]


def pair_up(domains: Sequence[str], how: str) -> list[tuple[list[str], str]]:
    """The sources and the target of each pair, in the order of the domains."""
    if how == "leave_one_out":
        return [([other for other in domains if other != target], target) for target in domains]
    return [([source], target) for source in domains for target in domains if source != target]


def _find_domains(dataset: str, said: dict[str, str]) -> list[str]:
    from tl_runner.datasets.domain_names import list_domain_names
    from tl_runner.option_names import name_part

    if "," in dataset:
        raise UserError(f"{KEY} pairs the domains of one dataset, and there are several: dataset={dataset}")
    node = name_part("dataset", {"_target_": dataset})
    typed = {key.removeprefix("dataset."): value for key, value in said.items() if key.startswith("dataset.")}
    lists = {key: _read_list(f"dataset.{key}", typed.pop(key)) for key in ("missing",) if key in typed}
    return list_domain_names(dataset, {**node, **{key: _unquote(value) for key, value in typed.items()}, **lists})


def _read_list(key: str, text: str) -> list[str]:
    """The names of [a,b,'c d']."""
    import yaml

    try:
        value: Any = yaml.load(text, yaml.BaseLoader)  # every name is text, 007 too
    except yaml.YAMLError:
        value = None
    if not isinstance(value, list):
        raise UserError(f"{key}={text} takes a list, as in {key}=[a,b,c]")
    return [str(name) for name in value]


def _write(sources: Sequence[str]) -> str:
    return _quote(sources[0]) if len(sources) == 1 else f"[{','.join(map(_quote, sources))}]"


def _quote(name: str) -> str:
    """A name as an override's value: in quotes unless it is a plain word."""
    plain = re.fullmatch(r"(?!(?i:null|true|false|nan|inf|yes|no|on|off)$)[A-Za-z_][\w./-]*", name, re.ASCII)
    return name if plain else "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unquote(value: str) -> str | None:
    return None if value == "null" else value.strip("'\"")


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
