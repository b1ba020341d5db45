"""Where results and complaints are printed."""

import os
import sys

from rich.console import Console
from rich.text import Text

PAGE = 150  # columns of a table that is not printed on a terminal


def consoles() -> tuple[Console, Console]:
    """For results and for errors. A file or a pipe takes wide tables as they are; a closed one ends no run."""
    console = Console(width=None if sys.stdout.isatty() else PAGE)

    def closed() -> None:
        console.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    console.on_broken_pipe = closed
    return console, Console(stderr=True)


def complain(console: Console, message: str, kind: str = "error: ", style: str = "bold red") -> None:
    console.print(Text.assemble((kind, style), message), soft_wrap=True, highlight=False)
