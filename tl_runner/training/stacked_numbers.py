"""The numbers in which methods of one kind differ: a weight, a temperature."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tl_runner.core import INTERNAL

Path = tuple[str, ...]  # of attributes, from the method


@dataclass(frozen=True)
class Numbers:
    """Where in a method they stand, and what they are in each of M methods, (M,) float64 for each place."""

    places: tuple[Path, ...]
    values: list[Tensor]

    @contextmanager
    def set_on(self, method: Any, values: Sequence[Any]) -> Iterator[None]:
        """Within, the method has these values at the places."""
        before = [_get(method, place) for place in self.places]
        for place, value in zip(self.places, values, strict=True):
            _set(method, place, value)
        try:
            yield
        finally:
            for place, value in zip(self.places, before, strict=True):
                _set(method, place, value)


def find_numbers(methods: Sequence[Any]) -> Numbers:
    """The attributes in which these methods differ; raises `ValueError` where one is no number."""
    places = list(_list_places(methods))
    values = [torch.tensor([_get(method, place) for method in methods], dtype=torch.double) for place in places]
    return Numbers(tuple(places), values)


def _list_places(owners: Sequence[Any], above: Path = ()) -> Iterator[Path]:
    if any(vars(owner).keys() != vars(owners[0]).keys() for owner in owners):
        raise ValueError(f"{type(owners[0]).__name__} has not the same attributes in each run")
    for name, value in vars(owners[0]).items():
        if name in INTERNAL:
            continue
        values = [vars(owner)[name] for owner in owners]
        if all(type(each) in (int, float) for each in values):
            if any(each != value for each in values):
                yield (*above, name)
        elif all(map(_is_plain_object, values)):
            yield from _list_places(values, (*above, name))
        elif not _are_same(values):
            raise ValueError(f"{'.'.join((*above, name))} differs, and is no number")


def _is_plain_object(value: Any) -> bool:
    """An object of ours with attributes of its own, such as `Strength`; modules are stacked by their tensors."""
    ours = type(value).__module__.startswith("tl_runner.") and hasattr(value, "__dict__")
    return ours and not isinstance(value, nn.Module | type)


def _are_same(values: Sequence[Any]) -> bool:
    first = values[0]
    if any(type(each) is not type(first) for each in values):
        return False
    if isinstance(first, Tensor):
        return all(torch.equal(each, first) for each in values)
    if callable(first):  # modules, functions, and those with some arguments given
        return all(repr(each) == repr(first) for each in values)
    try:
        return all(each == first for each in values)
    except (RuntimeError, ValueError):  # a list of tensors, an array: nothing of ours has one
        return False


def _get(owner: Any, place: Path) -> Any:
    for name in place:
        owner = getattr(owner, name)
    return owner


def _set(owner: Any, place: Path, value: Any) -> None:
    setattr(_get(owner, place[:-1]), place[-1], value)
