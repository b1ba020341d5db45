"""The nouns of the page: panels, figures with their captions, and what stands in place of a figure that can't be."""

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Panel:
    """One chart of a figure, with its heading and a note below that."""

    heading: str
    chart: Markup
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a sign in a colour of the page (`line`, `dash`, `dot`, `cross`, `band`, `square`)."""

    sign: str
    colour: str
    text: str


@dataclass(frozen=True)
class LabelledPicture:
    """A sample, as a data URI with the words that stand for it, and lines of (text, is it right)."""

    uri: str
    words: str
    lines: list[tuple[str, bool | None]]


@dataclass(frozen=True)
class Gallery:
    heading: str
    pictures: list[LabelledPicture]


@dataclass(frozen=True)
class FigureTable:
    """A small table: a heading, the names of its columns and its rows of text."""

    heading: str
    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Figure:
    """Panels under one caption. `missing` says why there are none, or why some are not there."""

    name: str
    title: str
    caption: str = ""
    panels: list[Panel] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    cells: list[FigureTable] = field(default_factory=list)
    missing: str = ""
