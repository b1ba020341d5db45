"""What every command stands on."""

import os
import sys
from pathlib import Path


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
