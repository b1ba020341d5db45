"""What differs between two runs, and what of it may explain that their scores differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, get_args

from tl_runner.storage.record import NEUTRAL, RunRecord

DifferenceKind = Literal["configuration", "keeping", "code", "data", "libraries", "machine"]
KINDS: tuple[DifferenceKind, ...] = get_args(DifferenceKind)
# where a cause may lie beside configuration and data
ELSEWHERE: tuple[DifferenceKind, ...] = ("code", "libraries", "machine")
MACHINE = ("device", "threads")  # keys of the configuration that the record of the machine has too
NAMED = 3  # keys that a sentence names
SCORES = {
    "target accuracy": ("target", "accuracy"),
    "target balanced accuracy": ("target", "balanced"),
    "target macro-F1": ("target", "macro_f1"),
    "target calibration error": ("target", "ece"),
    "target R²": ("target", "r2"),
    "target rank correlation": ("target", "spearman"),
    "source accuracy": ("source", "accuracy"),
    "source R²": ("source", "r2"),
    "accuracy at the end": ("last", "accuracy"),
    "accuracy of the oracle": ("oracle", "accuracy"),
    "R² at the end": ("last", "r2"),
    "R² of the oracle": ("oracle", "r2"),
}


class Difference(NamedTuple):
    """One thing by its dotted name, and what each of the two runs has there; None where it has nothing."""

    what: str
    first: Any
    second: Any


class ScorePair(NamedTuple):
    """A score of both runs in [0, 1], None where a run has none."""

    what: str
    first: float | None
    second: float | None

    @property
    def points(self) -> float | None:
        """The second minus the first, in percentage points."""
        return None if self.first is None or self.second is None else 100 * (self.second - self.first)


class Disagreement(NamedTuple):
    """On how many of the target's test rows the selected checkpoints predict other classes, or values; how far apart at
    most their probabilities, or these, are. `why` says why that is not known, where it is not."""

    rows: int = 0
    of: int = 0
    furthest: float = 0.0
    why: str = ""


def differences(first: RunRecord, second: RunRecord) -> dict[DifferenceKind, list[Difference]]:
    """All that differs in the records, by kind; kinds in which nothing does are left out. 1 and 1.0 are equal.

    `keeping` are keys that change no number: where and how a run is kept.
    """
    tables = [_facts(record) for record in (first, second)]
    found: dict[DifferenceKind, list[Difference]] = {}
    for kind in KINDS:
        one, other = (table[kind] for table in tables)
        names = dict.fromkeys([*one, *other])
        different = [Difference(name, one.get(name), other.get(name)) for name in names]
        if different := [each for each in different if each.first != each.second]:
            found[kind] = different
    if "configuration" not in found and first.id != second.id:
        found.setdefault("code", []).append(Difference("own files or weights (in the id)", first.id, second.id))
    return found


def scores(first: RunRecord, second: RunRecord) -> list[ScorePair]:
    """The scores that either run has."""
    both = [ScorePair(what, first.score(*path), second.score(*path)) for what, path in SCORES.items()]
    return [score for score in both if score.first is not None or score.second is not None]


def disagreement(first: RunRecord, second: RunRecord) -> Disagreement:
    """Compares the selected checkpoints' predictions row by row, where both are of the same target rows."""
    from safetensors import SafetensorError, safe_open

    if not first.scores or not second.scores:
        return Disagreement(why="a run without scores has no selected checkpoint")
    ours, theirs = (record.data.fingerprint.get("target") for record in (first, second))
    if ours != theirs or ours is None or first.seed != second.seed:  # the seed says which rows are the test split
        return Disagreement(why="the runs have other target test rows")
    tables = []
    for record, scored in ((first, first.scores), (second, second.scores)):
        file, name = record.folder / "predictions.safetensors", f"step_{scored.selected['step']}"
        try:
            with safe_open(file, framework="numpy") as opened:
                tables.append(opened.get_tensor(name))
        except (OSError, SafetensorError) as error:
            return Disagreement(why=f"{file} can't be read: {error}")
    one, other = tables
    if one.shape != other.shape:
        return Disagreement(why=f"predictions of {one.shape} and {other.shape} can't be compared")
    said = [table.argmax(-1) if table.shape[-1] > 1 else table[:, 0] for table in tables]
    rows = int((said[0] != said[1]).sum())
    return Disagreement(rows, len(one), float(abs(one - other).max(initial=0.0)))


def explanation(
    found: Mapping[DifferenceKind, Sequence[Difference]], scored: Sequence[ScorePair], apart: Disagreement
) -> str:
    """What may explain other scores, as far as the records can tell: one cause is named, of several none."""
    causes = causes_of(found)
    if any(score.first is None or score.second is None for score in scored) or not scored:
        of_one = {(score.first is None, score.second is None) for score in scored}
        if of_one == {(True, False), (False, True)}:
            lacking = "One of the runs predicts classes and the other a quantity: no score is of both."
        else:
            lacking = "One of the runs, or both, have no scores to be explained."
        return lacking
    same = all(score.first == score.second for score in scored) and not apart.rows and not apart.furthest
    known = not apart.why
    if not causes:
        if same and known:
            return "Nothing that is on record differs, and the predictions are equal: the same run, made twice."
        if same:
            return f"Nothing that is on record differs, and the scores are equal ({apart.why})."
        return (
            "Nothing that is on record differs, and yet the scores or predictions do: the cause is not on record. On"
            " a GPU the order of sums is not fixed; else look for a change that no version or commit shows."
        )
    equal = " The scores are equal all the same." if same else ""
    if len(causes) > 1:
        listed = f"{', '.join(causes[:-1])} and {causes[-1]}"
        return f"Several things differ, {listed}: none can be told from the others. Change one at a time.{equal}"
    return _explain_cause(causes[0], found, apart) + equal


def causes_of(found: Mapping[DifferenceKind, Sequence[Difference]]) -> list[str]:
    """What can change numbers among the differences; what follows from another one is left out.

    Another seed or another data set's options draw other rows, so the data then differ by configuration.
    """
    keys = [difference.what for difference in found.get("configuration", ())]
    causes = ["the seed"] if "seed" in keys else []
    if any(key != "seed" for key in keys):
        causes.append("the configuration")
    drawn = "seed" in keys or any(key.startswith("dataset.") or key == "granted" for key in keys)
    started = any(key.partition(".")[0] in ("pretrain", "backbone", "method") for key in keys)
    for difference in found.get("data", ()):
        follows = drawn or (
            started and difference.what.startswith(("source_model", "model", "input", "granted", "start"))
        )
        if not follows and "the data" not in causes:
            causes.append("the data")
    return [*causes, *(f"the {kind}" for kind in ELSEWHERE if found.get(kind))]


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings; lists are leaves, an empty mapping is none."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _facts(record: RunRecord) -> dict[DifferenceKind, dict[str, Any]]:
    environment = record.environment
    versions = {name: version for name, version in environment.versions.items() if name != "tl_runner"}
    known = {**asdict(record.data), **record.data.notes, **asdict(record.training)}
    data = {
        name: value for name, value in known.items() if name not in ("seeds", "notes", "read") and value is not None
    }
    config = dict(flatten(record.config))
    neutral = {key: value for key, value in config.items() if key.partition(".")[0] in NEUTRAL}
    return {
        "configuration": {key: value for key, value in config.items() if key not in neutral},
        "keeping": {key: value for key, value in neutral.items() if key not in MACHINE},
        "code": {
            "tl_runner": environment.versions.get("tl_runner"),
            "commit": environment.commit,
            "uncommitted changes": environment.dirty,
        },
        "data": {**dict(flatten(data)), "granted": record.granted},
        "libraries": {"python": environment.python, **versions},
        "machine": {name: getattr(environment, name) for name in ("platform", "device", "threads", "engine")},
    }


def _explain_cause(cause: str, found: Mapping[DifferenceKind, Sequence[Difference]], apart: Disagreement) -> str:
    """The sentence on a single cause."""
    kinds: list[DifferenceKind] = [kind for kind in ELSEWHERE if cause == f"the {kind}"] or ["configuration"]
    keys = [difference.what for kind in kinds for difference in found.get(kind, ())]
    other = [key.removesuffix("._target_") for key in keys if key.endswith("._target_")]  # wholly other parts
    keys = [*(f"another {part}" for part in other), *(key for key in keys if key.partition(".")[0] not in other)]
    named = ", ".join(keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")
    if cause == "the seed":
        return (
            "Only the seed differs, and with it the rows drawn, the initial weights and the batches. That is chance,"
            " and two runs say little about it; tl-report shows the spread over seeds."
        )
    if cause == "the configuration":
        return (
            f"Only the configuration differs ({named}), on the same seed. That may explain it; whether it would on"
            " other seeds, only more seeds tell."
        )
    if cause == "the data":
        return "Same configuration, but other data: what the data set reads has changed between the runs."
    if cause == "the code":
        return f"Same configuration and data, but other code ({named}): a change of the program may explain it."
    if cause == "the libraries":
        return f"Only versions of libraries differ ({named}): they change last bits, and now and then more."
    least = f" At most {apart.furthest:.1g} lies between their probabilities." if apart.of else ""
    return (
        f"Identical but for the machine ({named}): sums are taken in another order, which changes last bits, and"
        f" training can make much of them.{least}"
    )
