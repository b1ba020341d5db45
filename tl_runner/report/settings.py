"""Runs as settings: those that differ in the seed alone, by pair of domains, each with a name of its own."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tl_runner.report.predictions import Predictions, read_predictions
from tl_runner.report.statistics import OF_QUANTITY, Metric, ScoreName, Seeds, joined
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.record import NEUTRAL, RunRecord

TOLD = 3  # keys that a table names where settings differ; the records have them all
LONG = 24  # signs of a value that it tells at least


@dataclass(frozen=True)
class Setting:
    """The runs of a setting on the same files, one that ended well first.

    For people: `pair` is what it transfers between, `variant` what tells it from its namesakes, `label` its method and
    as much more as tells it from all others of its pair and label budget.
    """

    runs: tuple[RunRecord, ...]
    pair: str
    variant: str
    label: str

    @property
    def first(self) -> RunRecord:
        return self.runs[0]

    @cached_property
    def scored(self) -> dict[Any, RunRecord]:
        """The runs that ended well, by seed, in the order of seeds: sums are the same wherever the runs lie."""
        good = [run for run in self.runs if run.status == "ok" and run.scores]
        return {run.seed: run for run in sorted(good, key=lambda run: str(run.seed).rjust(20))}

    def values(self, name: str, score: ScoreName = "headline") -> dict[Any, float]:
        """By seed: the score of `selected`, `last`, `oracle`, `source` or `majority`, of the runs that have it."""
        found = {seed: run.score(name, self.metric(score)) for seed, run in self.scored.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def metric(self, score: ScoreName) -> Metric:
        """The score as its runs name it; of one that is not of their task, their headline."""
        of_quantity = self.first.data.task == "regression"
        return self.first.metric if score == "headline" or (score in OF_QUANTITY) != of_quantity else score

    @cached_property
    def estimates(self) -> dict[Any, float]:
        """By seed: the accuracy on the target as it is estimated without its labels, of the runs that have that."""
        found = {seed: run.scores.estimate for seed, run in self.scored.items() if run.scores}
        return {seed: estimate.value for seed, estimate in found.items() if estimate}

    @cached_property
    def unlabelled(self) -> bool:
        """Whether no run of it could be scored, as its target has no labels."""
        return bool(self.scored) and all(run.headline is None for run in self.scored.values())

    @cached_property
    def seeds(self) -> Seeds:
        """How its runs differ by seed; unknown where a record does not say, or records disagree."""
        return joined(seeds_of(run) for run in self.scored.values())

    @cached_property
    def outcomes(self) -> dict[Any, Predictions]:
        """By seed: labels and predicted classes of the test rows, of the runs that kept them."""
        found = {seed: read_predictions(run) for seed, run in self.scored.items()}
        return {seed: rows for seed, rows in found.items() if rows}

    @cached_property
    def steps(self) -> int | None:
        """Of training, with those of the source model that it started from and of trials; None without a good run."""
        counts = [_steps(run) for run in self.scored.values()]
        return max(counts) if counts else None

    def configuration(self, with_backbone: bool) -> str:
        """Its own configuration as text, without what says on which data and with how many labels."""
        apart = {*NEUTRAL, "seed", "dataset", "granted", *(["backbone"] if not with_backbone else [])}
        told = {key: value for key, value in self.first.config.items() if key not in apart}
        return json.dumps([self.first.choices["method"], told], sort_keys=True, default=str)

    @cached_property
    def cell(self) -> str:
        """What data it is about: settings of equal cells can be compared."""
        return cell(self.first)


def group_settings(records: Sequence[RunRecord]) -> list[Setting]:
    """All settings, in the order of their first runs. Runs on other files are no other seeds of a setting.

    A command that could not be composed is none.
    """
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in (record for record in records if record.composed):
        groups[record.setting, record.data.files or ""].append(record)
    sorted_groups = [tuple(sorted(runs, key=lambda run: run.status != "ok")) for runs in groups.values()]
    firsts = [runs[0] for runs in sorted_groups]
    pairs = _pairs(firsts)
    variants = _variants(firsts)
    nets = _values({_rivals(first): first.choices["backbone"]} for first in firsts)

    def named(runs: tuple[RunRecord, ...]) -> Setting:
        first, variant = runs[0], variants[runs[0].setting]
        backbone = first.choices["backbone"] if len(nets[_rivals(first)]) > 1 else ""
        return Setting(
            runs, pairs[cell(first)], variant, " ".join(filter(None, [first.choices["method"], backbone, variant]))
        )

    return [named(runs) for runs in sorted_groups]


def order_budget(granted: object) -> tuple[int, float]:
    """What label budgets are sorted by: counts a class, shares, `labelled`, `all`."""
    text = str(granted)
    if text.isdecimal():
        return 0, int(text)
    if text.endswith("%") and text[:-1].replace(".", "", 1).isdecimal():
        return 1, float(text[:-1])
    return {"labelled": 2, "all": 3}.get(text, 4), 0.0


def cell(record: RunRecord) -> str:
    """The dataset's own configuration and files, as text."""
    node = drop_locations(record.config.get("dataset"))
    return json.dumps([record.choices["dataset"], node, record.data.files], sort_keys=True, default=str)


def _rivals(record: RunRecord) -> str:
    """What settings have in common that a reader compares with each other."""
    return f"{cell(record)} {record.choices['method']} {record.granted}"


def seeds_of(run: RunRecord) -> Seeds:
    """What its record says of how seeds differ."""
    if told := run.data.seeds:
        return Seeds(told.kind, told.test, told.pool or 0)
    rows = run.data.rows.get("target")
    return Seeds(test=rows[2] if rows else 0)


def _steps(run: RunRecord) -> int:
    before = sum(info.steps for info in (run.training.source_model, run.training.auto) if info)
    return before + (int(run.scores.last["step"]) if run.scores else 0)


def _pairs(firsts: Sequence[RunRecord]) -> dict[str, str]:
    """A name for each cell: the dataset's, and where several have it as much of their configurations as tells it.

    That are the names of the domains where paths would tell, which are long and hide what differs, or where both the
    source and the target do.
    """
    named: dict[str, dict[str, RunRecord]] = defaultdict(dict)
    for record in firsts:
        named[record.choices["dataset"]][cell(record)] = record
    found = {}
    for name, cells in named.items():
        nodes = {key: {**dict(_flatten(of.config)), "files": of.data.files} for key, of in cells.items()}
        data = {key: {k: v for k, v in node.items() if _of_data(k)} for key, node in nodes.items()}
        values = _values(data.values())
        telling = sorted((key for key in values if len(values[key]) > 1), key=lambda key: -len(values[key]))
        by_domains = {key: _name_domains(of) for key, of in cells.items()}
        paths = any("/" in value for key in telling for value in values[key])
        both = {"dataset.source", "dataset.target"} <= {*telling}
        if (paths or both) and len(cells) > 1 and len({*by_domains.values()} - {""}) == len(cells):
            found |= {key: f"{name} {domains}" for key, domains in by_domains.items()}
            continue
        for key, node in data.items():
            shown = [k for k in _distinguishing_keys(node, [*data.values()], telling) if node.get(k) is not None]
            said = [_format_key(k.removeprefix("dataset."), node[k], values[k]) for k in shown]
            found[key] = " ".join([name, *said])
    return found


def _name_domains(record: RunRecord) -> str:
    """What a run transfers between, in the names of its domains; "" where it does not know them."""
    source, target = (record.data.domains.get(side) for side in ("source", "target"))
    return f"{source} → {target}" if source and target else ""


def _of_data(key: str) -> bool:
    return key == "files" or key.startswith("dataset.")


def _distinguishing_keys(node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Few of these keys whose values no other node has: each in turn the one that leaves fewest others.

    A hash of files tells people nothing, and comes last.
    """

    def rest(key: str) -> list[Mapping[str, Any]]:
        return [other for other in alike if str(other.get(key)) == str(node.get(key))]

    chosen: list[str] = []
    alike = [other for other in nodes if other is not node]
    while telling := [key for key in keys if len(rest(key)) < len(alike)]:
        chosen.append(min(telling, key=lambda key: (key == "files", len(rest(key)))))
        alike = rest(chosen[-1])
    return [key for key in keys if key in chosen]


def _values(nodes: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The values that flat nodes have of each key."""
    seen: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        for key, value in node.items():
            seen[key].add(str(value))
    return seen


def _variants(firsts: Sequence[RunRecord]) -> dict[str, str]:
    """Per setting, the keys in which it differs from its namesakes that have results; at most `TOLD` of them.

    Namesakes have the same method, backbone and label budget, on the same data.
    """
    namesakes: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in firsts:
        if "method" in record.config:
            budget = str(record.granted)
            namesakes[cell(record), record.choices["method"], record.choices["backbone"], budget].append(record)
    described = dict.fromkeys((record.setting for record in firsts), "")
    for group in namesakes.values():
        described |= {record.setting: said for record, said in zip(group, distinguish_labels(group), strict=True)}
    return described


def distinguish_labels(group: Sequence[RunRecord], apart: Iterable[str] = ()) -> list[str]:
    """What tells each of these records from the others that have results, but for their data; "" of one alone.

    Keys of the groups `apart` say nothing.
    """
    if len(group) < 2:
        return [""] * len(group)
    ended = [record for record in group if record.status == "ok"] or group
    values = _values(dict(_flatten(record.config)) for record in ended)
    described = []
    for record in group:
        told = {key: value for key, value in _flatten(record.config) if not _of_data(key)}
        node = {key: value for key, value in told.items() if key.partition(".")[0] not in set(apart)}
        different = [key for key, value in node.items() if values[key] - {str(value)}]
        different.sort(key=lambda key: -len(values[key]))  # what has most values tells most
        more = [f"and {len(different) - TOLD} more"] if len(different) > TOLD else []
        described.append(" ".join([*(_format_key(key, node[key], values[key]) for key in different[:TOLD]), *more]))
    return described


def _format_key(key: str, value: Any, others: Iterable[str]) -> str:
    """A key with its value; of a long one as much as tells it from those of others."""
    if isinstance(value, float):
        return f"{key}={value:g}"
    text, rivals = _format_list(str(value)), [_format_list(other) for other in others if other != str(value)]
    enough = next((n for n in range(LONG, len(text)) if not any(r[:n] == text[:n] for r in rivals)), len(text))
    return f"{key}={text[:enough]}…" if enough + 1 < len(text) else f"{key}={text}"


def _format_list(text: str) -> str:
    """A list as it is typed: [mmd,coral]; a name that holds a sign of lists keeps its quotes. Other values stay."""
    if text[:1] not in ("[", "(", "{"):
        return text

    def shorten(found: re.Match[str]) -> str:
        name = found["plain"]
        return "," if found[0] == ", " else found[0] if name is None else name

    return re.sub(r"""'(?P<plain>[^',:()[\]{}]*)'|'[^']*'|"[^"]*"|, """, shorten, text)


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if not prefix and key in NEUTRAL | {"seed", "granted"}:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif key != "_target_":
            yield f"{prefix}{key}", value
        elif prefix:
            yield prefix[:-1], str(value).rpartition(".")[2]  # select=last and select=im differ in nothing else
