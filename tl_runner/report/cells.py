"""A leaderboard in words: the columns that every form of it has, and what stands in each cell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from tl_runner.plurals import count_noun, pluralize
from tl_runner.report.comparison import WORSE
from tl_runner.report.ranking import LEAST as FEWEST
from tl_runner.report.ranking import Ranking

Row = Mapping[Any, Any]
HUGE = 100  # of a share: from here on two digits and a power of ten are written


class Column(NamedTuple):
    """A heading, the text of a row's cell, and whether that is a figure."""

    heading: str
    text: Callable[[Row], str]
    figure: bool = True


def percent(share: float) -> str:
    if abs(share) >= HUGE:
        return f"{100 * share:.2g}"  # an R² may be any number below 1
    return "–" if isnan(share) else f"{100 * share:.1f}"


def format_spread(row: Row, score: str) -> str:
    """Mean ± sd in percent; the mean alone of one run."""
    mean, deviation = percent(row[score]), row[f"{score}_sd"]
    return mean if isnan(deviation) else f"{mean} ± {percent(deviation)}"


def difference(row: Row) -> str:
    """Points over the baseline, with the 95 % interval where there is one."""
    if isnan(row["difference"]):
        return ""
    signed = [_format_signed(row[name], "+.1f") for name in ("difference", "low", "high")]
    return signed[0] if isnan(row["low"]) else f"{signed[0]} ({signed[1]} to {signed[2]})"


def _format_signed(share: float, form: str) -> str:
    written = f"{100 * share:{form}}" if abs(share) < HUGE else f"{100 * share:+.2g}"
    return written.replace("-", "−")


def chance(p: float) -> str:
    return "" if isnan(p) else "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def _format_wins(row: Row) -> str:
    return f"{row['wins']}/{row['ties']}/{row['losses']}" if row["pairs"] else ""


def _failures(row: Row) -> str:
    return f"{row['failed']} (+{row['unfinished']} unfinished)" if row["unfinished"] else str(row["failed"])


# In the order of a table; `IMPORTANT` is the order in which a narrow one takes them in.
COLUMNS = {
    "method": Column("method", lambda row: str(row["method"]), figure=False),
    "variant": Column("variant", lambda row: str(row["variant"]), figure=False),
    "backbone": Column("backbone", lambda row: str(row["backbone"]), figure=False),
    "granted": Column("granted", lambda row: str(row["granted"])),
    "n": Column("n", lambda row: str(row["n"])),
    "failed": Column("failed", _failures),
    "target": Column("target, %", lambda row: format_spread(row, "target")),
    "agreement": Column("agreement, %", lambda row: format_spread(row, "agreement")),
    "seeds_agree": Column("seeds agree, %", lambda row: percent(row["seeds_agree"])),
    "estimated": Column("estimated, %", lambda row: format_spread(row, "estimated")),
    "difference": Column("− baseline, points (95 %)", difference),
    "p": Column("p", lambda row: chance(row["p"])),
    "wins": Column("win/tie/loss", _format_wins),
    "verdict": Column("finding", lambda row: str(row["verdict"]), figure=False),
    "last": Column("last, %", lambda row: percent(row["last"])),
    "oracle": Column("oracle, %", lambda row: percent(row["oracle"])),
    "regret": Column("regret", lambda row: percent(row["regret"])),
    "closed": Column("gap closed, %", lambda row: "" if isnan(row["closed"]) else _format_signed(row["closed"], ".0f")),
    "source": Column("source, %", lambda row: percent(row["source"])),
    "seconds": Column("s", lambda row: "–" if isnan(row["seconds"]) else f"{row['seconds']:.1f}"),
}
IMPORTANT = (
    "method", "variant", "n", "target", "agreement", "backbone", "granted", "difference", "verdict", "failed", "oracle",
    "regret", "estimated", "seeds_agree", "p", "closed", "wins", "last", "seconds", "source",
)  # fmt: skip
LEGEND = (
    " on the target's test split, mean ± sd over n seeds, of the checkpoint chosen without target labels;"
    " last: at the end of training; oracle: best by the test labels, which nobody has in practice; regret: oracle −"
    " chosen, in points. The baseline (source_only, or target_only where the classes differ) has the same data,"
    " backbone, seeds and label budget; with another budget nothing is tested (other labels). Intervals are of 95 %, by"
    " the test that fits how seeds differ: new data per seed – Student's paired t; one pool re-split – the corrected"
    " resampled t; one test set – seeds and test rows. Below 3 seeds nothing is tested. p is Holm's over all settings"
    " of this report. Finding: by p < .05; a maybe by the interval alone. Gap closed: of that from the baseline to"
    " target_only granted=all. Bold: not shown to be worse than the best with the same labels."
)
NAMES = {
    "accuracy": "Accuracy",
    "balanced": "Balanced accuracy (the mean over classes)",
    "macro_f1": "Macro-F1 (the mean over classes)",
    "r2": "R² (the share of the variance that is explained; below 0 where saying the mean is better)",
    "spearman": "Spearman's rank correlation",
}
ESTIMATED = " Estimated: accuracy as it is estimated without target labels, which may be far off (docs/deciding.md)."
AGREEMENT = (
    " Agreement: on which share of the target's validation rows a setting says what the mean prediction of all says; it"
    " is no accuracy, and sorts settings where no label is known."
)
SEEDS = (
    " Seeds agree: on which share of the target's rows two seeds predict the same class. If the runs are calibrated,"
    " that is about their accuracy; it is too high where they share a mistake."
)
KINDS = {
    "independent": "new data per seed",
    "resplit": "seeds re-split {pool} rows",
    "fixed": "one test set of {test} rows",
    "unknown": "how seeds differ is not on record",
}


def legend(frame: pd.DataFrame) -> str:
    """What the columns mean, and by which score."""
    told = name_scores(frame) + LEGEND
    if unlabelled(frame.to_dict("records")):
        told = "Mean ± sd over n seeds, of the checkpoint chosen without target labels. Source: on its test split."
    for name, said in (("estimated", ESTIMATED), ("agreement", AGREEMENT), ("seeds_agree", SEEDS)):
        told += said if len(frame[name].dropna()) else ""
    return told


def name_scores(frame: pd.DataFrame) -> str:
    """The scores that the tables compare: one, but where some runs predict classes and others quantities."""
    return " or ".join(NAMES[score] for score in dict.fromkeys(frame["score"]) or ["accuracy"])


def telling(rows: Sequence[Row]) -> list[str]:
    """The columns that say something of these rows: not one that is empty, or a name that all share."""

    def tells(name: str) -> bool:
        texts = {COLUMNS[name].text(row) for row in rows}
        return len(texts) > 1 if name in ("backbone", "granted") else texts - {"", "–"} != set()

    return [name for name in COLUMNS if tells(name)]


def heading(pair: str, rows: Sequence[Row]) -> str:
    """What a table is about: the pair, and the names that all its rows share."""
    shared = {key: {str(row[key]) for row in rows} for key in ("backbone", "granted")}
    said = [f"{key} {next(iter(values))}" for key, values in shared.items() if len(values) == 1]
    bases = {row["baseline"] for row in rows}
    named = sorted({row["method"] for row in rows if row["setting"] in bases})
    kinds = {row["seed_kind"]: row for row in rows if row["seed_kind"]}
    if unlabelled(rows):
        return " · ".join([pair, *said, "the target has no labels"])
    said_of_seeds = [text.format(**_counts(kinds[kind])) for kind, text in KINDS.items() if kind in kinds]
    return " · ".join([pair, *said, *(f"baseline {name}" for name in named), *said_of_seeds, *_majority(rows)])


def unlabelled(rows: Sequence[Row]) -> bool:
    """Whether the target has no labels by which any of these settings could be scored."""
    done = [row for row in rows if row["n"]]
    return bool(done) and all(isnan(row["target"]) for row in done)


def _counts(row: Row) -> dict[str, str]:
    return {name: f"{row[f'{name}_rows']:,.0f}" for name in ("test", "pool")}


def _majority(rows: Sequence[Row]) -> list[str]:
    """What saying one class of all rows would score: the mean over the settings, whose seeds may differ."""
    if any(row["score"] in ("r2", "spearman") for row in rows):
        return []  # saying the mean has an R² of 0
    shares = [row["majority"] for row in rows if not isnan(row["majority"])]
    return [f"always the most frequent class {percent(fmean(shares))} %"] if shares else []


def by_pair(frame: pd.DataFrame) -> dict[str, list[Row]]:
    """The rows of a leaderboard by pair of domains, in its order."""
    pairs: dict[str, list[Row]] = {}
    for row in frame.to_dict("records"):
        pairs.setdefault(row["pair"], []).append(row)
    return pairs


def count_runs(frame: pd.DataFrame) -> str:
    """How many there are of what, and how many failed."""
    counts = {name: sum(frame[name].tolist()) for name in ("n", "failed", "unfinished")}
    settings, runs = count_noun(len(frame), "setting"), count_noun(sum(counts.values()), "run")
    return f"{settings}, {runs}, {counts['failed']} failed"


def remarks(frame: pd.DataFrame, rankings: Sequence[Ranking]) -> list[str]:
    """What is to be said below the tables: who loses, ranks over pairs, what `auto` costs against the best setting."""
    return [*_losers(frame), *(said for each in rankings for said in _ranked(each)), *_regrets(frame)]


def _losers(frame: pd.DataFrame) -> Iterator[str]:
    """Negative transfer is also stated in words: a narrow table has no room for verdicts."""
    for pair, rows in by_pair(frame).items():
        for verdict in WORSE:
            if worse := [f"{row['label']} {difference(row)}" for row in rows if row["verdict"] == verdict]:
                yield f"{pair}: {verdict}, in points: {', '.join(worse)}."


def _regrets(frame: pd.DataFrame) -> Iterator[str]:
    """What `auto` costs, beside the best that one might have run instead."""
    for pair, rows in by_pair(frame).items():
        for row in (row for row in rows if row["rival"]):
            points = round(100 * row["over_rival"], 1)
            place = f"{abs(points)} points {'above' if points > 0 else 'below'}" if points else "level with"
            seeds = count_noun(row["rival_seeds"], "seed")
            yield f"{pair}: {row['label']} is {place} {row['rival']}, the best other with the same labels, on {seeds}."


def _ranked(ranking: Ranking) -> list[str]:
    """Average ranks in sentences, best first."""
    found = ranking.ranks
    if found is None:
        few = f"{count_noun(ranking.pairs, 'pair')} {pluralize(ranking.pairs, 'has')} settings in common"
        return [f"No ranks: {few}, granted={ranking.granted}; at least {FEWEST} pairs are needed to rank methods."]
    p = "" if isnan(found.p) else f", Friedman's p {chance(found.p)}"
    listed = " · ".join(f"{label} {rank:.1f}" for label, rank in found.average.items())
    said = [
        f"Average ranks over {found.pairs} pairs, granted={ranking.granted}: {listed}.",
        f"Ranks that differ by less than {found.critical:.1f} are not shown to differ (Nemenyi, 5 %{p}).",
    ]
    return (
        [*said, f"Left out, as not all pairs have them: {', '.join(ranking.left_out)}."] if ranking.left_out else said
    )
