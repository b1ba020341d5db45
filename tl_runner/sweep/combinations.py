"""All combinations of a command line's values as composed jobs, for commands that Hydra does not run."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from tl_runner import options
from tl_runner.engine.job import Job
from tl_runner.errors import UserError, nearest
from tl_runner.storage.contents import Contents
from tl_runner.storage.record import outputs_of
from tl_runner.sweep.command import make_job
from tl_runner.sweep.compose import read_composed


def compose_combinations(words: Sequence[str], folders: Sequence[Path], used: Sequence[str]) -> list[Job]:
    """A job for each combination of the values that the words list, composed as `tl-run -m` would, each run once.

    `folders` hold options beside ours. `used` are the groups and keys that the command does something with; `UserError`
    where the words set another that there is, whose value would be ignored. Errors of Hydra's are raised as they are.
    """
    listed = [_list_values(override, used) for override in OverridesParser.create().parse_overrides(list(words))]
    places = ",".join(f"file://{folder.resolve()}" for folder in folders)
    search = [f"hydra.searchpath=[{places}]"] if folders else []
    jobs: dict[str, Job] = {}
    contents: Contents | None = None
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        for overrides in product(*listed):
            composed = compose("config", overrides=[*search, *overrides], return_hydra_config=True)
            contents = contents or Contents(outputs_of(composed))
            job = make_job(read_composed(composed, composed.hydra), list(words), contents)
            jobs.setdefault(job.record.id, job)
    return list(jobs.values())


def _list_values(override: Override, used: Sequence[str]) -> list[str]:
    """The override as it is, or one for each of its values; raises `UserError` where it is for nothing, or endless."""
    said, key = str(override.input_line), override.get_key_element()
    head = key.lstrip("+~").partition(".")[0].partition("@")[0]
    known = {*options.defaults(), *options.read_settings().keys, "hydra"}
    if head not in known:
        raise UserError(f"unknown key {head}{nearest(head, used)} (possible: {', '.join(used)})")
    if head in known - {*used}:
        raise UserError(f"{said} does nothing here, where no method is trained (possible: {', '.join(used)})")
    if not override.is_sweep_override():
        return [said]
    if override.is_interval_sweep():
        raise UserError(f"{said}: an interval has no list of values to try: name them, as in {key}=1,2")
    values = list(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise UserError(f"{said}: there is no value in it")
    return [f"{key}={value}" for value in values]
