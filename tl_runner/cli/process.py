"""What every command stands on, and how those that are no sweep end."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tl_runner import options
from tl_runner.errors import UserError

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def ensure_streams() -> None:
    """A folder to work in, and three streams: else files that are opened take the places of those that were closed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        sys.exit("error: the working folder no longer exists: change to one that does")
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")


def extend_path(folders: Sequence[Path]) -> None:
    """Let parts be found in the working folder and beside a user's options, behind all that is installed."""
    for folder in folders:
        if taken := options.find_shadowed(folder):
            raise UserError(f"{folder} holds options with the name of a built-in option: rename {', '.join(taken)}")
    sys.path.extend(str(folder.resolve()) for folder in (Path(), *folders))


def find_config_dir(config_dir: Path | None) -> list[Path]:
    """The folder that --config-dir names, if it does; raises `UserError` where there is none."""
    if config_dir and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    return [config_dir] if config_dir else []


def run_command(work: Callable[[], None]) -> None:
    """Do a command's work: what the package has to say goes to stderr, and an error is one line and exit code 1."""
    try:
        _spoken(work)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` has
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _spoken(work: Callable[[], None]) -> None:
    from tl_runner.report.consoles import complain, consoles

    _, errors = consoles()

    class Spoken(logging.Handler):
        said: set[str] = set()  # noqa: RUF012  (once is enough, whatever number of files it is true of)

        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            warning = record.levelno >= logging.WARNING
            if message not in self.said:
                complain(errors, message, "warning: " if warning else "note: ", "yellow" if warning else "dim")
            self.said.add(message)

    ours = logging.getLogger("tl_runner")
    ours.setLevel(logging.INFO)
    handler = Spoken()
    ours.addHandler(handler)
    try:
        work()
    except BrokenPipeError:
        raise
    except Exception as error:
        from tl_runner.engine.job import FULL_ERROR

        if os.environ.get(FULL_ERROR, "0") not in ("", "0"):
            raise
        complain(errors, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        sys.exit(1)
    finally:
        ours.removeHandler(handler)
