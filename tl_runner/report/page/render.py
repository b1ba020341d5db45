"""The whole page: records and their table in, one HTML text out, which asks nothing of any network."""

import base64
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tl_runner.plurals import count_noun
from tl_runner.report.cells import heading, name_scores
from tl_runner.report.domain_matrix import DomainMatrix
from tl_runner.report.page import (
    bound,
    budgets,
    calibration,
    confusions,
    effects,
    estimates,
    features,
    gap,
    hyperparameters,
    learning,
    provenance,
    ranks,
    samples,
    values,
)
from tl_runner.report.page.answer import answer
from tl_runner.report.page.figure import Figure, FigureTable
from tl_runner.report.page.groups import SettingRuns, group_by_pair, label_rows
from tl_runner.report.page.leaderboard_table import build_leaderboard_table
from tl_runner.report.ranking import Ranking
from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent
Draw = Callable[[Sequence[SettingRuns]], Figure | None]
FIGURES: tuple[Draw, ...] = (
    *(effects.figure, budgets.figure, learning.figure, hyperparameters.figure, gap.figure, bound.figure),
    *(features.figure, values.figure, confusions.matrices, confusions.gains, calibration.figure, estimates.figure),
    *(samples.figure, samples.draw_weighted_rows),
)
OF_CLASSES = {bound.figure, confusions.matrices, confusions.gains, calibration.figure, estimates.figure}


def page(
    records: Sequence[RunRecord],
    frame: "pd.DataFrame",
    rankings: Sequence[Ranking],
    warnings: Sequence[str],
    made: datetime,
    matrices: Sequence[DomainMatrix] = (),
) -> str:
    """The report on these runs. `frame` is their `leaderboard`, `warnings` what to keep in mind, `made` its date.

    Equal folders, frame and date make equal bytes. A figure without data is replaced by a sentence that says why. One
    that is None is not spoken of: few pairs have it, and the others lack nothing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    records = [record for record in records if record.composed]
    faults: list[str] = []
    groups = group_by_pair(records, frame, faults)
    rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
    pairs = [
        _pair(number, dataset, [row for row in rows if row["pair"] == dataset], groups.get(dataset, []))
        for number, dataset in enumerate(dict.fromkeys(row["pair"] for row in rows))
    ]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (HERE / "page.js").read_text()
    counts = {
        status: sum(record.status == status for record in records) for status in ("ok", "failed", "diverged", "running")
    }
    return environment.get_template("page.html").render(
        pairs=pairs,
        counts=counts,
        runs=len(records),
        datasets=[pair["name"] for pair in pairs],
        methods=sorted({row["method"] for row in rows}),
        seeds=sorted({str(record.seed) for record in records}, key=lambda seed: seed.rjust(9)),
        versions=provenance.count_versions(records),
        warnings=[*warnings, *dict.fromkeys(faults)],
        made=made,
        style=Markup((HERE / "page.css").read_text()),  # ours, as the script: nothing of a user is in them
        script=Markup(script),
        script_hash=base64.b64encode(sha256(script.encode()).digest()).decode(),
        across=[*(_draw_matrix(each) for each in matrices), *(ranks.figure(ranking) for ranking in rankings)],
        score=name_scores(frame),
        runs_of=_list_runs(records),
        zip=zip,
        count_noun=count_noun,
    )


def save(
    file: Path,
    records: Sequence[RunRecord],
    frame: "pd.DataFrame",
    rankings: Sequence[Ranking],
    warnings: Sequence[str],
    matrices: Sequence[DomainMatrix] = (),
) -> int:
    """Write the page of today, whole or not at all; its size in bytes."""
    content = page(records, frame, rankings, warnings, datetime.now().astimezone(), matrices).encode()
    write_atomically(file, content)
    return len(content)


def _draw_matrix(matrix: DomainMatrix) -> Figure:
    """Sources against targets, under the title of the figure."""
    table = FigureTable("", matrix.columns, [[*row] for row in matrix.rows])
    name = f"matrix-{re.sub(r'[^a-z0-9]+', '-', matrix.title.lower())}"
    return Figure(name, matrix.title, matrix.note, cells=[table])


def _pair(number: int, name: str, rows: Sequence[dict[str, Any]], groups: Sequence[SettingRuns]) -> dict[str, Any]:
    columns, lines = build_leaderboard_table(rows)
    counts = {name: int(sum(row[name] for row in rows)) for name in ("n", "failed", "unfinished")}
    return {
        "anchor": f"pair-{number}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}",
        "name": name,
        "heading": heading(name, rows),
        "counts": counts,
        "answer": [_tight(said) for said in answer(list(zip(label_rows(rows), rows, strict=True)))],
        "columns": columns,
        "lines": lines,
        "figures": [drawn for draw in _suiting(groups) if (drawn := draw(groups))],
    }


def _suiting(groups: Sequence[SettingRuns]) -> list[Draw]:
    """The figures that these runs can have: those of classes say nothing of a quantity."""
    if not groups:
        return []
    of_quantity = groups[0].runs[0].record.data.quantity is not None
    return [draw for draw in FIGURES if not (of_quantity and draw in OF_CLASSES)]


def _list_runs(records: Sequence[RunRecord]) -> dict[str, list[dict[str, Any]]]:
    """Every run by data set, in the order of their methods and seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(
        records, key=lambda run: (run.choices["dataset"], run.choices["method"], str(run.seed).rjust(9), run.id)
    ):
        found.setdefault(record.choices["dataset"], []).append(provenance.describe_run_line(record))
    return found


def _tight(sentence: str) -> str:
    """With spaces at which no line is broken, where a number would lose its sign or unit."""
    for sign in ("±", "=", "<", "%"):
        sentence = sentence.replace(f" {sign} ", f"\u00a0{sign}\u00a0").replace(f" {sign}", f"\u00a0{sign}")
    return sentence
