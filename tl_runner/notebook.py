"""Runs, sweeps and the leaderboard from Python, for scripts and notebooks: `tl-run`, `tl-run -m` and `tl-report`.

A call leaves the process as it was: working folder, `sys.path`, signal handlers, loggers, threads, random numbers and
Hydra's state. Nothing here needs torch or pandas before it is used.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tl_runner import options
from tl_runner.errors import DivergedError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from tl_runner.engine.job import Job
    from tl_runner.storage.record import RunRecord

T = TypeVar("T")


def run(
    overrides: Sequence[str] = (),
    *,
    outputs: str | Path | None = None,
    config_dir: str | Path | None = None,
    progress: bool = True,
) -> "RunRecord":
    """Make one run, as `tl-run` with these words does, and return its record: `run(["method=mmd", "seed=1"])`.

    The run has the id and the folder that it has on the command line. A complete one is returned as it is on disk; an
    interrupted one resumes from its checkpoint. `outputs` is the folder that holds runs/, `config_dir` one of options
    of your own (`--config-dir`). `progress` prints a dozen lines, or a live line on a terminal.

    Raises `UserError` for what can't be run; `DivergedError` where training met a number that is not finite, in this
    call or when the run was made; `LockedError` where another process makes it; else what the run raised. The record on
    disk says so, too. Ctrl-C, or a kernel's interrupt, stops the run at its next point with a checkpoint and raises
    `KeyboardInterrupt`; the second one stops it immediately.
    """
    from tl_runner.engine.job import find_skippable, run_or_skip
    from tl_runner.report.consoles import consoles
    from tl_runner.sweep.command import warn_other_data

    words = _check_words(overrides, outputs)
    if any(word.startswith("experiment=") for word in words):
        raise UserError("an experiment has several runs: make them by run_sweep")
    with _undisturbed(config_dir, progress) as folders:
        job = _compose(words, outputs, folders)
        console = consoles()[0]
        if made := find_skippable(job.record):
            console.print(f"{job.name}: already complete, skipped", highlight=False, markup=False)
        else:
            from tl_runner.report.live import watch_training

            warn_other_data([job])
            stop = threading.Event()
            with _borrowed_torch(), _interrupted_in_order(lambda: True, stop.set):
                made = watch_training(run_or_skip(job.record, stop.is_set), job.record, console)
    if made.status == "diverged":
        raise DivergedError(made.error or "the run diverged when it was made")
    return made


def run_sweep(
    overrides: Sequence[str] = (),
    *,
    outputs: str | Path | None = None,
    config_dir: str | Path | None = None,
    progress: bool = True,
) -> "list[RunRecord]":
    """Make all combinations, as `tl-run -m` with these words does: `run_sweep(["method=source_only,mmd", "seed=0,1"])`.

    `run_sweep(["experiment=smoke"])` makes the runs of a named experiment.
    Returns a record for each run, in the order in which the combinations are listed; runs that failed are among them:
    see `status` and `error`. A job that fails ends no other. The keywords are those of `run`.

    Raises `UserError` in words, before any run begins, where a combination can't be composed. Ctrl-C stops the jobs at
    their next points, with checkpoints, and raises `KeyboardInterrupt`.
    """
    from tl_runner.cli.tl_run import register_plugins
    from tl_runner.sweep.command import Command

    words = ["-m", *_check_words(overrides, outputs)]
    task = Command(words)

    def sweep() -> None:
        register_plugins()
        read = [word for word in task.take_lines(folders) if word != "-m"]
        _hydra(folders).multirun("config", task, read, with_log_configuration=False)
        if task.refusal:
            raise task.refusal

    def stop() -> None:
        task.stopping = True

    in_this_process = _borrowed_torch() if "torch" in sys.modules else nullcontext()  # as hydra/launcher=basic does
    in_order = _interrupted_in_order(lambda: task.working, stop)
    with _undisturbed(config_dir, progress) as folders, _without_main_file(), in_this_process, in_order:
        _refuse_in_words(sweep, words, outputs, folders, lambda: not task.working)
    if any(outcome.what in ("stopped", "queued") for outcome in task.outcomes):
        raise KeyboardInterrupt("stopped; call again to resume")
    return [outcome.record for outcome in task.outcomes]


def leaderboard(
    paths: str | Path | Sequence[str | Path] = "outputs",
    score: Literal["headline", "accuracy", "balanced", "macro_f1", "r2", "spearman"] = "headline",
) -> "pd.DataFrame":
    """The table of `tl-report` on the runs in these folders, a row per setting: the columns of its csv format.

    Accuracies and differences are shares, 0.01 for one point. Raises `UserError` where there are no runs.
    """
    from typing import get_args

    from tl_runner.report.leaderboard import build_leaderboard
    from tl_runner.report.statistics import Metric
    from tl_runner.storage.record import find_oracle_trials, read_records

    if score not in (known := ("headline", *get_args(Metric))):
        raise UserError(f"score takes {', '.join(known)}, got {score!r}")
    folders = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise UserError(f"there is no folder {', '.join(missing)}")
    found, faults = read_records(folders)
    for fault in faults:
        logging.getLogger("tl_runner.notebook").warning(fault)
    if not found:
        raise UserError(f"no runs in {', '.join(map(str, folders))}; create some with tl_runner.run")
    return build_leaderboard(found, find_oracle_trials(folders), score)


def _check_words(overrides: Sequence[str], outputs: str | Path | None) -> list[str]:
    """The words of a command line that these arguments stand for."""
    if isinstance(overrides, str):
        raise UserError(f"overrides are a list, as in [{', '.join(map(repr, overrides.split()))}]")
    words = [str(word) for word in overrides]
    for word in words:
        if word.startswith("-"):
            raise UserError(
                f"{word} is a switch of the command line. From Python: run_sweep for -m, config_dir= for --config-dir"
            )
        if options.parse_words([word]).get("dry", "false").lower() not in ("false", "0", "no", "off"):
            raise UserError("dry=true makes no run, so there is no record to return: use it with tl-run")
    return [*words, *([] if outputs is None else [f"outputs={_quoted(str(outputs))}"])]


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _compose(words: list[str], outputs: str | Path | None, folders: Sequence[Path]) -> "Job":
    """The order that these words are."""
    from hydra.core.hydra_config import HydraConfig

    from tl_runner.cli.tl_run import register_plugins
    from tl_runner.storage.contents import Contents
    from tl_runner.storage.record import outputs_of
    from tl_runner.sweep.command import make_job
    from tl_runner.sweep.compose import read_composed

    described: list[Job | Exception] = []

    def describe(composed: Any) -> None:
        try:
            described.append(
                make_job(read_composed(composed, HydraConfig.get()), words, Contents(outputs_of(composed)))
            )
        except Exception as error:  # Hydra would print a line of its own
            described.append(error)

    def compose() -> "Job":
        register_plugins()
        _hydra(folders).run("config", describe, words, with_log_configuration=False)
        if isinstance(described[0], Exception):
            raise described[0]
        return described[0]

    return _refuse_in_words(compose, words, outputs, folders, lambda: True)


def _hydra(folders: Sequence[Path]) -> Any:
    """What `hydra.main` makes of our configuration and of a user's --config-dir."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    version.setbase("1.3")
    path = create_config_search_path("pkg://tl_runner.conf")
    for folder in folders[1:]:
        path.prepend("command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="schema"))
    return Hydra.create_main_hydra2("tl_run", path)


def _refuse_in_words(
    work: Callable[[], T], words: list[str], outputs: str | Path | None, folders: Sequence[Path],
    composing: Callable[[], bool],
) -> T:  # fmt: skip
    """Do the work; what goes wrong while it is `composing` is refused in words, and the attempt is on record."""
    from tl_runner.cli.failed_command import record_attempt
    from tl_runner.cli.hydra_errors import reword_error

    try:
        return work()
    except Exception as error:
        if not composing():
            raise
        message = reword_error(error, words, folders).replace(
            "add -m to run each", "use tl_runner.run_sweep to run each"
        )
        try:
            record_attempt(words, message, None if outputs is None else str(outputs))
        except OSError as fault:
            message += f"\nNo record could be kept: {fault}"
        raise UserError(message) from error


@contextmanager
def _undisturbed(config_dir: str | Path | None, progress: bool) -> Iterator[list[Path]]:
    """The folders of options; afterwards the process is as it was before."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    from tl_runner.cli.process import extend_path, find_config_dir
    from tl_runner.report.consoles import consoles, show_warnings

    folders = [options.conf(), *find_config_dir(None if config_dir is None else Path(config_dir))]
    ours, home, path = logging.getLogger("tl_runner"), Path.cwd(), list(sys.path)
    handlers, level = list(ours.handlers), ours.level
    known = Singleton._instances  # but Hydra's list of plugins, which takes long to find and stays
    taken = {kind: known.pop(kind) for kind in (GlobalHydra, HydraConfig, JobRuntime, VersionBase) if kind in known}
    try:
        with ExitStack() as stack:
            if not progress:
                stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            show_warnings(consoles()[1])
            extend_path(folders[1:])
            yield folders
    finally:
        for kind in (GlobalHydra, HydraConfig, JobRuntime, VersionBase):
            known.pop(kind, None)
        known.update(taken)
        os.chdir(home)  # which a method may have left
        sys.path[:], ours.handlers[:] = path, handlers
        ours.setLevel(level)


@contextmanager
def _borrowed_torch() -> Iterator[None]:
    """Torch to train with; afterwards its threads and all random generators are as they were before."""
    import torch
    from threadpoolctl import threadpool_limits

    from tl_runner import rng

    threads, state = torch.get_num_threads(), rng.get_state()
    try:
        with threadpool_limits():
            yield
    finally:
        torch.set_num_threads(threads)
        rng.restore_state(state)


@contextmanager
def _interrupted_in_order(working: Callable[[], bool], stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop` if something is `working`; otherwise, and the second time, it interrupts immediately.

    Only the main thread hears of signals: elsewhere nothing changes.
    """
    came: list[int] = []

    def end(number: int, _: object) -> None:
        if came or not working():
            raise KeyboardInterrupt
        came.append(number)
        stop()
        print("stopping at the next point, with a checkpoint; interrupt again to stop immediately", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _without_main_file() -> Iterator[None]:
    """Workers that start within do not run the user's script again, which need not guard its calls by `__main__`."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main)["__spec__"] = None
    try:
        yield
    finally:
        vars(main).pop("__spec__")
        vars(main).update(hidden)
