"""The files of one domain in tables: a file, all that match a pattern, or all tables in a folder. Needs no torch."""

import re
from collections.abc import Iterator
from pathlib import Path

from tl_runner.storage.litter import is_litter

PARQUET = (".parquet", ".pq")
DELIMITED = (".csv", ".tsv", ".tab", ".psv")
JSON_LINES = (".jsonl", ".ndjson", ".json")
GZIP = ".gz"
ENDINGS = (*PARQUET, *(f"{ending}{gzip}" for ending in (*DELIMITED, *JSON_LINES) for gzip in ("", GZIP)))


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files, as data/2024-*.csv does, and is none itself."""
    return bool(re.search(r"[*?\[]", name)) and not Path(name).expanduser().exists()


def list_table_files(name: str, home: Path | None = None) -> list[Path]:
    """The files that a name leads to, sorted: itself, those that match it, or the tables that a folder itself holds.

    Hidden files and what other programs leave are passed over. Nothing where there is nothing.
    """
    path = (home or Path()) / Path(name).expanduser()
    try:
        if path.is_dir():
            return sorted(file for file in _inside(path) if file.name.lower().endswith(ENDINGS))
        if is_pattern(name):
            return sorted(file for file in _matching(path) if file.is_file() and not is_litter(file.name))
        return [path] if path.is_file() else []
    except (OSError, ValueError):  # too long for a name; a null byte
        return []


def _inside(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.is_file() and not is_litter(file.name))


def _matching(path: Path) -> Iterator[Path]:
    """What matches a path, any of whose parts may be a pattern."""
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:first]).glob("/".join(parts[first:]))


def strip_endings(name: str) -> str:
    """A file's name without what says that it is a table: `a` of `a.csv.gz`."""
    stem = name.removesuffix(GZIP)
    return Path(stem).stem if Path(stem).stem else name
