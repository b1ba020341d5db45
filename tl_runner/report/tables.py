"""Records and leaderboards as rich tables."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tl_runner.engine.dry_run import Planned, estimate_seconds
from tl_runner.engine.job import Outcome
from tl_runner.plurals import count_noun
from tl_runner.report.next_steps import list_next_steps
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import ImageSize, Metrics, SharesInfo

if TYPE_CHECKING:
    import pandas as pd

    from tl_runner.report.contrasts import Contrast
    from tl_runner.report.domain_matrix import DomainMatrix
    from tl_runner.report.ranking import Ranking

HUGE = 100  # of a share: an R² may be any number below 1, and from here on it is written as a power of ten
LISTED = 100  # runs of a sweep that are listed one by one
ROOMY = 110  # columns of a terminal that takes the whole leaderboard
STATUS_STYLE = {"ok": "green", "running": "yellow", "failed": "red", "diverged": "red"}
VERDICT_STYLE = {"better": "green", "negative transfer": "bold red", "maybe worse": "red"}


def print_result(console: Console, record: RunRecord, baseline: RunRecord | None, words: Sequence[str] = ()) -> None:
    """A finished run, and what to do next: commands are whole lines, to be pasted, however narrow the terminal.

    `words` are those of the command that made it.
    """
    console.print(*result(record, baseline), sep="\n")
    console.print(*list_next_steps(record, baseline, words), sep="\n", highlight=False, markup=False, soft_wrap=True)


def result(record: RunRecord, baseline: RunRecord | None) -> tuple[RenderableType, ...]:
    """One finished run: its scores on both domains' test splits, with source-only of the same seed beside it."""
    scores, domains = record.scores, record.data.domains
    assert scores is not None  # it is finished
    names = " · ".join([record.choices["method"], record.choices["backbone"], record.choices["dataset"]])
    shown = OF_CLASSES if record.data.task == "classification" else OF_QUANTITY
    table = _table(f"{names} · seed {record.seed}", "test split", *(heading for heading, _ in shown.values()))
    if scores.source:
        table.add_row(Text(f"source: {domains['source']}"), *_metrics(scores.source, shown))
    for name, of in (scores.members or {}).items():
        table.add_row(Text(f"  {name}"), *_metrics(of, shown), style="dim")
    table.add_row(*_target(record), style="bold", end_section=True)
    if estimate := scores.estimate:
        spread = f"{format_percent(estimate.value)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
        doubt = "" if estimate.believable else ", not to be relied on"
        table.add_row(f"estimated without its labels{doubt}", spread, style="dim" if scores.target else "bold")
    if error := scores.estimated_error:
        spread = f"{error.value:.4g} ({error.low:.4g} to {error.high:.4g})"
        table.add_row("estimated, if only inputs differ", "–", spread, style="dim" if scores.target else "bold")
    for other, meaning in ((scores.last, "at the end"), (scores.oracle, "best, by target labels")):
        if scores.last["step"] and other and record.metric in other:
            table.add_row(f"{meaning} (step {other['step']})", _metrics(other, shown)[0], style="dim")
    below = ""
    if constant := scores.majority:
        always = _describe_constant(record, constant)
        table.add_row(Text(always), *_metrics(constant, shown), style="dim")
        if scores.selected[record.metric] < constant[record.metric]:
            below = f"\n{shown[record.metric][0]} below {always}"
    if baseline and baseline.scores and baseline.scores.target:
        label = f"{record.baseline}, same seed, granted={baseline.granted}"
        table.add_row(label, *_metrics(baseline.scores.target, shown), style="dim")
    return table, Text.assemble(" · ".join(_describe_run(record)), (below, "bold red"))


def _describe_constant(record: RunRecord, constant: Metrics) -> str:
    """What saying one thing of every row says."""
    if record.data.quantity:
        return f"always saying {constant['value']:.4g}, the mean"
    return f"always saying {record.data.classes[int(constant['class'])]!r}, the most frequent class"


def _describe_run(record: RunRecord) -> list[str]:
    """What is to be known of a finished run beside its scores."""
    scores, training, words = record.scores, record.training, []
    if scores and scores.last["step"] > 0:  # a head that is fitted in closed form has one checkpoint
        words.append(f"checkpoint of step {scores.selected['step']}, chosen without the target's test labels")
    if start := training.source_model:
        steps = count_noun(start.steps, "step")
        copied = "" if start.transfer == "all" else f", of which transfer={start.transfer} is copied"
        words.append(f"from a source model of {steps} ({format_percent(start.source_val)} on its val split){copied}")
    words += [f"backbone.{name}=auto is {value} here" for name, value in training.backbone.items()]
    if floor := _describe_floor(record):
        words.append(floor)
    if size := record.data.size:
        words.append(_describe_size(size))
    if training.shares:
        words.append(_describe_shares(training.shares))
    if auto := training.auto:
        words.append(f"auto chose {auto.chosen} after {count_noun(auto.steps, 'step')}: {auto.why}")
    if gap := _gap(record):
        words.append(gap)
    estimate = scores and scores.estimate
    if estimate and estimate.changed is not None:
        rows = f"{100 * estimate.changed:.0f} % of the target's test rows changed their class in training"
        words.append(rows if estimate.believable else f"{rows}: where so many do, estimates were far off")
    if (record.data.label_knowledge or {}).get("by") == "target labels":
        words.append("label set granted: read from the target's labels (dataset.labels=shared)")
    return [*words, f"granted={record.granted}", f"{record.seconds:.1f} s", str(record.environment.device)]


def _describe_size(size: ImageSize) -> str:
    """The images' size that the run chose, and by what."""
    why = "as the backbone's weights were trained on" if size.by == "weights" else "by the files' own"
    return f"images of {size.pixels} pixels a side, {why} (dataset.size=auto)"


def _describe_shares(shares: SharesInfo) -> str:
    apart = 50 * sum(abs(here - there) for here, there in zip(shares.source, shares.estimated, strict=True))
    differ = f"class shares estimated ({shares.by}) to differ from the source's by {apart:.0f} % of the rows"
    return differ if shares.applied else f"{differ}: too little to be told from errors, so it kept the source's"


def _target(record: RunRecord) -> list[RenderableType]:
    """The cells of the target's row: its scores, if any of its test rows has a label, and how many have."""
    data, metrics = record.data, record.scores and record.scores.target
    name = f"target: {data.domains['target']}"
    if metrics is None:
        return [Text(name), "unknown: no test labels" if any(data.labelled or ()) else "unknown: no labels"]
    *_, labelled = data.labelled or [0]
    *_, rows = data.rows.get("target") or [0]
    if 0 < labelled < rows:
        name += f" ({labelled} of {count_noun(rows, 'row')} with a label)"
    return [Text(name), *_metrics(metrics, OF_QUANTITY if data.quantity else OF_CLASSES)]


def _describe_floor(record: RunRecord) -> str:
    """The accuracy on the source that the checkpoint was chosen by, where its rows are weighed as in training."""
    known = record.evidence or {}
    if known.get("floor_of") != "weighted source":
        return ""
    rows = f"{known['floor_rows']:.0f} effective of {record.data.rows['source'][1]} validation rows"
    return f"weighted source accuracy: {format_percent(known['floor'])} ({rows})"


def _gap(record: RunRecord) -> str:
    """How far the domains are apart, before and after."""
    gaps = (record.diagnosis.before, record.diagnosis.after) if record.diagnosis else ()
    found = [gap.a_distance for gap in gaps if gap and gap.a_distance]
    if len(found) < len(("before", "after")):
        return ""
    before, after = (f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})" for each in found)
    return f"proxy A-distance of the domains {before} before, {after} after"


def outcomes(outcomes: Sequence[Outcome], width: int = ROOMY) -> Table:
    """The jobs of a sweep, in order; of a large one those that did not end well."""
    failed = sum(outcome.failed for outcome in outcomes)
    others = Counter(o.what for o in outcomes if o.what != "ran")
    runs = count_noun(len(outcomes), "run")
    title = ", ".join([f"{runs}, {failed} failed", *(f"{n} {what}" for what, n in others.items())])
    listed = [o for o in outcomes if len(outcomes) <= LISTED or o.failed or o.what not in ("ran", "skipped")]
    if len(listed) < len(outcomes):
        title += f"; the {len(listed)} that did not complete; tl-report compares all"
    folder = ["folder"] if width >= 90 else []  # else it would be folded into many lines
    several = any(outcome.variant for outcome in outcomes)
    names = ("dataset", "method", "backbone")
    scored = [o.record for o in listed if o.record.scores]
    known = ["target"] if not scored or any(record.headline is not None for record in scored) else []
    guessed = ["estimated"] if any(record.headline is None for record in scored) else []
    table = _table(title, *names, *(["variant"] if several else []), "seed", "status", *known, *guessed, *folder)
    for record, variant, what, *_ in listed:
        cells = [*(record.choices[name] for name in names), *([variant] if several else []), str(record.seed)]
        said = record.status if what in ("ran", "skipped") else what
        status = Text(said, STATUS_STYLE.get(said, "yellow"))
        estimate = record.scores and record.scores.estimate
        accuracies = [record.headline] if known else []
        accuracies += [estimate.value if estimate else None] if guessed else []
        named = [Text(record.folder.name)] if folder else []
        shown = ["" if accuracy is None else format_percent(accuracy) for accuracy in accuracies]
        table.add_row(*map(Text, cells), status, *shown, *named)
    return table


def plan(planned: Sequence[Planned], places: int) -> tuple[RenderableType, ...]:
    """What would be done of a command, and how long it may take; of many runs only how many there are of each kind."""
    states = Counter(each.state for each in planned)
    listed = ", ".join(f"{n} {state}" for state, n in states.most_common())
    counts = Text(f"{count_noun(len(planned), 'run')}: {listed}", "bold")
    seconds, unknown = estimate_seconds(planned, places)
    words = [f"about {duration(seconds)} left, {places} at a time"] if seconds else []
    words += [f"no estimate for {count_noun(unknown, 'run')}: no similar run has completed"] if unknown else []
    changed = [each.since for each in planned if each.since]
    words += [f"{len(changed)} new because the data changed since {changed[0].folder}"] if changed else []
    if len(planned) > LISTED:
        return counts, Text("; ".join(words), "dim")
    table = _table("", "state", "run", "folder")
    for job, state, _, since in planned:
        said = f"{state}: data changed since {since.folder.name}" if since else state
        table.add_row(Text(said), Text(job.name), Text(job.record.folder.name))
    return counts, table, Text("; ".join(words), "dim")


def render_leaderboard(
    frame: "pd.DataFrame", rankings: "Sequence[Ranking]", caveats: Sequence[str], width: int
) -> Iterator[RenderableType]:
    """A table a pair of domains, a row a setting, best first; in `width` columns those that tell less are left out."""
    from tl_runner.report import cells

    yield Text(cells.count_runs(frame), "bold")
    cut: dict[str, None] = {}
    for pair, rows in cells.by_pair(frame).items():
        telling = cells.telling(rows)
        names = _fitting(telling, rows, width)
        cut |= dict.fromkeys(name for name in telling if name not in names)
        table = Table()
        for name in names:
            column = cells.COLUMNS[name]
            widest = None if column.figure else _widest(width)
            justify = "right" if column.figure else "left"
            table.add_column(column.heading, justify=justify, overflow="fold", max_width=widest)
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            styles = {"target": "bold" if row["best"] else ""}
            styles |= dict.fromkeys(("difference", "verdict"), VERDICT_STYLE.get(row["verdict"], ""))
            table.add_row(*(Text(cells.COLUMNS[name].text(row), styles.get(name, "")) for name in names))
            if after and after["granted"] != row["granted"]:
                table.add_section()
        yield Text(cells.heading(pair, rows), "bold")
        yield table
    if cut:
        left_out = ", ".join(cells.COLUMNS[name].heading for name in cut)
        yield Text(f"left out in {width} columns: {left_out} (a wider terminal, or --format csv, has them)", "dim")
    for said in cells.remarks(frame, rankings):
        yield Text(said)
    for said in caveats:
        yield Text.assemble(("warning: ", "yellow"), said)
    yield Text(cells.legend(frame), "dim")


def _fitting(names: Sequence[str], rows: Sequence[Any], width: int) -> list[str]:
    """Of these columns, in their order, the most important ones that a terminal of this width has room for."""
    from tl_runner.report import cells

    room, taken = width - 1, set()
    for name in (name for name in cells.IMPORTANT if name in names):
        column = cells.COLUMNS[name]
        needed = max(len(column.heading), *(len(column.text(row)) for row in rows))
        room -= 3 + (needed if column.figure else min(needed, _widest(width)))
        if room < 0:
            break
        taken.add(name)
    return [name for name in names if name in taken]


def _widest(width: int) -> int:
    """A column of names takes no more of a terminal than this; longer ones are folded."""
    return max(16, width // 4)


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_percent(share: float) -> str:
    return f"{100 * share:.1f} %" if abs(share) < HUGE else f"{100 * share:.2g} %"


def format_number(value: float) -> str:
    """Four significant digits, which suit any unit."""
    return f"{value:.4g}"


# What the table of a run shows: by the name of a score its heading, and how it is written.
OF_CLASSES = {
    "accuracy": ("accuracy", format_percent),
    "balanced": ("balanced", format_percent),
    "macro_f1": ("macro-F1", format_percent),
    "ece": ("calibration error", format_percent),
}
OF_QUANTITY = {
    "r2": ("R²", format_percent),
    "rmse": ("RMSE", format_number),
    "mae": ("MAE", format_number),
    "spearman": ("rank correlation", format_number),
}


def render_matrix(matrix: "DomainMatrix") -> Table:
    """Sources against targets."""
    table = _table(matrix.title, *matrix.columns)
    table.caption, table.caption_justify = Text(matrix.note, "dim"), "left"
    for row in matrix.rows:
        table.add_row(*map(Text, row))
    return table


def render_contrasts(contrasts: "Sequence[Contrast]") -> Table:
    """A row for each difference that an experiment asks for."""
    from tl_runner.report import cells

    several = len({of.one.pair for of in contrasts}) > 1
    names = ["data", "one", "other", "granted", "n", "one − other, points (95 %)"]
    table = Table(title=Text("The differences in question"), title_justify="left", title_style="bold")
    for name in names if several else names[1:]:
        table.add_column(name, justify="left" if name in ("data", "one", "other") else "right", overflow="fold")
    for of in contrasts:
        row = [
            of.one.label,
            of.other.label,
            of.granted,
            str(of.gain.pairs),
            cells.difference(of.gain._asdict()),
        ]
        table.add_row(*map(Text, [of.one.pair, *row] if several else row))
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    """Text first, then figures. What comes from a record is never read as markup."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    table.add_column(Text(first), overflow="fold")
    for column in columns:
        named = column in ("dataset", "method", "backbone", "variant", "status", "folder", "run")
        table.add_column(Text(column), justify="left" if named else "right", overflow="fold")
    return table


def _metrics(scores: Metrics, shown: Mapping[str, tuple[str, Callable[[float], str]]]) -> list[str]:
    """– for what a record has not got: a head may give no probabilities."""
    return [write(scores[name]) if name in scores else "–" for name, (_, write) in shown.items()]
