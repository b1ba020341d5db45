"""The table of one data set: what its cells say, and by what they are sorted."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from math import isfinite, nan

from tl_runner.report.cells import Row, chance, format_spread, percent
from tl_runner.report.page.answer import format_points


@dataclass(frozen=True)
class Cell:
    """What is read, and what it is sorted by: a number (NaN last) or a text."""

    text: str
    value: float | str
    small: str = ""


def something(texts: Set[str]) -> bool:
    return not texts <= {"", "–"}


def several(texts: Set[str]) -> bool:
    return len(texts) > 1


@dataclass(frozen=True)
class PageColumn:
    """`wants` are the columns of the frame that it is made of, `tells` whether the texts of its cells say anything."""

    title: str
    meaning: str
    wants: tuple[str, ...]
    cell: Callable[[Row], Cell]
    number: bool = True
    tells: Callable[[Set[str]], bool] = something


def score(name: str) -> Callable[[Row], Cell]:
    return lambda row: Cell(format_spread(row, name), row[name])


def count(name: str) -> Callable[[Row], Cell]:
    return lambda row: Cell(_format_whole(row[name]), float(row[name]))


def word(name: str) -> Callable[[Row], Cell]:
    return lambda row: Cell(str(row[name]), str(row[name]))


def _format_whole(value: float) -> str:
    return f"{value:.0f}" if isfinite(value) else "–"


def _method(row: Row) -> Cell:
    return Cell(str(row["method"]), f"{row['method']} {row['variant']}", str(row["variant"]))


def _failed_cell(row: Row) -> Cell:
    return Cell(
        _format_whole(row["failed"]),
        float(row["failed"]),
        f"+{row['unfinished']} unfinished" if row["unfinished"] else "",
    )


def _difference(row: Row) -> Cell:
    interval = f"{format_points(row['low'])} to {format_points(row['high'])}" if isfinite(row["low"]) else ""
    return Cell(format_points(row["difference"]), row["difference"], interval)


def _balance(row: Row) -> Cell:
    if not row["pairs"] > 0:
        return Cell("–", nan)
    return Cell(f"{row['wins']:.0f} / {row['ties']:.0f} / {row['losses']:.0f}", float(row["wins"] - row["losses"]))


def _probability(row: Row) -> Cell:
    return Cell(chance(row["p"]) or "–", row["p"])


def _closed(row: Row) -> Cell:
    return Cell(percent(row["closed"]), row["closed"])


def _seconds(row: Row) -> Cell:
    return Cell(f"{row['seconds']:.1f}" if isfinite(row["seconds"]) else "–", row["seconds"])


COLUMNS = (
    PageColumn(
        "Method", "the way of transferring, and what tells its settings apart", ("method",), _method, number=False
    ),
    PageColumn("Granted", "target labels that training may see", ("granted",), word("granted"), False, several),
    PageColumn("Target, %", "score of the checkpoint chosen without target labels", ("target",), score("target")),
    PageColumn(
        "Agreement, %",
        "with the mean prediction of all settings, on rows without labels",
        ("agreement",),
        score("agreement"),
    ),
    PageColumn(
        "Seeds agree, %",
        "on the class of a target row, two seeds at a time",
        ("seeds_agree",),
        lambda row: Cell(percent(row["seeds_agree"]), row["seeds_agree"]),
    ),
    PageColumn("Estimated, %", "accuracy as it is estimated without target labels", ("estimated",), score("estimated")),
    PageColumn(
        "Difference", "to the baseline, in points, with its 95 % interval", ("difference", "low", "high"), _difference
    ),
    PageColumn("Finding", "what the test shows", ("verdict",), word("verdict"), number=False),
    PageColumn("p (Holm)", "paired test against the baseline, corrected over the whole report", ("p",), _probability),
    PageColumn(
        "W / T / L", "seeds won, tied, lost against the baseline", ("wins", "ties", "losses", "pairs"), _balance
    ),
    PageColumn("n", "runs that ended well, a seed each", ("n",), count("n")),
    PageColumn("Failed", "runs that failed or diverged", ("failed",), _failed_cell, tells=lambda texts: texts != {"0"}),
    PageColumn("Regret", "oracle minus target, in points", ("regret",), score("regret")),
    PageColumn("Last, %", "target accuracy at the end of training", ("last",), score("last")),
    PageColumn("Oracle, %", "target accuracy of the best checkpoint by target labels", ("oracle",), score("oracle")),
    PageColumn("Gap closed, %", "share of the way from the baseline to all target labels", ("closed",), _closed),
    PageColumn("Source, %", "accuracy on the source's test split", ("source",), score("source")),
    PageColumn("Backbone", "the network", ("backbone",), word("backbone"), False, several),
    PageColumn("Seconds", "a run, mean", ("seconds",), _seconds),
)


def build_leaderboard_table(rows: Sequence[Row]) -> tuple[list[PageColumn], list[tuple[Row, list[Cell]]]]:
    """The columns that tell something of these rows, and each row with its cells.

    What all rows share (backbone, label budget, no failure) is for the caption.
    """
    there = [column for column in COLUMNS if rows and all(name in rows[0] for name in column.wants)]
    cells = {column.title: [column.cell(row) for row in rows] for column in there}
    columns = [column for column in there if column.tells({f"{cell.text}{cell.small}" for cell in cells[column.title]})]
    return columns, [(row, [cells[column.title][index] for column in columns]) for index, row in enumerate(rows)]
