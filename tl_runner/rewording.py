"""Hydra's errors, said with what is possible here."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import MissingConfigException, OverrideParseException

from tl_runner import menu
from tl_runner.errors import MOVED, nearest


def reworded(error: Exception, words: Sequence[str], folders: Sequence[Path]) -> str:
    """What to tell a person who typed these words, with options in these folders."""
    group, _, name = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    if isinstance(error, MissingConfigException) and group:
        listed = error.options or [option.name for option in menu.options(folders) if option.group == group]
        return f"there is no {group}={name}{nearest(name, listed)} (possible: {', '.join(listed)})"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} can't be read: say key=value, and quote for the shell what has spaces or quotes in it"
        )
    if "Config group override must be a string" in str(error):
        empty = [word for word in words if word.endswith("=null")]
        return f"{' '.join(empty)}: a group needs one of its options; tl-run --help lists them"
    if match := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(match[1], menu.chosen(words), menu.options(folders))
    if match := re.match(r"Ambiguous value for argument '([^']+)'", str(error)):
        return f"{match[1]} has several values: add -m to make a run of each"
    return str(error).split("\nSee https")[0].strip()


def _unknown_key(key: str, chosen: Mapping[str, str], options: Sequence[menu.Option]) -> str:
    group, _, name = key.partition(".")
    if group == "method" and name in MOVED:
        return f"unknown key {key}: {MOVED[name]}"
    for option in options:
        if (
            name
            and option.group == group
            and option.name in chosen.get(group, "").split(",")
            and name not in option.keys
        ):
            listed = ", ".join(f"{group}.{own}" for own in option.keys) or "it has none"
            said = f"{group}={option.name} has no {name!r}{nearest(name, option.keys)}"
            return f"unknown key {key}: {said} (possible: {listed})"
    possible = sorted({*menu.settings().keys, *menu.defaults()})
    return f"unknown key {key}{nearest(key, possible)} (possible: {', '.join(possible)})"
