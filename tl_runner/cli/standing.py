"""What every command stands on."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tl_runner import menu
from tl_runner.errors import Refused


def stand() -> None:
    """A folder to work in, and three streams: else files that are opened take the places of those that were closed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        sys.exit("error: the working folder is not there any more: change to one that is")
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")


def admit(folders: Sequence[Path]) -> None:
    """Let parts be found in the working folder and beside a user's options, behind all that is installed."""
    for folder in folders:
        if taken := menu.shadowed(folder):
            raise Refused(f"{folder} holds options with the name of one of ours: rename {', '.join(taken)}")
    sys.path.extend(str(folder.resolve()) for folder in (Path(), *folders))
