"""A file of JSON lines, an object in each line, as named columns of cells. Errors name the line."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tl_runner.datasets.cells import Table
from tl_runner.datasets.text_files import read_text
from tl_runner.errors import UserError
from tl_runner.storage.table_files import strip_endings

KINDS = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "a text"}


def read_json_lines(file: str, said: str, text: str, others: Collection[str], encoding: str = "auto") -> Table:
    """The values of the key `text`, which are texts, and of `others`, which may be numbers, too.

    A key that a line lacks, null and NaN are None. Blank lines are passed over. `said` is what named the file, as it
    was typed.
    """
    header, lines, rows = dict[str, None](), [], []
    for line, record in _records(read_text(file, said, encoding), file):
        header.update(dict.fromkeys(record))
        lines.append(line)
        place = f"line {line} of {file}"
        rows.append([_text(record.get(text), text, place), *(_word(record.get(key), key, place) for key in others)])
    if not rows:
        raise UserError(f"{file} is empty: each of its lines must hold an object, as in {json.dumps({text: '…'})}")
    cells = np.array(rows, dtype=object)
    kept = {name: cells[:, index] for index, name in enumerate((text, *others)) if name in header}
    return Table(strip_endings(Path(file).name), file, tuple(header), np.array(lines), kept)


def _records(text: str, file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object in each line that is not blank; lines end where JSON ends them, not at each of Unicode's."""
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            record = json.loads(content, object_pairs_hook=_without_twins, parse_constant=_constant)
        except (ValueError, RecursionError) as error:
            whole = content.lstrip()[:1] == "[" or content.strip() in ("{", "}")
            hint = ": is it one document? jq -c '.[]' OLD > NEW writes a list as lines" if whole and line == 1 else ""
            raise UserError(f"line {line} of {file} is no JSON ({_reason(error)}){hint}") from error
        if not isinstance(record, dict):
            hint = "; jq -c '.[]' OLD > NEW writes a list as lines" if isinstance(record, list) else ""
            raise UserError(f"line {line} of {file} holds {_kind(record)}, and each must hold an object{hint}")
        yield line, record


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; refuses one that has a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"it has the key {twin!r} twice")
    return found


def _constant(word: str) -> None:
    """What other programs write that is no JSON: a NaN is a missing value."""
    if word != "NaN":
        raise ValueError(f"{word} is no number")


def _text(value: Any, key: str, place: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise UserError(f"{place}: {key!r} is {_kind(value)} and must be a text in quotes: {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {key!r} holds half of a sign, {value[error.start]!a}: was a text cut in the middle of an"
            " emoji? Take it out"
        ) from error
    return value


def _word(value: Any, key: str, place: str) -> str | None:
    if isinstance(value, dict | list):
        raise UserError(f"{place}: {key!r} is {_kind(value)} and must be a word or a number: {_short(value)}")
    word = None if value is None else json.dumps(value) if isinstance(value, bool) else str(value)
    return (_text(word, key, place) or "").strip() or None


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "null")


def _short(value: Any) -> str:
    told = json.dumps(value, ensure_ascii=False)
    return told if len(told) < 60 else f"{told[:60]}…"
