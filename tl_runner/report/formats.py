"""A report as text to paste or to read by a program: markdown, csv, json, latex."""

import json
from collections.abc import Sequence
from math import isnan
from typing import Any, Literal

import pandas as pd

from tl_runner.report import cells
from tl_runner.report.domain_matrix import DomainMatrix
from tl_runner.report.ranking import Ranking

TableFormat = Literal["markdown", "csv", "json", "latex"]
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "–": "--",
}


def format_leaderboard(
    form: TableFormat,
    frame: pd.DataFrame,
    rankings: Sequence[Ranking],
    caveats: Sequence[str],
    matrices: Sequence[DomainMatrix] = (),
) -> str:
    """The report in this form. csv holds the leaderboard's numbers alone, accuracies in [0, 1]; json all of it.

    The tables of sources against targets are in markdown alone.
    """
    if form == "csv":
        return frame.to_csv(index=False)
    if form == "json":
        return _json(frame, rankings, caveats)
    if form == "latex":
        return "\n".join(_latex(frame, rankings, caveats)) + "\n"
    drawn = [line for matrix in matrices for line in _draw_matrix(matrix)]
    return "\n".join([*_markdown(frame, rankings, caveats), *drawn]) + "\n"


def _draw_matrix(matrix: DomainMatrix) -> list[str]:
    rows = [matrix.columns, ["---", *["--:"] * (len(matrix.columns) - 1)], *matrix.rows]
    lines = [f"| {' | '.join(text if text[:2] == '--' else _escaped(text) for text in row)} |" for row in rows]
    return ["", f"**{_escaped(matrix.title)}**", "", *lines, "", matrix.note]


def _json(frame: pd.DataFrame, rankings: Sequence[Ranking], caveats: Sequence[str]) -> str:
    rows = [{str(key): _to_json(value) for key, value in row.items()} for row in frame.to_dict("records")]
    ranked = [{"granted": r.granted, **r.ranks._asdict(), "left_out": list(r.left_out)} for r in rankings if r.ranks]
    ranked = [{key: _to_json(value) for key, value in entry.items()} for entry in ranked]
    return json.dumps({"settings": rows, "rankings": ranked, "caveats": list(caveats)}, indent=2) + "\n"


def _to_json(value: Any) -> Any:
    """As JSON has it: a number that is none is null."""
    value = value.item() if hasattr(value, "item") else value
    return None if value is pd.NA or (isinstance(value, float) and isnan(value)) else value


def _markdown(frame: pd.DataFrame, rankings: Sequence[Ranking], caveats: Sequence[str]) -> list[str]:
    lines = [f"{cells.count_runs(frame)}.", ""]
    for pair, rows in cells.by_pair(frame).items():
        columns = cells.telling(rows)
        lines += [f"**{_escaped(cells.heading(pair, rows))}**", ""]
        lines.append(f"| {' | '.join(cells.COLUMNS[name].heading for name in columns)} |")
        lines.append("|" + "".join("--:|" if cells.COLUMNS[name].figure else "---|" for name in columns))
        for row in rows:
            texts = {name: _escaped(cells.COLUMNS[name].text(row)) for name in columns}
            if row["best"]:
                texts["target"] = f"**{texts['target']}**"
            lines.append(f"| {' | '.join(texts.values())} |")
        lines.append("")
    lines += [f"- {_escaped(said)}" for said in cells.remarks(frame, rankings)]
    lines += [f"- Warning: {_escaped(said)}." for said in caveats]
    return [*lines, *([""] if lines[-1] else []), cells.legend(frame)]


def _escaped(text: str) -> str:
    """What a table's cell must not hold as it is."""
    for sign in "\\|*_`<":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _latex(frame: pd.DataFrame, rankings: Sequence[Ranking], caveats: Sequence[str]) -> list[str]:
    lines = ["% needs \\usepackage{booktabs}", f"% {cells.count_runs(frame)}"]
    for pair, rows in cells.by_pair(frame).items():
        columns = cells.telling(rows)
        shape = "".join("r" if cells.COLUMNS[name].figure else "l" for name in columns)
        lines += [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
        lines += [" & ".join(_tex(cells.COLUMNS[name].heading) for name in columns) + r" \\", r"\midrule"]
        for row in rows:
            texts = {name: _tex(cells.COLUMNS[name].text(row)) for name in columns}
            if row["best"]:
                texts["target"] = rf"\textbf{{{texts['target']}}}"
            lines.append(" & ".join(texts.values()) + r" \\")
        caption = f"{_tex(cells.heading(pair, rows))}. {_tex(cells.legend(frame))}"
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}", ""]
    lines += [_tex(said) for said in cells.remarks(frame, rankings)]
    return [*lines, *(f"% warning: {said}" for said in caveats)]


def _tex(text: str) -> str:
    written = "".join(LATEX.get(sign, sign) for sign in text).replace("\n", " ")
    return f"{{{written[0]}}}{written[1:]}" if written.startswith(("[", "*")) else written  # else an option of \\
