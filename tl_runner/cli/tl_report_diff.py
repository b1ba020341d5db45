"""tl-report diff: what differs between two runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun, pluralize

if TYPE_CHECKING:
    from tl_runner.storage.record import RunRecord

EXAMPLES = """\
examples:
  tl-report diff outputs/runs/digits/mmd-small-s0-1a2b3c4d5e outputs/runs/digits/mmd-small-s1-5e4d3c2b1a
  tl-report ./diff        the runs in a folder that is named diff
"""


def diff(words: Sequence[str]) -> None:
    """The command `tl-report diff`; ends the process with 1 where a run can't be read."""
    parser = argparse.ArgumentParser(
        prog="tl-report diff",
        description="What differs between two runs – configuration, code, data, libraries, machine, scores – and what"
        " may explain it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="the folder of a run, or its run.json")
    paths = parser.parse_args(words).runs
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.side_by_side import side_by_side

    console, errors = consoles()
    try:
        if len(paths) != 2:
            folder = "; the folder of that name is ./diff" if Path("diff").is_dir() else ""
            raise UserError(f"diff compares two runs, as in tl-report diff RUN1 RUN2; it got {len(paths)}{folder}")
        if Path("diff").is_dir():
            complain(errors, "diff is treated as the command; the folder of that name is ./diff", "note: ", "yellow")
        first, second = map(_run, paths)
        console.print(*side_by_side(first, second), sep="\n")
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise
        complain(errors, str(error))
        sys.exit(1)


def _run(path: Path) -> "RunRecord":
    """The record of the run in this folder; raises `UserError` where there is none."""
    from tl_runner.storage.record import read_record

    file = path / "run.json" if path.is_dir() else path
    try:
        return read_record(file)
    except FileNotFoundError as error:
        if path.is_dir():
            inside = sum(1 for _ in path.rglob("run.json"))
            more = f"; {count_noun(inside, 'run')} {pluralize(inside, 'lies')} below it: name one" if inside else ""
            raise UserError(f"{path} holds no run: it has no run.json{more}") from error
        beside = [str(path.parent / each.name) for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist{nearest(str(path), beside)}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}") from error
