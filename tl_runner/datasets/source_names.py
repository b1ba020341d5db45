"""What names the domains of a dataset: one or several sources, and what to call domains of equal names."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeVar, cast
from unicodedata import normalize

from tl_runner.errors import UserError, list_names

T = TypeVar("T", bound=str)
Several = str | tuple[str, ...] | None  # what names a source: one domain, several, or none


def name_sources(source: T | Sequence[T] | None) -> tuple[T, ...]:
    """The domains that `dataset.source` names: one or several, none where it is null."""
    names = cast("tuple[T, ...]", (source,) if isinstance(source, str) else tuple(source or ()))
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise UserError(f"dataset.source names {twice[0]} twice (it is {list_names(names)})")
    return names


def tell_apart(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """The names; of equal ones as much of the end of their places as tells them apart: a/data, b/data."""
    if len({*names}) == len(names):
        return [*names]
    parts = [Path(place).parts for place in places]
    for length in range(2, max(map(len, parts), default=0) + 1):
        longer = ["/".join([*of[-length:-1], name]) for of, name in zip(parts, names, strict=True)]
        if len({*longer}) == len(longer):
            return longer
    return [*places]


def name_domains(places: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    """What the domains of each role are called, which lie in these folders or lists: no two of them alike."""
    every = [place for each in places.values() for place in each]
    names = iter(tell_apart([normalize("NFC", place.name) for place in every], [str(place) for place in every]))
    return {role: [next(names) for _ in each] for role, each in places.items()}


def refuse_one_place_twice(named: Sequence[tuple[str, str, Path]], noun: str) -> None:
    """Refuse two names of the same rows: of each its role, how it was typed, and where its rows are."""
    for (role, name, place), (other, second, same) in combinations(named, 2):
        if place.expanduser().resolve() != same.expanduser().resolve():
            continue
        if role == other:
            raise UserError(f"dataset.{role} names the same {noun} twice, as {name!r} and {second!r}")
        why = f"the test {noun} must be others" if other == "test" else "there is nothing to transfer"
        both = f"are both {name}" if name == second else f"hold the same {noun}, as {name!r} and {second!r}"
        raise UserError(f"dataset.{role} and dataset.{other} {both}: {why}")
