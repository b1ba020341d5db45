"""tl-run: make runs."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner import experiments, options
from tl_runner.cli.process import INTERRUPTED, ensure_streams, extend_path
from tl_runner.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from tl_runner.storage.contents import Contents
    from tl_runner.storage.record import RunRecord
    from tl_runner.sweep.command import Command

SHOW = {"--cfg", "-c", "--info", "-i", "--hydra-help"}  # Hydra's switches that run nothing
VALUED_FLAGS = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--cfg", "-c"}


def main() -> None:
    """The command `tl-run`."""
    ensure_streams()
    words = sys.argv[1:]
    folders = _config_dirs(words)
    if {"-h", "--help"} & set(words):
        try:
            print(_help(words, folders))
        except UserError as error:
            sys.exit(f"error: {error}")
        except BrokenPipeError:  # the reader has seen enough, as `head` has
            sys.exit(1)
    elif "--version" in words:
        from importlib.metadata import version

        print("tl_runner", version("tl_runner"))
    else:
        try:
            sys.exit(_compose_and_run(words, folders))
        except KeyboardInterrupt:  # before anything was begun
            sys.exit(INTERRUPTED)


def _help(words: Sequence[str], folders: Sequence[Path]) -> str:
    """The text of `tl-run --help`, of options that the words name, or of all experiments."""
    said = [word for word in words if "=" in word and not word.startswith("-")]
    groups = {*options.defaults(), "hydra/launcher", "hydra/sweeper", experiments.KEY}
    if asked := [word for word in said if word.partition("=")[0] in groups] or said:
        return options.detail(asked, folders)
    return experiments.describe_experiments(folders) if experiments.KEY in words else options.overview(folders)


def _config_dirs(words: Sequence[str]) -> list[Path]:
    """The folders of options: ours, then the one that Hydra's --config-dir (-cd) names."""
    named = [after for word, after in pairwise(words) if word in ("--config-dir", "-cd")]
    named += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return [options.conf(), *map(Path, named)]


def put_overrides_first(words: Sequence[str]) -> list[str]:
    """The same words with all overrides before Hydra's flags and the values of these.

    Hydra's parser takes overrides in one piece: it refuses those that follow a flag which follows overrides.
    """
    overrides, flags = [], []
    for before, word in pairwise(["", *words]):
        # the value of --info may be left out
        is_value = before in VALUED_FLAGS or (before in ("--info", "-i") and "=" not in word)
        (flags if is_value or word.startswith("-") else overrides).append(word)
    return [*overrides, *flags]


def _compose_and_run(words: Sequence[str], folders: Sequence[Path]) -> int:
    """Let Hydra compose one job or many and make each of them; the exit code."""
    import hydra

    from tl_runner.cli.hydra_errors import reword_error
    from tl_runner.engine.job import FULL_ERROR
    from tl_runner.report.consoles import complain, consoles, show_warnings
    from tl_runner.sweep.command import Command

    console, errors = consoles()
    show_warnings(errors)
    full_error = os.environ.get(FULL_ERROR, "0") not in ("", "0")
    os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would else print in its own way and exit on
    task = Command(list(words), full_error)
    try:
        read = task.take_lines(folders)
        if task.lines and SHOW & set(words):
            what = "an experiment" if task.experiments else "pairs="
            raise UserError(f"{what} has several configurations: dry=true lists its runs")
    except UserError as error:
        complain(errors, str(error))
        return 1
    _end_in_order(task)
    try:
        extend_path(folders[1:])
        sys.argv[1:] = put_overrides_first(read)
        register_plugins()
        hydra.main(version_base="1.3", config_path="pkg://tl_runner.conf", config_name="config")(task)()
        if task.refusal:
            raise task.refusal
    except KeyboardInterrupt:
        complain(errors, "terminated. Completed runs are kept; rerun the command to resume the others")
        return INTERRUPTED
    except Exception as error:
        if full_error:
            raise
        if task.working:  # the launcher failed, no run: what each of them left is on record
            complain(errors, f"{type(error).__name__}: {error}")
        else:
            message = reword_error(error, task.words, folders)
            complain(errors, message) if task.experiments else _refuse(words, message, errors)
        return 1
    _show(task, console)
    if any(outcome.what in ("stopped", "queued") for outcome in task.outcomes):
        complain(errors, "stopped. Rerun the same command to resume", "note: ", "yellow")
        return INTERRUPTED
    return int(any(outcome.failed for outcome in task.outcomes))


def _end_in_order(task: "Command") -> None:
    """On Ctrl-C or SIGTERM running jobs stop at their next points; the second time, immediately."""

    def end(*_: object) -> None:
        if task.stopping or not task.working:
            raise KeyboardInterrupt
        task.stopping = True
        os.write(2, b"\nstopping at the next point, with a checkpoint; press Ctrl-C again to stop immediately\n")

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def register_plugins() -> None:
    """Hydra's own search misses packages that are installed to be edited; it must come first all the same."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.plugin import Plugin

    known = Plugins.instance()
    for name in ("launcher", "sweeper", "search"):
        module = import_module(f"hydra_plugins.tl_runner.{name}")
        for plugin in vars(module).values():
            if isinstance(plugin, type) and issubclass(plugin, Plugin) and plugin.__module__ == module.__name__:
                known.register(plugin)
    for name in ("ray", "submitit"):
        import_module(f"hydra_plugins.tl_runner.{name}").register()


def _show(task: "Command", console: "Console") -> None:
    """What became of the runs; of an experiment's, their comparison."""
    from tl_runner.report import tables

    multirun = {"-m", "--multirun"} & set(task.words) != set()
    listed = [outcome for outcome in task.outcomes if outcome.failed or not task.experiments] if multirun else []
    if listed:
        console.print(tables.outcomes(listed, console.width))
    if task.experiments:
        _compare(task, console)
    elif task.lines:
        _show_matrices([outcome.record for outcome in task.outcomes], console)
    for text in task.said:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for outcome in task.outcomes if not multirun else ():
        if outcome.what in ("ran", "skipped") and not outcome.failed:
            baseline = _baseline(outcome.record, task.contents)
            tables.print_result(console, outcome.record, baseline, task.words)


def _compare(task: "Command", console: "Console") -> None:
    """The comparison of an experiment's runs, what is claimed of them, and what was seen when it was last measured."""
    from tl_runner.report import tables
    from tl_runner.report.caveats import list_caveats
    from tl_runner.report.contrasts import contrast
    from tl_runner.report.leaderboard import build_leaderboard
    from tl_runner.report.ranking import rankings
    from tl_runner.report.settings import group_settings
    from tl_runner.storage.record import read_records

    found, _ = read_records({outcome.record.folder for outcome in task.outcomes})
    if not found:
        return
    board = build_leaderboard(found)
    cautions = list_caveats(found, board)
    console.print(*tables.render_leaderboard(board, list(rankings(found)), cautions, console.width), sep="\n")
    _show_matrices(found, console)
    asked = [pair for each in task.experiments for pair in each.compare]
    if contrasts := list(contrast(group_settings(found), asked)):
        console.print(tables.render_contrasts(contrasts))
    for each in task.experiments:
        console.print(
            *(f"{each.name}, {told}" for told in each.told), sep="\n", highlight=False, markup=False, soft_wrap=True
        )


def _show_matrices(records: "Sequence[RunRecord]", console: "Console") -> None:
    """Sources against targets, where these runs are about several pairs of domains."""
    from tl_runner.report import tables
    from tl_runner.report.domain_matrix import build_matrices

    console.print(*map(tables.render_matrix, build_matrices(records)), sep="\n")


def _baseline(record: "RunRecord", contents: "Contents | None") -> "RunRecord | None":
    """The baseline's finished run on the same data that differs in the method alone, or also in its label budget."""
    from tl_runner.storage.record import describe_run, find_complete

    choices = {**record.choices, "method": record.baseline}
    if choices == record.choices:
        return None
    method = {"_target_": record.baseline}
    same = int(record.granted) if str(record.granted).isdigit() else record.granted
    tried = [
        describe_run({**record.config, "method": method, "granted": g}, choices, contents) for g in (same, "auto", 0)
    ]
    for described in tried:
        described.config = {**described.config, "outputs": str(record.folder.parents[2])}  # wherever it lies now
    found = filter(None, map(find_complete, tried))
    return next((run for run in found if run.data.fingerprint == record.data.fingerprint), None)


def _refuse(words: Sequence[str], message: str, errors: "Console") -> None:
    """Say why nothing could be composed, and keep a record of the attempt, so that reports say it too."""
    from tl_runner.cli.failed_command import record_attempt
    from tl_runner.report.consoles import complain

    if SHOW & set(words):
        complain(errors, message)
        return
    try:
        record_attempt(words, message)
        complain(errors, message)
    except OSError as error:
        complain(errors, f"{message}\nNo record could be kept: {error}")
