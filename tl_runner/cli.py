"""tl-run and tl-report: from the words of a command line to the functions of the package, and back to words."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_runner import menu
from tl_runner.errors import Diverged, Refused

if TYPE_CHECKING:
    from rich.console import Console

    from tl_runner.store import RunRecord

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch for tracebacks serves for ours too
PAGE = 150  # columns of a table that is not printed on a terminal
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended
BASELINES = {
    "source_only": "tl_runner.methods.source_only.SourceOnly",
    "target_only": "tl_runner.methods.target_only.TargetOnly",
}
SHOW = {"--cfg", "-c", "--info", "-i", "--hydra-help"}  # Hydra's switches that run nothing


def main() -> None:
    """The command `tl-run`."""
    words = sys.argv[1:]
    folders = _config_dirs(words)
    if {"-h", "--help"} & set(words):
        asked = [word for word in words if "=" in word and not word.startswith("-")]
        try:
            print(menu.detail(asked, folders) if asked else menu.overview(folders))
        except Refused as error:
            sys.exit(f"error: {error}")
    elif "--version" in words:
        from importlib.metadata import version

        print("tl_runner", version("tl_runner"))
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, a run says so like by Ctrl-C
        sys.exit(_compose_and_run(words, folders))


def report() -> None:
    """The command `tl-report`."""
    parser = argparse.ArgumentParser(prog="tl-report", description="Compare all runs found in these folders.")
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[Path("outputs")])
    paths = parser.parse_args().paths
    from tl_runner.report import tables
    from tl_runner.report.leaderboard import leaderboard
    from tl_runner.store import records

    missing = [str(path) for path in paths if not path.exists()]
    found, faults = records(path for path in paths if path.exists())
    console, errors = _consoles()
    for fault in [*(f"{path} does not exist" for path in missing), *faults]:
        _complain(errors, fault, "warning: ", "yellow")
    if not found:
        _complain(errors, f"no runs in {', '.join(map(str, paths))}; tl-run makes some")
        sys.exit(1)
    console.print(*tables.leaderboard(leaderboard(found), console.width), sep="\n")
    sys.exit(1 if missing else 0)


def _consoles() -> "tuple[Console, Console]":
    """For results and for errors. A file or a pipe takes wide tables as they are; a closed one ends no run."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PAGE)

    def closed() -> None:
        console.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    console.on_broken_pipe = closed
    return console, Console(stderr=True)


def _config_dirs(words: Sequence[str]) -> list[Path]:
    """The folders of options: ours, then the one that Hydra's --config-dir (-cd) names."""
    named = [after for word, after in pairwise(words) if word in ("--config-dir", "-cd")]
    named += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return [menu.conf(), *map(Path, named)]


def _compose_and_run(words: Sequence[str], folders: Sequence[Path]) -> int:
    """Let Hydra compose one job or many and make each of them; the exit code."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from rich.logging import RichHandler

    from tl_runner.rewording import reworded

    console, errors = _consoles()
    handler = RichHandler(logging.WARNING, console=errors, show_time=False, show_path=False)
    handler.addFilter(lambda entry: entry.levelno < logging.ERROR)  # an error is told in words; run.log has it whole
    logging.getLogger("tl_runner").addHandler(handler)
    full_error = os.environ.get(FULL_ERROR, "0") not in ("", "0")
    os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would else print in its own way and exit on
    made: list[tuple[RunRecord | None, str]] = []
    multirun = False

    def job(composed: Any) -> None:  # Hydra sees no error of ours: it would add a line of its own
        nonlocal multirun
        multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        variant = menu.variant(HydraConfig.get().overrides.task, words) if multirun else ""
        try:
            made.append((_make(_describe(composed), console, errors, full_error, multirun, variant), variant))
        except Exception as error:
            if full_error:
                raise
            made.append((None, variant))
            _refuse(words, str(error), errors)

    try:
        _admit(folders[1:])
        sys.argv[1:] = menu.settled(words)
        hydra.main(version_base="1.3", config_path="pkg://tl_runner.conf", config_name="config")(job)()
    except KeyboardInterrupt:
        _complain(errors, "interrupted; the runs that had ended are kept")
        return INTERRUPTED
    except Exception as error:
        if full_error:
            raise
        _refuse(words, reworded(error, words, folders), errors)
        return 1
    described = [(record, variant) for record, variant in made if record]
    if multirun and described:
        from tl_runner.report import tables

        console.print(tables.outcomes(*zip(*described, strict=True)))
    return int(any(record is None or record.status != "ok" for record, _ in made))


def _admit(folders: Sequence[Path]) -> None:
    """Let parts be found in the working folder and beside a user's options, behind all that is installed."""
    for folder in folders:
        if taken := menu.shadowed(folder):
            raise Refused(f"{folder} holds options with the name of one of ours: rename {', '.join(taken)}")
    sys.path.extend(str(folder.resolve()) for folder in (Path(), *folders))


def _describe(composed: Any) -> "RunRecord":
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from tl_runner.store import describe

    config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    chosen = HydraConfig.get().runtime.choices
    choices: dict[str, str] = {}
    for group in ("dataset", "backbone", "method"):
        if not isinstance(chosen.get(group), str):
            raise Refused(f"{group} takes one option, as in {group}={menu.defaults()[group]}")
        choices[group] = chosen[group]
    return describe({str(key): value for key, value in config.items()}, choices)


def _make(
    record: "RunRecord", console: "Console", errors: "Console", full_error: bool, brief: bool, variant: str
) -> "RunRecord":
    """One job: the stored result where its run was made before, else the run. Failing ends this job only."""
    from tl_runner.report import tables

    names = " ".join(filter(None, [*record.choices.values(), variant, f"seed={record.seed}"]))
    try:
        if earlier := _made_before(record, errors):
            console.print(
                f"{names}: made before, nothing was trained (force=true runs it again)", highlight=False, markup=False
            )
            record = earlier
        else:
            from tl_runner.report.live import watch
            from tl_runner.run import run

            if brief:
                console.print(names, style="bold", highlight=False, markup=False)
            record = watch(run(record), record, console)
    except Exception as error:
        if full_error:
            errors.print_exception()
        record.status = "failed" if record.status == "running" else record.status  # it may have no folder to say so
        _complain(errors, _told(error, record))
        return record
    if not brief:
        console.print(*tables.result(record, _baseline(record)), sep="\n")
    return record


def _made_before(record: "RunRecord", errors: "Console") -> "RunRecord | None":
    """The finished run of the same identity, unless it must be made again; what has changed since is said."""
    from tl_runner.config import settings
    from tl_runner.identity import stamp
    from tl_runner.store import finished, whereabouts

    earlier = finished(record)
    if earlier is None:
        return None
    wanted = settings(record.config)
    if wanted.force:
        return None
    if wanted.save and not (earlier.folder / "model.safetensors").exists():
        _complain(errors, "made before, but its weights are not there; made again for them", "note: ", "yellow")
        return None
    then, now = earlier.where.get("versions", {}), whereabouts()["versions"]
    changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    if wanted.device != "auto" and not str(earlier.where.get("device")).startswith(wanted.device):
        changed.append(f"device {earlier.where.get('device')} then, {wanted.device} now")
    if earlier.where.get("files") != stamp(record.config["dataset"]):
        changed.append("files of the dataset changed since")
    if changed:
        _complain(errors, f"the stored run was made otherwise: {'; '.join(changed)}", "note: ", "yellow")
    return earlier


def _baseline(record: "RunRecord") -> "RunRecord | None":
    """The baseline's finished run on the same data that differs in the method alone, or also in its label budget."""
    from tl_runner.store import describe, finished

    choices = {**record.choices, "method": record.baseline}
    if choices == record.choices:
        return None
    method = {"_target_": BASELINES[record.baseline]}
    same = int(record.granted) if str(record.granted).isdigit() else record.granted
    tried = [describe({**record.config, "method": method, "granted": g}, choices) for g in (same, "auto", 0)]
    for described in tried:
        described.config = {**described.config, "outputs": str(record.folder.parents[2])}  # wherever it lies now
    found = filter(None, map(finished, tried))
    return next((run for run in found if run.data.get("fingerprint") == record.data.get("fingerprint")), None)


def _told(error: Exception, record: "RunRecord") -> str:
    """An error for a person; one that was not meant for them comes with its kind and the place of the traceback."""
    if isinstance(error, Refused | Diverged):
        return str(error)
    log = record.folder / "run.log"
    return f"{type(error).__name__}: {error}" + (f"\nThe traceback is in {log}" if log.exists() else "")


def _refuse(words: Sequence[str], message: str, errors: "Console") -> None:
    """Say why nothing could be composed, and keep a record of the attempt, so that it is in the tables too."""
    from tl_runner.store import describe, recording

    if SHOW & set(words):
        _complain(errors, message)
        return
    typed = menu.typed(words)
    outputs = typed.get("outputs", "outputs")
    record = describe(
        {"overrides": list(words), "outputs": "outputs" if outputs == "null" else outputs}, menu.chosen(words)
    )
    record.seed, record.granted = typed.get("seed", "0"), typed.get("granted", "auto")
    try:
        with recording(record):
            raise Refused(message)
    except Refused:
        _complain(errors, message)
    except OSError as error:
        _complain(errors, f"{message}\nNo record could be kept: {error}")


def _complain(console: "Console", message: str, kind: str = "error: ", style: str = "bold red") -> None:
    from rich.text import Text

    console.print(Text.assemble((kind, style), message), soft_wrap=True, highlight=False)
