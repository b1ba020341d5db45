"""Charts as small inline SVG: text is text, colours are classes that the page's style gives a light and a dark value.

Hundreds of panels are on a page. Drawn here each is two kilobytes and a millisecond; matplotlib's are twenty times
both, and have their colours and fonts written into every element.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import TypeVar

from markupsafe import Markup, escape

LEFT, RIGHT, TOP, BOTTOM = 40, 10, 20, 34  # margins for ticks and names of axes
ROW = 34  # pixels of a row with its name above it
TALL = 18  # rows of a chart, which are then cut into columns
COLOURS = 10  # classes c0 … c9 of the style, after Okabe & Ito (2008) and Tol (2021)


Row = TypeVar("Row")


@dataclass(frozen=True)
class Scale:
    """From values to shares of an axis. A logarithmic one takes values above 0, and 0 itself if it has a `zero`."""

    low: float
    high: float
    name: str = ""
    log: bool = False
    percent: bool = False
    zero: float = 0.0  # where a logarithmic axis shows 0, below all other values

    def at(self, value: float) -> float:
        value = self.zero if self.log and not value else value
        low, high, value = (log10(each) if self.log else each for each in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the axis, hardly more than `most`: steps of 1, 2 or 5 times a power of ten; powers of ten
        on logarithmic axes, and 1, 2 and 5 times these on one of less than two.
        """
        if self.log:
            first, last = ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9)
            every = max(1, ceil((last - first + 1) / most))
            found = [10.0**power for power in range(first, last + 1, every)]
            if self.high < 100 * self.low:
                found = [size * 10.0**power for power in range(first - 1, last + 1) for size in (1, 2, 5)]
                found = [value for value in found if self.low <= value <= self.high]
            return [0.0, *(value for value in found if value > 2 * self.zero)] if self.zero else found
        power = 10.0 ** floor(log10((self.high - self.low) / most))
        for step in (size * power for size in (1, 2, 5, 10)):
            found = range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)
            if len(found) <= most + 1:
                return [number * step for number in found]
        return []

    def format_value(self, value: float) -> str:
        return (f"{100 * value:.3g}" if self.percent else f"{round(value, 10):g}").replace("-", "−")


def spanning(values: Iterable[float], name: str = "", log: bool = False, percent: bool = False) -> Scale:
    """An axis that holds all finite values, with a little room around them."""
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if log:
        room = (high / low) ** 0.06 if high > low else 2.0
        return Scale(low / room, high * room, name, log, percent)
    room = 0.06 * (high - low) if high > low else 0.05 * abs(high) or 0.5
    return Scale(low - room, high + room, name, log, percent)


def columns(rows: Sequence[Row]) -> tuple[list[Sequence[Row]], int]:
    """Even portions of at most `TALL` rows, to be charts side by side, and how wide these are."""
    count = max(1, ceil(len(rows) / TALL))
    each = ceil(len(rows) / count)
    return [rows[start : start + each] for start in range(0, len(rows), each)], 360 if count == 1 else 280


class Chart:
    """Axes that marks are drawn into, in the order of the calls; `svg` is the picture, `words` stand for it."""

    def __init__(self, x: Scale, y: Scale, words: str, size: tuple[int, int] = (280, 190), bare: bool = False):
        self.x, self.y, self.words, self.size = x, y, words, size
        left, right, top, bottom = (4, 4, 4, 4) if bare else (LEFT, RIGHT, TOP, BOTTOM)
        self.box: tuple[int, int, int, int] = (left, top, size[0] - left - right, size[1] - top - bottom)
        self.parts: list[Markup] = []
        self.names: Sequence[str] = ()
        if not bare:
            self._upright_axis()
            self._level_axis()

    @classmethod
    def of_rows(cls, names: Sequence[str], x: Scale, words: str, width: int = 360) -> "Chart":
        """A row per name, which stands above it: row i is at height −i. Reads well at any width."""
        chart = cls(x, Scale(-len(names), 0), words, (width, ROW * len(names) + 44), bare=True)
        chart.box = (10, 6, width - 20, ROW * len(names))
        for value in x.ticks():
            chart._add('<path class="grid" d="M{} 6V{}"/>', f"{chart._px(value):.1f}", 6 + ROW * len(names))
        chart._level_axis()
        chart.names = names
        return chart

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """A line through the points; a single one is a dot, which a line would not show."""
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if isfinite(x) and isfinite(y)]
        if len(points) == 1:
            self.dots([points[0]], kind)
        elif points:
            path = "M" + "L".join(f"{self._px(x):.1f} {self._py(y):.1f}" for x, y in points)
            self._add('<path class="line {}" d="{}"/>', kind, path)

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], kind: str) -> None:
        """The area between two curves; points without both ends are left out."""
        points = [p for p in zip(xs, lows, highs, strict=True) if all(map(isfinite, p))]
        if len(points) == 1:
            self.whisker(points[0][0], points[0][1], points[0][2], kind)
        elif points:
            forth = [f"{self._px(x):.1f} {self._py(high):.1f}" for x, _, high in points]
            back = [f"{self._px(x):.1f} {self._py(low):.1f}" for x, low, _ in reversed(points)]
            self._add('<path class="band {}" d="M{}Z"/>', kind, "L".join([*forth, *back]))

    def dots(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        path = "".join(f"M{self._px(x):.1f} {self._py(y):.1f}h0" for x, y in points)
        self._add('<path class="dot {}" d="{}"/>', kind, path)

    def crosses(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        arms = "m-2.5-2.5l5 5m0-5l-5 5"
        path = "".join(f"M{self._px(x):.1f} {self._py(y):.1f}{arms}" for x, y in points)
        self._add('<path class="cross {}" d="{}"/>', kind, path)

    def whisker(self, x: float, low: float, high: float, kind: str) -> None:
        """A vertical interval; nothing where it has no ends."""
        if isfinite(low) and isfinite(high):
            path = f"M{self._px(x):.1f} {self._py(low):.1f}V{self._py(high):.1f}"
            self._add('<path class="whisker {}" d="{}"/>', kind, path)

    def reach(self, y: float, low: float, high: float, kind: str) -> None:
        """A horizontal interval; nothing where it has no ends."""
        if isfinite(low) and isfinite(high):
            path = f"M{self._px(low):.1f} {self._py(y):.1f}H{self._px(high):.1f}"
            self._add('<path class="whisker {}" d="{}"/>', kind, path)

    def mark(self, x: float, y: float, kind: str) -> None:
        """A disc that stands out; of the kind `hollow` a ring."""
        self._add('<circle class="mark {}" cx="{}" cy="{}" r="4"/>', kind, f"{self._px(x):.1f}", f"{self._py(y):.1f}")

    def level(self, y: float, kind: str) -> None:
        """A line across the chart at this height."""
        if isfinite(y):
            self.line([self.x.low, self.x.high], [y, y], kind)

    def upright(self, x: float, kind: str) -> None:
        self.line([x, x], [self.y.low, self.y.high], kind)

    def rug(self, xs: Iterable[float], kind: str) -> None:
        """Short strokes on the horizontal axis."""
        foot = self.box[1] + self.box[3]
        self._add('<path class="rug {}" d="{}"/>', kind, "".join(f"M{self._px(x):.1f} {foot}v-7" for x in xs))

    def bar(self, x0: float, x1: float, y0: float, y1: float, kind: str, strength: float | None = None) -> None:
        """A box from (x0, y0) to (x1, y1), as strong as its share of 1."""
        left, right = sorted((self._px(x0), self._px(x1)))
        top, foot = sorted((self._py(y0), self._py(y1)))
        faint = Markup(' fill-opacity="{:.2f}"').format(strength) if strength is not None else ""
        self._add(
            '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"{}/>',
            kind, f"{left:.1f}", f"{top:.1f}", f"{right - left:.1f}", f"{foot - top:.1f}", faint,
        )  # fmt: skip

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Words whose middle is at this height."""
        self._word(self._px(x), self._py(y) + 3.5, words, anchor, kind)

    def frame(self) -> None:
        """A line around the field."""
        self._add('<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>', *self.box)

    @property
    def svg(self) -> Markup:
        width, height = self.size
        head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            width, height, self.words
        )
        above = [_text(10, self._py(-row) + 13, name, "start", "row") for row, name in enumerate(self.names)]
        return head + Markup("").join([*self.parts, *above]) + Markup("</svg>")  # no line runs through a name

    def _upright_axis(self) -> None:
        left, _, width, _ = self.box
        for value in self.y.ticks():
            self._add('<path class="grid" d="M{} {}h{}"/>', left, f"{self._py(value):.1f}", width)
            self._word(left - 5, self._py(value) + 3.5, self.y.format_value(value), "end")
        self._word(2, 11, self.y.name, "start", "named")

    def _level_axis(self) -> None:
        left, top, width, height = self.box
        for value in self.x.ticks(most=4):
            self._word(self._px(value), top + height + 14, self.x.format_value(value), "middle")
        self._add('<path class="axis" d="M{} {}h{}"/>', left, top + height, width)
        self._word(left + width, top + height + 29, self.x.name, "end", "named")

    def _word(self, x: float, y: float, words: str, anchor: str, kind: str = "") -> None:
        self.parts.append(_text(x, y, words, anchor, kind))

    def _add(self, shape: str, *values: object) -> None:
        self.parts.append(Markup(shape).format(*map(escape, values)))

    def _px(self, x: float) -> float:
        return self.box[0] + self.box[2] * self.x.at(x)

    def _py(self, y: float) -> float:
        return self.box[1] + self.box[3] * (1 - self.y.at(y))


def _text(x: float, y: float, words: str, anchor: str, kind: str) -> Markup:
    shape = Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>')
    return shape.format(kind, f"{x:.1f}", f"{y:.1f}", anchor, words)
