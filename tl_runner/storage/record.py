"""The record of a run, and the records in folders of runs. Nothing here needs torch.

A run's identity is that of its composed configuration, without what cannot change its numbers, and of the content of
the files that its dataset reads. Same identity, same folder.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tl_runner.errors import UserError
from tl_runner.option_names import RENAMED, name_parts, rename, rename_parts
from tl_runner.storage import data_files
from tl_runner.storage.contents import Contents
from tl_runner.storage.identity import drop_later_keys, identify
from tl_runner.storage.sections import DataInfo, Diagnosis, Environment, Scores, TrainingInfo

# Keys that do not change a run's numbers (or, as device and threads, only their last bits: `environment` has them).
NEUTRAL = {
    "device", "threads", "outputs", "save", "force", "dry", "checkpoint_every", "timeout", "tracker", "objective",
    "diagnose",
}  # fmt: skip

SCHEMA = 3  # changes with what `run.json` holds, or with how an id is made

Status = Literal["running", "ok", "failed", "diverged"]


class LaterSchemaError(ValueError):
    """The record was written by a later version of tl_runner."""


@dataclass
class RunRecord:
    """One run, as `run.json` holds it; `setting` is its identity without the seed."""

    id: str
    setting: str
    choices: dict[str, str]
    seed: Any
    granted: Any
    config: dict[str, Any]
    status: Status = "running"
    scores: Scores | None = None
    evidence: dict[str, Any] | None = None  # what is known of the chosen checkpoint without target labels
    diagnosis: Diagnosis | None = None
    seconds: float | None = None
    error: str | None = None
    environment: Environment = field(default_factory=Environment)
    data: DataInfo = field(default_factory=DataInfo)
    training: TrainingInfo = field(default_factory=TrainingInfo)
    schema: int = SCHEMA
    found: Path | None = None  # the folder that it was read from, which may have been moved; not in the file

    @property
    def folder(self) -> Path:
        if self.found:
            return self.found
        name = "-".join(
            [_make_safe(self.choices["method"]), _make_safe(self.choices["backbone"]), f"s{_make_safe(str(self.seed))}"]
        )
        runs, dataset = self.outputs / "runs", self.choices["dataset"]
        earlier = [old for (group, old), new in RENAMED.items() if (group, new) == ("dataset", dataset)]
        places = [runs / _make_safe(each) / f"{name}-{self.id}" for each in (dataset, *earlier)]
        return next((place for place in places[1:] if place.is_dir()), places[0])

    @property
    def lock(self) -> Path:
        """What a process holds while it makes the run: see `storage.lock.claim_lock`."""
        return self.outputs / "locks" / self.id

    @property
    def composed(self) -> bool:
        """Whether its command could be composed; where not, the words of the command are all that is known of it."""
        return "overrides" not in self.config

    @property
    def baseline(self) -> str:
        """The method to compare with: source_only, or where the source has other classes or no rows target_only."""
        return "source_only" if self.scores and self.scores.source else "target_only"

    @property
    def metric(self) -> Literal["accuracy", "r2"]:
        """The score by which runs of its task are compared, its headline: accuracy, or R² of a quantity."""
        return "accuracy" if self.data.task == "classification" else "r2"

    @property
    def headline(self) -> float | None:
        """That score of the selected checkpoint on the target's test split; None where the run has no scores."""
        return self.score("selected", "headline")

    @property
    def accuracy(self) -> float | None:
        """The same where classes are predicted; None where a quantity is."""
        return self.score("selected", "accuracy")

    def score(self, name: str, metric: str) -> float | None:
        """A metric of one of `scores`, as `selected` or `source`; None where the run has not got it."""
        metrics = getattr(self.scores, name, None)
        return metrics.get(self.metric if metric == "headline" else metric) if metrics else None

    @property
    def outputs(self) -> Path:
        return outputs_of(self.config)

    @property
    def cache(self) -> Path:
        """Where runs of the same outputs keep what they share, wherever the working folder moves to."""
        return self.outputs.absolute() / "cache"

    @property
    def features(self) -> str:
        """The folder in `cache` of what frozen backbones of this configuration make of their inputs."""
        parts = {"backbone": self.config["backbone"], "by": self.environment.versions["tl_runner"]}
        return f"features/{identify(parts, Contents(self.outputs))}"


def describe_run(config: dict[str, Any], choices: Mapping[str, str], contents: Contents | None = None) -> RunRecord:
    """The record of a composed configuration, before its run. Any configuration has one, a wrong one too.

    Runs of one command share its `contents`, so that each file is hashed once.
    """
    config = name_parts({**config, "seed": _parse_seed(config["seed"])} if "seed" in config else config)
    contents = contents or Contents(outputs_of(config))
    data = data_files.hash_data(config.get("dataset"), contents)
    numbers = {key: value for key, value in config.items() if key not in NEUTRAL}
    if "dataset" in config:
        numbers["dataset"] = data_files.identify_dataset(config["dataset"], data.digest, contents.home)
    return RunRecord(
        id=identify(numbers, contents),
        setting=identify({key: value for key, value in numbers.items() if key != "seed"}, contents),
        choices={group: rename(group, name) for group, name in choices.items()},
        seed=config.get("seed"),
        granted=config.get("granted"),
        config=config,
        data=DataInfo(files=data.digest, read={"files": data.files, "bytes": data.bytes}),
    )


def find_on_other_data(record: RunRecord) -> RunRecord | None:
    """The last run of the same configuration whose files held something else; None if this very run is there, too.

    Its files lay where those of this record do: files elsewhere are other data, not data that changed.
    """
    if not record.data.files or (record.folder / "run.json").exists():
        return None
    found, name = [], record.folder.name.removesuffix(record.id)
    for file in record.folder.parent.glob(f"{name}*/run.json"):
        try:
            other = read_record(file)
        except (OSError, ValueError):
            continue  # tables report it
        elsewhere = other.data.read is not None and other.data.files not in (None, record.data.files)
        if elsewhere and _describe_configuration(other) == _describe_configuration(record):
            found.append((other.status == "ok", file.stat().st_mtime, other))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _describe_configuration(record: RunRecord) -> str:
    """What a run's configuration says, and where its files lie, whatever they hold."""
    numbers = {key: value for key, value in drop_later_keys(record.config).items() if key not in NEUTRAL}
    dataset = record.config.get("dataset")
    numbers["dataset"] = [data_files.drop_locations(dataset), data_files.list_locations(dataset)]
    return json.dumps(numbers, sort_keys=True, default=str)


def read_stored(record: RunRecord) -> RunRecord | None:
    """What is on disk of the same run; None where there is nothing, or nothing that can be read.

    Raises `UserError` where a later version of tl_runner wrote it, so that nobody overwrites that.
    """
    file = record.folder / "run.json"
    try:
        return read_record(file)
    except LaterSchemaError as error:
        raise UserError(f"{file} can't be replaced: {error}, or set outputs to another folder") from error
    except (OSError, ValueError):
        return None


def find_complete(record: RunRecord) -> RunRecord | None:
    """The stored record of the same run, where it ended well."""
    earlier = read_stored(record)
    return earlier if earlier and earlier.status == "ok" else None


def read_records(paths: Iterable[Path]) -> tuple[list[RunRecord], list[str]]:
    """All runs in these folders, at any depth, oldest first, and what is wrong with files that can't be read.

    Of copies of a run one counts, one that ended well if there is any: a run is no more than one seed.
    """
    found: dict[str, RunRecord] = {}
    faults, copies = [], []
    files = {file.resolve() for path in paths for file in ([path] if path.is_file() else path.rglob("run.json"))}
    for file in sorted(files, key=lambda file: (file.stat().st_mtime, file)):
        try:
            record = read_record(file)
        except (OSError, ValueError) as error:
            faults.append(f"{file} can't be read: {error}")
            continue
        if record.id in found:
            copies.append(f"{file.parent} of {found[record.id].folder}")
        if record.id not in found or found[record.id].status != "ok":
            found[record.id] = record
    if copies:
        more = f" and {len(copies) - 1} more" if len(copies) > 1 else ""
        faults.append(f"copies of runs are counted once: {copies[0]}{more}")
    return list(found.values()), faults


def find_oracle_trials(paths: Iterable[Path]) -> set[str]:
    """The ids of the runs in these folders that were trials of a search by target labels, `objective=oracle`."""
    found = set()
    for file in (file for path in paths for file in path.rglob("study.json")):
        try:
            study = json.loads(file.read_text())
            if study["objective"] == "oracle":
                found |= {Path(run).name.rpartition("-")[2] for trial in study["trials"] for run in trial["runs"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another program's file of that name
    return found


def read_record(file: Path) -> RunRecord:
    """A record from its file; raises `ValueError` if that is not what it holds. Entries of later versions are left."""
    import msgspec

    content = json.loads(file.read_text())
    if not isinstance(content, dict) or not {"id", "setting", "config", "status"} <= content.keys():
        raise ValueError("it is not the record of a run")
    schema = content.get("schema", 1)
    if isinstance(schema, int) and schema > SCHEMA:
        raise LaterSchemaError(
            f"it was written by a later version of tl_runner (schema {schema}; this one reads {SCHEMA}): update"
            " tl_runner"
        )
    if schema != SCHEMA:
        raise ValueError(f"it was written with schema {schema}, and this version reads {SCHEMA}: rerun its command")
    try:
        record = msgspec.convert({"seed": None, "granted": None, **content, "found": None}, RunRecord)
    except msgspec.ValidationError as error:
        raise ValueError(f"it is not the record of a run: {error}") from error
    if not {"dataset", "backbone", "method"} <= record.choices.keys():
        raise ValueError("it is not the record of a run")
    record.choices = {group: rename(group, name) for group, name in record.choices.items()}
    record.config = rename_parts(record.config)
    record.found = file.parent
    return record


def outputs_of(config: Mapping[str, Any]) -> Path:
    """The folder that holds `runs/` and what runs share, as a configuration names it."""
    return Path(str(config.get("outputs") or "outputs")).expanduser()


def _parse_seed(seed: Any) -> Any:
    """A seed as a number, however it was typed: 0, 0.0 and "00" are one run. What is none is left for the check."""
    try:
        return int(seed) if not isinstance(seed, bool) and float(seed) == int(seed) else seed
    except (TypeError, ValueError, OverflowError):
        return seed


def _make_safe(name: str) -> str:
    """A name that stays inside its folder, whatever was typed."""
    return re.sub(r"[^\w.%+-]+", "_", name).lstrip(".")[:40] or "_"
