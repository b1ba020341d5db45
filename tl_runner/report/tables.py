"""Records and leaderboards as rich tables."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tl_runner.store import RunRecord

if TYPE_CHECKING:
    import pandas as pd

STATUS_STYLE = {"ok": "green", "running": "yellow", "failed": "red", "diverged": "red"}


def result(record: RunRecord, baseline: RunRecord | None) -> tuple[Table, Text]:
    """One finished run: its scores on both domains' test splits, with source-only of the same seed beside it."""
    scores = record.scores or {}
    names = " · ".join([record.choices["method"], record.choices["backbone"], record.choices["dataset"]])
    table = Table(title=f"{names} · seed {record.seed}", title_justify="left", title_style="bold")
    for column in ("test split", "accuracy", "macro-F1", "calibration error"):
        table.add_column(column, justify="left" if column == "test split" else "right")
    source, target = record.data["rows"]
    if scores["source"]:
        table.add_row(f"source: {source}", *_metrics(scores["source"]))
    table.add_row(f"target: {target}", *_metrics(scores["target"]), style="bold", end_section=True)
    for name, meaning in (("last", "at the end"), ("oracle", "best, by target labels")):
        table.add_row(f"{meaning} (step {scores[name]['step']})", percent(scores[name]["accuracy"]), style="dim")
    if baseline and baseline.scores and record.choices["method"] != "source_only":
        table.add_row("source_only, same seed", *_metrics(baseline.scores["target"]), style="dim")
    alone = baseline is None and record.choices["method"] != "source_only"
    advice = "\nnothing to compare it with yet: make the same run with method=source_only" if alone else ""
    return table, Text(
        f"checkpoint of step {scores['selected']['step']}, chosen without the target's test labels ·"
        f" granted={record.granted} · {record.seconds:.1f} s · {record.where['device']}\n{record.folder}{advice}"
    )


def outcomes(records: Sequence[RunRecord]) -> Table:
    """The jobs of a sweep, in order."""
    failed = sum(record.status in ("failed", "diverged") for record in records)
    table = Table(title=f"{len(records)} runs, {failed} failed", title_justify="left", title_style="bold")
    for column in ("dataset", "method", "backbone", "seed", "status", "target", "folder"):
        table.add_column(column, overflow="fold")
    for record in records:
        accuracy = percent(record.scores["selected"]["accuracy"]) if record.scores else ""
        names = [record.choices.get(key, "?") for key in ("dataset", "method", "backbone")]
        status = Text(record.status, STATUS_STYLE[record.status])
        table.add_row(*names, str(record.seed), status, accuracy, record.folder.name)
    return table


def leaderboard(frame: "pd.DataFrame") -> tuple[Table, Text]:
    """A row per setting; the target accuracy of the label-free choice beside the last checkpoint and the oracle."""
    rows = frame.to_dict("records")
    runs, failed = sum(row["n"] + row["failed"] + row["unfinished"] for row in rows), sum(row["failed"] for row in rows)
    table = Table(
        title=f"{len(frame)} settings, {runs} runs, {failed} failed", title_justify="left", title_style="bold"
    )
    for column in (
        "dataset",
        "method",
        "backbone",
        "granted",
        "n",
        "failed",
        "target",
        "last",
        "oracle",
        "source",
        "s",
    ):
        table.add_column(column, justify="right" if column in ("n", "failed", "s") else "left", overflow="fold")
    varied = any(frame["variant"])
    if varied:
        table.add_column("differs in", overflow="fold")
    for row in rows:
        cells = [row["dataset"], row["method"], row["backbone"], row["granted"], str(row["n"])]
        cells += [_failures(row["failed"], row["unfinished"])]
        cells += [_spread(row[name], row[f"{name}_sd"]) for name in ("target", "last", "oracle", "source")]
        cells += ["–" if isnan(row["seconds"]) else f"{row['seconds']:.1f}"]
        table.add_row(*cells, *([row["variant"]] if varied else []))
    return table, Text(
        "accuracy on the test splits in %, mean ± sd over n seeds. target: of the checkpoint chosen without the"
        " target's test labels; oracle: of the best by those labels, which nobody has in practice"
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _metrics(scores: dict[str, float]) -> list[str]:
    return [percent(scores["accuracy"]), percent(scores["macro_f1"]), percent(scores["ece"])]


def _spread(mean: float, deviation: float) -> str:
    if isnan(mean):
        return "–"
    return f"{100 * mean:.1f}" if isnan(deviation) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _failures(failed: int, unfinished: int) -> str:
    return f"{failed} (+{unfinished} unfinished)" if unfinished else str(failed)
