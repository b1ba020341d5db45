"""Hydra's errors, said with what is possible here."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from tl_runner import options
from tl_runner.errors import MOVED, nearest

# An element of a list that is in quotes, whole.
QUOTED = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')(?=\s*(?:[],]|$))""", re.DOTALL)

NO_NAME = re.compile(r"=(null|nan|[+-]?inf|true|false|[\d.e+-]*)$", re.IGNORECASE)  # what Hydra reads as no text


def reword_error(error: Exception, words: Sequence[str], folders: Sequence[Path], several: bool = False) -> str:
    """What to tell a person who typed these words, with options in these folders.

    `several`: commas are between values even without -m.
    """
    several = several or bool({"-m", "--multirun"} & set(words))
    group, _, name = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    if isinstance(error, MissingConfigException) and group:
        listed = error.options or [option.name for option in options.list_options(folders) if option.group == group]
        return f"there is no {group}={name}{nearest(name, listed)} (possible: {', '.join(listed)})"
    if isinstance(error, OverrideParseException):
        return _unread(error.override, words, several)
    if "Config group override must be a string" in str(error):
        odd = [word for word in words if word.partition("=")[0] in options.defaults() and NO_NAME.search(word)]
        return f"{' '.join(odd)}: a group needs one of its options; tl-run --help lists them"
    if match := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(match[1], options.resolve_choices(words), options.list_options(folders))
    if match := re.match(r"Ambiguous value for argument '([^']+)'", str(error)):
        whole = _pasted(match[1], _quoted) if _may_be_one(match[1]) else None
        paste = f"; if the comma is part of one value, write {whole}" if whole else ""
        return f"{match[1]} has several values: add -m to run each{paste}"
    return str(error).split("\nSee https")[0].strip()


def _unknown_key(key: str, chosen: Mapping[str, str], known: Sequence[options.Option]) -> str:
    group, _, name = key.partition(".")
    if group == "method" and name in MOVED:
        return f"unknown key {key}: {MOVED[name]}"
    for option in known:
        if (
            name
            and option.group == group
            and option.name in chosen.get(group, "").split(",")
            and name not in option.keys
        ):
            listed = ", ".join(f"{group}.{own}" for own in option.keys) or "it has none"
            said = f"{group}={option.name} has no {name!r}{nearest(name, option.keys)}"
            return f"unknown key {key}: {said} (possible: {listed})"
    possible = sorted({*options.read_settings().keys, *options.defaults()})
    return f"unknown key {key}{nearest(key, possible)} (possible: {', '.join(possible)})"


def _unread(override: str, words: Sequence[str], several: bool) -> str:
    """That a word can't be read, and each such word as the shell and Hydra take it."""
    faulty = [word for word in words if "=" in word and not word.startswith("-") and not _readable(word)]
    mended = [quote_word(word, several) for word in faulty]
    if not faulty or not all(mended):
        key = override.partition("=")[0]
        if "=" in override and not _readable(f"{key}=1"):
            return f"{override!r} can't be read: {key!r} is not a valid key: use letters a to z, digits, _ and dots"
        return f"{override!r} can't be read: write key=value, as in 'dataset.root=\"/my data/a=b\"'"
    listed = "\n".join(f"  {word}" for word in mended)
    which = ", ".join(map(repr, faulty))
    return f"{which} can't be read: Hydra needs its own quotes around such text. Paste this instead:\n{listed}"


def _may_be_one(word: str) -> bool:
    """Whether a value with commas could be one text: not options of a group, not numbers, not lists."""
    key, _, value = word.partition("=")
    parts = _split_at_commas(value)
    return key not in options.defaults() and not any(NO_NAME.search(f"={part}") or part[:1] in "[{" for part in parts)


def quote_word(word: str, several: bool = False) -> str | None:
    """A word that Hydra can't read, as a person must type it in a shell so that it means what it says.

    Lists stay lists, choice(…) stays one, commas part values where there are `several`. None where no quotes help:
    a key or a {…} that can't be read, brackets or quotes that don't close, or signs that a terminal would not show as
    they are.
    """
    return _pasted(word, lambda value: _in_quotes(value, several))


def _pasted(word: str, quote: Callable[[str], str | None]) -> str | None:
    key, _, value = word.partition("=")
    quoted = quote(value)
    mended = f"{key}={quoted}"
    shown = mended.replace("\n", "").replace("\t", "").isprintable()
    return shlex.quote(mended) if quoted and shown and _readable(mended) else None


def _in_quotes(value: str, several: bool) -> str | None:
    """The value with quotes around those of its parts that need them; None where its parts can't be told apart."""
    if match := re.fullmatch(r"(choice\()(.*)(\))", value, re.S):
        inner = _join(map(_quote_part, _split_at_commas(match[2])))
        return inner and f"{match[1]}{inner}{match[3]}"
    parts = _split_at_commas(value)
    if len(parts) > 1 and (several or any(part.startswith("[") for part in parts)):
        return _join(map(_quote_part, parts))
    if len(parts) == 1 and re.fullmatch(r"\[.*]", value, re.S):
        return _quote_part(value)
    return value if value.startswith("{") or _readable(f"x={value}") else _quoted(value)


def _quote_part(part: str) -> str | None:
    """An element of a list, or one of several values, in quotes if it needs them."""
    if _readable(f"x={part}"):
        return part
    if match := re.fullmatch(r"\[(.*)]", part, re.S):
        inner = _join(map(_quote_part, _split_at_commas(match[1])))
        return inner and f"[{inner}]"
    cut = part.count("[") != part.count("]") or part[:1] in ("'", '"') or part[-1:] in ("'", '"')
    return None if cut else _quoted(part)


def _join(parts: Iterable[str | None]) -> str | None:
    found = list(parts)
    return None if None in found else ",".join(part for part in found if part is not None)


def _split_at_commas(text: str) -> list[str]:
    """The parts between commas that stand in no list and in no quotes, without the blanks around them."""
    parts, start, place, depth, begins = [], 0, 0, 0, True  # begins: at the start of an element
    while place < len(text):
        if begins and (match := QUOTED.match(text, place)):
            place, begins = match.end(), False
            continue
        sign = text[place]
        if sign == "," and not depth:
            parts.append(text[start:place].strip())
            start = place + 1
        depth += (sign == "[" and begins) - (sign == "]" and depth > 0)
        begins = sign == "," or (begins and (sign == "[" or sign.isspace()))
        place += 1
    return [*parts, text[start:].strip()]


def _quoted(text: str) -> str:
    quote = Quote.single if '"' in text and "'" not in text else Quote.double
    return QuotedString(text, quote).with_quotes()


def _readable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
