"""Which jobs of a sweep can be made as a group, by one process and as one stack: told by their configurations.

Jobs of a group have the same data, backbone and method, and differ in their seed and in numbers: see `training.stack`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from tl_runner.engine.job import Job, Outcome
from tl_runner.option_names import name_parts
from tl_runner.plurals import count_noun
from tl_runner.storage.sections import FUSED
from tl_runner.sweep.slots import Slot

# Methods whose terms a test compares under a stack with each run alone, and their options that may differ within one.
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "source_only": (),
    "target_only": (),
    "mmd": ("weight",),
    "coral": ("weight",),
    "dann": ("weight", "lr_critic"),
    "finetune": ("lr_decay",),
    "l2sp": ("weight_backbone", "weight_head"),
    "balanced": ("gamma",),
    "feature_extract": ("C", "k"),
}
OF_FEATURES = ("feature_extract",)  # which train on what a backbone has computed once, whatever it is
BACKBONES = ("mlp", "linear", "identity")  # convolutions train slower in a stack than alone
GROUPS_OF_NUMBERS = ("optimizer", "schedule")  # of which every number may differ
MEMBERS, LARGE_MEMBERS = 32, 8  # of a group at most; each holds its network, and a large backbone with it
DROPOUT = "dropout draws from the process's generator"
UNTRAINED = "it ended before it trained"
FEWEST = 4  # members of a part, when a group is split so that every core has one


class Groups(NamedTuple):
    """The jobs of a sweep in groups, and why some are alone, by their folders."""

    jobs: list[list[Job]]
    alone: dict[Path, str]

    @property
    def fused(self) -> int:
        """How many jobs are in groups of several."""
        return sum(len(group) for group in self.jobs if len(group) > 1)


def group_jobs(jobs: Sequence[Job], places: Sequence[Slot]) -> Groups:
    """Jobs that are alike, together; at least one group for each place where there are enough."""
    alike: dict[str, list[Job]] = {}
    single, alone = list[list[Job]](), dict[Path, str]()
    on_gpu = any(place.device for place in places)
    for job in jobs:
        if why := explain_alone(job.record.config, on_gpu):
            single.append([job])
            alone[job.record.folder] = why
        else:
            alike.setdefault(_describe_likeness(job.record.config), []).append(job)
    found: list[list[Job]] = []
    for members in alike.values():
        if len(members) == 1:
            alone[members[0].record.folder] = "no other run is like it"
        found += _split(members, len(places))
    return Groups([*found, *single], alone)


def explain_alone(config: Mapping[str, Any], on_gpu: bool = False) -> str | None:
    """Why this run can't be in a stack; None where it can. `on_gpu`: device=auto means a GPU here."""
    named = name_parts(config)
    method, backbone, train = named["method"], named["backbone"], named["train"]
    name, network = method["_target_"], backbone["_target_"]
    checks: Iterable[tuple[bool, str]] = (
        (name not in NUMBERS, f"method={name} is not known to train in a stack"),
        (name not in OF_FEATURES and network not in BACKBONES, f"backbone={network} trains faster alone"),
        (method.get("head", "linear") != "linear", f"method.head={method.get('head')} takes no steps"),
        (bool(backbone.get("dropout")), f"{DROPOUT}: set backbone.dropout=0 to fuse"),
        (bool(method.get("dropout")), f"{DROPOUT}: set method.dropout=0 to fuse"),
        (config.get("shares") != "none", f"shares={config.get('shares')} changes what is drawn"),
        (config.get("timeout") is not None, "timeout= is of one run"),
        (config.get("device") != "cpu" and (on_gpu or config.get("device") != "auto"), "stacks are for a CPU"),
        (train.get("precision") != "fp32" or bool(train.get("compile")), "train.precision and train.compile"
         " are for one network at a time"),
        (bool(train.get("channels_last")), "train.channels_last is for one network at a time"),
        (method.get("wise", 1.0) != 1.0, "method.wise keeps the weights that fine-tuning started from"),
        (bool(method.get("lora_rank")), "method.lora_rank adds adapters"),
    )  # fmt: skip
    return next((why for applies, why in checks if applies), None)


def describe_fused(outcomes: Sequence[Outcome], groups: Groups) -> str:
    """One line for the user: how many of the runs that were made trained in stacks, and why others did not.

    Empty where none was made.
    """
    made = [outcome for outcome in outcomes if outcome.what == "ran"]
    if not made:
        return ""
    single = [outcome for outcome in made if outcome.record.environment.engine != FUSED]
    reasons = Counter(each.alone or groups.alone.get(each.record.folder) or UNTRAINED for each in single)
    told = f"fused: {count_noun(len(made) - len(single), 'run')} of {len(made)} that were made"
    why = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
    return f"{told}; alone: {why}" if why else told


def _describe_likeness(config: Mapping[str, Any]) -> str:
    """What members of a group have in common: all but seeds and numbers."""
    named = name_parts(config)
    left = {key: value for key, value in named.items() if key != "seed"}
    for group in GROUPS_OF_NUMBERS:
        left[group] = {key: value for key, value in named[group].items() if not _is_number(value)}
    may_differ = NUMBERS[named["method"]["_target_"]]
    left["method"] = {key: value for key, value in named["method"].items() if key not in may_differ}
    left["train"] = {key: value for key, value in named["train"].items() if key != "clip"}
    return json.dumps(left, sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _split(members: Sequence[Job], places: int) -> list[list[Job]]:
    """Groups of nearly equal size, by seed: runs of one seed read the same rows."""
    ordered = sorted(members, key=lambda job: job.record.seed)
    network = name_parts(members[0].record.config)["backbone"]["_target_"]
    most = MEMBERS if network in BACKBONES else LARGE_MEMBERS
    count = max(ceil(len(ordered) / most), min(places, len(ordered) // FEWEST), 1)
    ends = [round(len(ordered) * part / count) for part in range(count + 1)]
    return [ordered[first:end] for first, end in pairwise(ends)]
