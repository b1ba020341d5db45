"""Candidates that were screened, best first: as tables, as CSV and as JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from statistics import mean
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tl_runner.engine.screen import Screened
from tl_runner.plurals import count_noun
from tl_runner.report.budget_advice import advise
from tl_runner.report.budgets import Budgets, measure_budgets
from tl_runner.report.rank_correlation import (
    COMPARED,
    LEAST,
    Made,
    RankCorrelation,
    correlate_ranks,
    list_runs,
    match_runs,
)
from tl_runner.report.settings import group_settings
from tl_runner.report.tables import ROOMY
from tl_runner.storage.record import RunRecord


class Score(NamedTuple):
    """A score: its heading, whether more (1) or less (−1) is better, and what it says."""

    title: str
    sign: int
    meaning: str


SCORES = {
    "leep": Score("LEEP", 1, "log-likelihood of the labels by the source model's classes, at most 0"),
    "nce": Score("NCE", 1, "−H(labels | classes that the source model predicts), at most 0"),
    "logme": Score("LogME", 1, "log evidence of a linear model of the labels, a row"),
    "h_score": Score("H-score", 1, "how far apart the classes lie, 0 to classes − 1, by a shrunk covariance"),
    "bound": Score(
        "ε+½d", -1, "error of a linear classifier of the source, and half the A-distance: the bound without λ*"
    ),
    "estimated": Score(
        "estimate, %", 1, "of target rows that the source model gets right, by no target label; 90 % interval"
    ),
    "a_distance": Score(
        "A-distance", -1, "how well a linear classifier tells the domains apart, 0 to 2, ± its interval"
    ),
    "mmd": Score("MMD²", -1, "between the domains; p by permutation, small where they differ"),
    "words": Score("words", 1, "mean cosine of the vectors of the domains' words, −1 to 1: the same for all networks"),
}
DETAILS = ("error", "estimated_low", "estimated_high", "a_low", "a_high", "mmd_p")  # for CSV and JSON, beside them
ON_LABELS = ("leep", "nce", "logme", "h_score", "bound")  # the distances need none


EACH = 12  # columns of a terminal that a method's accuracies take
LESS_TELLING = ("nce", "h_score", "mmd")  # where there is little room


@dataclass
class ScreenedTarget:
    """Candidates for one target, best first by the score `by`, and what finished runs of them came to."""

    by: str
    candidates: list[tuple[Screened, str]]  # with what tells it from others of its dataset and backbone
    made: list[Made] = field(default_factory=list)
    agreement: list[RankCorrelation] = field(default_factory=list)
    budgets: Budgets | None = None  # what accuracy these runs reached with how many labels and steps

    @property
    def target(self) -> str:
        return str(self.candidates[0][0].record.data.domains["target"])

    @property
    def metric(self) -> str:
        """What finished runs are compared by: accuracy, or r2 of a quantity."""
        return self.candidates[0][0].record.metric


def over_seeds(screened: Sequence[tuple[Screened, str]]) -> list[tuple[Screened, str]]:
    """Candidates that differ in the seed alone as one, whose scores are means; seconds are summed.

    A score that not all seeds have is left out, and so is p, whose mean is none.
    """
    seeds: dict[tuple[str, str], list[tuple[Screened, str]]] = {}
    for candidate, variant in screened:
        seeds.setdefault((candidate.record.setting, candidate.stage), []).append((candidate, variant))
    found = []
    for same in seeds.values():
        first, variant = same[0]
        names = [name for name in first.scores if all(name in candidate.scores for candidate, _ in same)]
        names = [name for name in names if name != "mmd_p" or len(same) == 1]
        scores = {name: mean(candidate.scores[name] for candidate, _ in same) for name in names}
        seconds = sum(candidate.seconds for candidate, _ in same)
        found.append((first._replace(scores=scores, seconds=seconds, seeds=len(same)), variant))
    return found


def group_by_target(
    screened: Sequence[tuple[Screened, str]], by: str | None, runs: Sequence[RunRecord]
) -> list[ScreenedTarget]:
    """A group for each target, as candidates for different targets can't be compared.

    `by` names the score to sort by; None is that of `default_score`.
    """
    found: dict[str, list[tuple[Screened, str]]] = {}
    for candidate in over_seeds(screened):
        found.setdefault(candidate[0].record.data.fingerprint["target"], []).append(candidate)
    return [_group(candidates, by, runs) for candidates in found.values()]


def _group(candidates: list[tuple[Screened, str]], by: str | None, runs: Sequence[RunRecord]) -> ScreenedTarget:
    by = by or default_score(candidates[0][0])
    sign = SCORES[by].sign
    best = sorted(candidates, key=lambda pair: (by not in pair[0].scores, -sign * pair[0].scores.get(by, 0.0)))
    screened = [candidate for candidate, _ in best]
    of_runs = match_runs(screened, runs)
    signs = {name: score.sign for name, score in SCORES.items()}
    is_share = screened[0].record.metric == "accuracy"  # of which the advice on budgets is
    budgets = measure_budgets(group_settings(list_runs(screened, runs))) if is_share else None
    return ScreenedTarget(by, best, of_runs, correlate_ranks(screened, of_runs, signs), budgets)


def default_score(candidate: Screened) -> str:
    """The score to sort by where none is named: the bound where it can be had, on the source's labels, else LogME.

    A distance alone would choose features that tell nothing apart; but of a quantity, which has no bound here, nothing
    else says something of the target without its labels.
    """
    if "bound" in candidate.scores:
        return "bound"
    unlabelled = candidate.record.metric == "r2" and candidate.whose != "granted target labels"
    return "a_distance" if unlabelled and "a_distance" in candidate.scores else "logme"


def tables(groups: Sequence[ScreenedTarget], width: int = ROOMY) -> list[RenderableType]:
    """A table a target, with what its runs say below; and what the columns mean."""
    several = len({candidate.record.choices["dataset"] for group in groups for candidate, _ in group.candidates}) > 1
    shown: list[RenderableType] = []
    for group in groups:
        advice = advise(group.budgets) if group.budgets else []
        shown += [_table(group, several, width), *_describe_labels(group), *map(Text, advice), Text()]
    used = [name for name in SCORES if any(name in c.scores for group in groups for c, _ in group.candidates)]
    lines = [f"{SCORES[name].title}: {SCORES[name].meaning}" for name in used]
    return [*shown, Text("; ".join(lines) + ". What lies closer or scores higher need not transfer better", "dim")]


def _table(group: ScreenedTarget, several: bool, width: int) -> Table:
    first, variants = group.candidates[0][0], any(variant for _, variant in group.candidates)
    seeds = f", means of {first.seeds} seeds" if first.seeds > 1 else ""
    title = f"target: {group.target} – best first by {SCORES[group.by].title}{_whose(first, group.by)}{seeds}"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    named = [*(["dataset"] if several else []), "source", "backbone", *(["variant"] if variants else []), "stage"]
    made = group.made[: max(1, (width - ROOMY) // EACH)]  # of more, csv and json have all
    roomy = width >= ROOMY + EACH * len(made)
    names = [name for name in SCORES if any(name in candidate.scores for candidate, _ in group.candidates)]
    names = [name for name in names if roomy or name == group.by or name not in LESS_TELLING]
    for column in named:
        table.add_column(column, overflow="fold", min_width=len(column))
    unit = "%" if group.metric == "accuracy" else "R²"
    methods = [f"{method.method.replace('_', chr(10))} {unit}" for method in made]
    for column in ("rows", *(SCORES[name].title for name in names), *methods, "s"):
        table.add_column(column, justify="right", no_wrap=roomy, overflow="fold")
    for index, (candidate, variant) in enumerate(group.candidates):
        row = _name_candidate(candidate, variant)
        cells = [Text(row[column]) for column in named]
        scores = [_cell(candidate.scores, name, roomy) for name in names]
        accuracies = [_write_accuracy(m.accuracy[index], group.metric) for m in made]
        table.add_row(*cells, str(candidate.rows), *scores, *accuracies, f"{candidate.seconds:.1f}")
    return table


def _write_accuracy(value: float, metric: str) -> str:
    """In percent; R² with three digits after the point."""
    if isnan(value):
        return "–"
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"


def _name_candidate(candidate: Screened, variant: str) -> dict[str, str]:
    choices, domains = candidate.record.choices, candidate.record.data.domains
    return {
        "dataset": choices["dataset"],
        "source": domains["source"] or "–",
        "target": str(domains["target"]),
        "backbone": choices["backbone"],
        "variant": variant,
        "stage": candidate.stage,
    }


def _whose(candidate: Screened, by: str) -> str:
    """On what labels, in words."""
    if by not in ON_LABELS:
        return ", which needs no labels"
    only = " only" if candidate.whose != "granted target labels" else f", n={candidate.rows}"
    return f" on {candidate.whose}{only}"


def _describe_labels(group: ScreenedTarget) -> list[RenderableType]:
    """Whose labels were scored on, and how the scores ranked the candidates beside finished runs."""
    first, classes = group.candidates[0][0], group.metric == "accuracy"
    lines = [f"{'LEEP, NCE, LogME and H-score' if classes else 'LogME'}{_whose(first, 'logme')}"]
    if first.whose != "granted target labels":
        they, budget = ("they say", "granted=5") if classes else ("it says", "granted=50")
        lines[0] += f": {they} how well the features serve the source's task ({budget} scores on the target's)"
    if not group.made:
        return [Text("\n".join([*lines, f"no runs to compare with: of {', '.join(COMPARED)}"]), "dim")]
    for method in group.made:
        at_hand = sum(not isnan(accuracy) for accuracy in method.accuracy)
        said = [_rho(found, at_hand) for found in group.agreement if found.method == method.method]
        ranks = (
            "rank correlation " + ", ".join(said)
            if said
            else f"{LEAST} candidates with runs are needed for a comparison"
        )
        runs = f"{count_noun(method.runs, 'run')} of {method.method} granted={method.granted}"
        runs += f", {count_noun(at_hand, 'candidate')}"
        lines.append(f"{runs}: {ranks}")
    return [Text("\n".join(lines), "dim")]


def _rho(found: RankCorrelation, candidates: int) -> str:
    """A score's correlation, and over how many candidates where these are not all that have runs."""
    over = f" (of {found.n})" if found.n < candidates else ""
    return f"{SCORES[found.score].title} {'–' if isnan(found.rho) else f'{found.rho:+.2f}'}{over}"


def _cell(scores: Mapping[str, float], name: str, roomy: bool) -> str:
    """A score in two or three digits after the point; where there is room, a distance with its interval or its p."""
    if name not in scores:
        return "–"
    if name == "estimated":
        value, low, high = (100 * scores[key] for key in ("estimated", "estimated_low", "estimated_high"))
        return f"{value:.0f} ({low:.0f}–{high:.0f})"
    if name == "a_distance":
        return f"{scores[name]:.2f}" + (f" ({scores['a_low']:.2f}–{scores['a_high']:.2f})" if roomy else "")
    said = f"{scores[name]:.3f}"
    return f"{said} (p={scores['mmd_p']:.3f})" if roomy and name == "mmd" and "mmd_p" in scores else said


def _rows(group: ScreenedTarget) -> list[dict[str, Any]]:
    """A flat row a candidate; what there is not is None."""
    rows = []
    for index, (candidate, variant) in enumerate(group.candidates):
        made = {f"{group.metric}_{m.method}": m.accuracy[index] for m in group.made if not isnan(m.accuracy[index])}
        told = {
            "rank": index + 1,
            **_name_candidate(candidate, variant),
            "labels": candidate.whose,
            "rows": candidate.rows,
        }
        told["seeds"] = candidate.seeds
        scores = {name: candidate.scores.get(name) for name in (*SCORES, *DETAILS)}
        columns = [f"{metric}_{method}" for metric in ("accuracy", "r2") for method in COMPARED]
        of_runs = {column: made.get(column) for column in columns}
        rows.append({**told, **scores, **of_runs, "seconds": round(candidate.seconds, 3)})
    return rows


def as_csv(groups: Sequence[ScreenedTarget]) -> str:
    """A line a candidate; empty cells for what there is not."""
    rows = [row for group in groups for row in _rows(group)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(groups: Sequence[ScreenedTarget]) -> str:
    """All that the tables say, a list of targets."""
    told = [
        {
            "target": group.target,
            "by": group.by,
            "candidates": _rows(group),
            "agreement": [{**a._asdict(), "rho": None if isnan(a.rho) else a.rho} for a in group.agreement],
            "runs": [{"method": m.method, "granted": m.granted, "runs": m.runs} for m in group.made],
            "budgets": _needs(group.budgets) if group.budgets else None,
        }
        for group in groups
    ]
    return json.dumps(told, indent=2)


def _needs(budgets: Budgets) -> dict[str, Any]:
    """What each line needed for which accuracy: a `budget` of null is more than `most`, as an end of the interval is.

    Without an interval both ends are absent.
    """
    needed = []
    for curve in budgets.curves:
        need = curve.need(budgets.accuracy)
        interval = {"low": need.low, "high": need.high} if need.tested else {}
        held = {"by": curve.by, "steps" if curve.by == "labels" else "labels": curve.other}
        needed.append({"line": curve.line, **held, "budget": need.budget, "most": need.most, **interval})
    return {"accuracy": budgets.accuracy, "needed": needed}
