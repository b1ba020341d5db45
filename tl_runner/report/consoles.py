"""Where results and complaints are printed."""

import logging
import os
import sys
from typing import IO, Any

from rich.console import Console
from rich.text import Text

PAGE = 190  # columns of a table that is not printed on a terminal


class Outlet:
    """A stream that falls silent when it can't be written any more – a closed pipe, a full disk – and ends no run."""

    def __init__(self, stream: IO[str], number: int):
        self.stream, self.number = stream, number

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            return self._silence(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._silence("")

    def _silence(self, text: str) -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.number)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def consoles() -> tuple[Console, Console]:
    """For results and for errors. Files and pipes take tables of any width; a notebook gets plain lines."""
    results: Any = Outlet(sys.stdout, 1)
    errors: Any = Outlet(sys.stderr, 2)
    notebook = Console(file=results).is_jupyter  # whose streams say that they are terminals
    drawn: dict[str, Any] = {"force_jupyter": False, "force_terminal": False if notebook else None}
    width = None if (results.isatty() and not notebook) or "COLUMNS" in os.environ else PAGE
    return Console(file=results, width=width, **drawn), Console(file=errors, **drawn)


def show_warnings(errors: Console) -> None:
    """Print each warning of the package once. Errors are printed by the code that catches them."""
    from rich.logging import RichHandler

    handler = RichHandler(logging.WARNING, console=errors, show_time=False, show_path=False)
    handler.addFilter(lambda entry: entry.levelno < logging.ERROR)  # run.log has it whole
    said: set[str] = set()
    handler.addFilter(lambda entry: entry.getMessage() not in said and not said.add(entry.getMessage()))
    logging.getLogger("tl_runner").addHandler(handler)


def complain(console: Console, message: str, kind: str = "error: ", style: str = "bold red") -> None:
    """Say what is wrong; whatever it holds, no control sequence of it reaches the terminal."""
    plain = "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in message)
    console.print(Text.assemble((kind, style), plain), soft_wrap=True, highlight=False)
