"""What a reader of a leaderboard must know before believing it."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from textwrap import shorten
from typing import Any

import pandas as pd

from tl_runner.plurals import count_noun, pluralize
from tl_runner.report.cells import unlabelled
from tl_runner.report.comparison import OTHER_LABELS
from tl_runner.report.settings import cell
from tl_runner.report.statistics import LEAST, MOST
from tl_runner.storage.record import RunRecord

MANY = 3  # settings of one method, from which on the highest is a choice
NAMED = 6  # settings that a sentence names
BASELINES = {"source_only", "target_only"}
LONG = 120  # characters of an error that are shown

Row = dict[Hashable, Any]  # of a leaderboard


def list_caveats(records: Sequence[RunRecord], frame: pd.DataFrame) -> list[str]:
    """Sentences, the gravest first; none where nothing stands against the table."""
    ended = [record for record in records if record.status == "ok"]
    pairs: dict[str, list[Row]] = defaultdict(list)
    for row in frame.to_dict("records"):
        pairs[row["pair"]].append(row)
    return [
        *_describe_failures([record for record in records if record.composed]),
        *_describe_attempts([record for record in records if not record.composed]),
        *_other_data(ended),
        *_mixed(ended),
        *_constant(ended),
        *_label_sets(ended),
        *_cautious(frame),
        *_maybe(frame),
        *_of_pairs({pair: [*_of_pair(rows)] for pair, rows in pairs.items()}),
        *_of_pairs({pair: [*_missing(rows)] for pair, rows in pairs.items()}),
    ]


def _of_pairs(said: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is to be said of each pair; once where it is the same of several."""
    pairs: dict[str, list[str]] = defaultdict(list)
    for pair, sentences in said.items():
        for sentence in sentences:
            pairs[sentence].append(pair)
    for sentence, of in pairs.items():
        yield f"{of[0]}: {sentence}" if len(of) == 1 else f"{sentence} ({count_noun(len(of), 'pair')}: {_names(of)})"


def _describe_failures(records: Sequence[RunRecord]) -> Iterator[str]:
    """Why runs failed, by method."""
    reasons: dict[tuple[str, str], int] = defaultdict(int)
    for record in records:
        if record.status in ("failed", "diverged"):
            reasons[record.choices["method"], _shorten_error(record)] += 1
    told = [f"{count} of {method}: {reason}" for (method, reason), count in reasons.items()]
    if told:
        yield f"{count_noun(sum(reasons.values()), 'run')} failed: {_names(told, '; ')} (their run.log has more)"


def _describe_attempts(attempts: Sequence[RunRecord]) -> Iterator[str]:
    """Why commands made no run."""
    if attempts:
        told = [
            f"{reason} ({count} times)" if count > 1 else reason
            for reason, count in Counter(map(_shorten_error, attempts)).items()
        ]
        yield f"{count_noun(len(attempts), 'command')} could not be read, and made no run: {_names(told, '; ')}"


def _shorten_error(record: RunRecord) -> str:
    """The first line of an error, without the words that announce its other lines."""
    line = re.sub(r"(?<=[.;!?)]) [^.;!?)]*:$", "", str(record.error).partition("\n")[0])
    return shorten(line.removesuffix("."), LONG, placeholder=" …")


def _other_data(ended: Sequence[RunRecord]) -> Iterator[str]:
    """Runs that say the same of their data, and saw other rows, or other files."""
    files: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in ended:
        node = json.dumps(record.config.get("dataset"), sort_keys=True, default=str)
        files[record.choices["dataset"], node].add(str(record.data.files))
    for (dataset, _), versions in files.items():
        if len(versions) > 1:
            yield (
                f"the files of {dataset} changed between runs ({', '.join(sorted(versions))}): each version"
                " has its own table, and only runs on the same version are compared"
            )
    seen: dict[Hashable, set[str]] = defaultdict(set)
    for record in ended:
        seen[cell(record), str(record.seed)].add(str(record.data.fingerprint))
    if count := sum(len(prints) > 1 for prints in seen.values()):
        pairs = f"{count_noun(count, 'pair')} of dataset and seed {pluralize(count, 'has')}"
        yield f"the data changed between runs: {pairs} runs on different rows (fingerprint)"


def _mixed(ended: Sequence[RunRecord]) -> Iterator[str]:
    """Runs made by other code, or on other machines."""
    values: dict[str, set[str]] = defaultdict(set)
    for record in ended:
        for name, version in record.environment.versions.items():
            values[name].add(str(version))
        for name in ("commit", "device", "engine"):
            values[name].add(str(getattr(record.environment, name)))
    for name, found in values.items():
        if len(found) > 1:
            yield f"runs of different {name}: {', '.join(sorted(found))}"
    if dirty := sum(bool(record.environment.dirty) for record in ended):
        of = f"{dirty} of {count_noun(len(ended), 'run')} {pluralize(dirty, 'was')}"
        yield f"{of} made from a working tree with uncommitted changes"


def _constant(ended: Sequence[RunRecord]) -> Iterator[str]:
    """Runs that say one class of everything, which an accuracy on unequal shares hides."""
    shares = [(run.choices["method"], (run.diagnosis and run.diagnosis.histogram) or [0.0]) for run in ended]
    if found := Counter(method for method, share in shares if max(share) == 1):
        told = _names(f"{method} ({count})" for method, count in found.items())
        yield f"one class is predicted for all of the target's test rows by runs of {told}"


def _label_sets(ended: Sequence[RunRecord]) -> Iterator[str]:
    """Runs that know from the target's labels which classes there are: more than granted=0 says."""
    known = [run for run in ended if (run.data.label_knowledge or {}).get("by") == "target labels"]
    if known:
        datasets = _names(sorted({run.choices["dataset"] for run in known}))
        yield (
            f"{len(known)} of {count_noun(len(ended), 'run')} {pluralize(len(known), 'was')} granted the label set:"
            f" dataset.labels=shared ({datasets}) left out"
            " rows by which classes the target's labels hold; dataset.label_set=[…] states the classes instead"
        )


def _cautious(frame: pd.DataFrame) -> Iterator[str]:
    """Settings whose test is wider than it need be, since something is not on record."""
    rows = [row for row in frame.to_dict("records") if row["n"] >= LEAST and row["baseline"]]
    if unknown := [f"{row['pair']} {row['label']}" for row in rows if row["seed_kind"] == "unknown"]:
        yield (
            f"how seeds differ is not on record for {_names(unknown)} (older runs, or runs that disagree): they are"
            " assumed to share one test set, the most cautious case; force=true runs them again"
        )
    if blind := [f"{row['pair']} {row['label']}" for row in rows if row["by_rows"] is False]:
        yield (
            f"predictions or labels of the same test rows are not kept for {_names(blind)} (diagnose=none keeps no"
            " labels): where seeds share a test set, accuracies are compared as if both erred independently, which is"
            " wider, and other scores are not tested"
        )


def _maybe(frame: pd.DataFrame) -> Iterator[str]:
    """How many seeds would make findings of the maybes: said once, and how not to use it."""
    rows = [row for row in frame.to_dict("records") if str(row["verdict"]).startswith("maybe")]
    if not rows:
        return
    told = []
    for row in sorted(rows, key=lambda row: row["needed"]):
        number = f"{row['needed']:.0f}" if isfinite(row["needed"]) else f"more than {MOST:,}"
        told.append(f"{row['pair']} {row['label']} {number}")
    yield (
        f"{len(rows)} of the findings {'are' if len(rows) > 1 else 'is'} a maybe. With a difference and spread like"
        f" these a finding takes as many seeds: {_names(told)}. Decide on a number first and test on new seeds alone:"
        " adding seeds until a test is significant produces false findings"
    )


def _of_pair(rows: Sequence[Row]) -> Iterator[str]:
    scored = [row for row in rows if row["n"]]
    if unlabelled(rows):
        yield (
            "the target has no labels: no accuracy is known, and nothing is tested. Settings are sorted by how far they"
            " agree with the mean prediction of all, which takes three or more of them"
        )
        return
    if few := [row["label"] for row in scored if row["n"] < LEAST]:
        yield f"fewer than {LEAST} seeds of {_names(few)}: nothing is tested"
    if below := [row for row in scored if row["below_majority"]]:
        told = [f"{row['label']} ({row['below_majority']} of {count_noun(row['n'], 'run')})" for row in below]
        constant = "mean" if below[0]["score"] in ("r2", "spearman") else "most frequent class"
        yield f"below always saying the target's {constant}: {_names(told)}"
    adapted = [row for row in scored if row["method"] != "target_only"]  # which is there to be what labels are worth
    if other := sorted({(row["method"], row["granted"]) for row in adapted if row["verdict"] == OTHER_LABELS}):
        told = [f"{method} granted={granted}" for method, granted in other]
        yield f"no baseline with the same label budget for {_names(told)}: run the baseline with it to test them"
    counts = Counter((row["method"], row["granted"]) for row in scored)
    if many := [f"{count} of {method}" for (method, _), count in counts.items() if count >= MANY]:
        yield (
            f"several settings of one method ({_names(many)}): choosing the highest uses the test labels and is"
            " optimistic; hydra/sweeper=tl_optuna chooses without them"
        )
    if {row["method"] for row in scored} - BASELINES and not any(row["baseline"] for row in scored):
        yield "no run of a baseline (source_only) on the same data and backbone: nothing to compare with"
    steps = {row["setting"]: row["steps"] for row in scored}
    other = [(row, steps[row["baseline"]]) for row in scored if row["baseline"]]
    if unequal := [f"{row['label']} {row['steps']} (baseline {base})" for row, base in other if row["steps"] != base]:
        yield f"unequal budgets, in steps of training: {_names(unequal)}"


def _missing(rows: Sequence[Row]) -> Iterator[str]:
    """Seeds that others of the pair have, and a setting has not."""
    had = [(row["label"], {*row["seeds"].split()}) for row in rows]
    everything = set().union(*(found for _, found in had))
    counts = [(label, len(everything - found)) for label, found in had]
    if lacking := [f"{label} lacks {count}" for label, count in counts if count]:
        yield f"seeds are missing of {len(everything)}: {_names(lacking)}"


def _names(names: Iterable[str], between: str = ", ") -> str:
    listed = list(names)
    more = [f"{len(listed) - NAMED} more"] if len(listed) > NAMED else []
    return between.join([*listed[:NAMED], *more])
