"""tl-report: compare runs."""

import argparse
import sys
from pathlib import Path

from tl_runner.cli.standing import stand


def main() -> None:
    """The command `tl-report`."""
    stand()
    parser = argparse.ArgumentParser(prog="tl-report", description="Compare all runs found in these folders.")
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[Path("outputs")])
    paths = parser.parse_args().paths
    from tl_runner.report import tables
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.leaderboard import leaderboard
    from tl_runner.store import records, searched_by_labels

    missing = [str(path) for path in paths if not path.exists()]
    found, faults = records(path for path in paths if path.exists())
    console, errors = consoles()
    for fault in [*(f"{path} does not exist" for path in missing), *faults]:
        complain(errors, fault, "warning: ", "yellow")
    if not found:
        complain(errors, f"no runs in {', '.join(map(str, paths))}; tl-run makes some")
        sys.exit(1)
    board = leaderboard(found, searched_by_labels(paths))
    console.print(*tables.leaderboard(board, console.width), sep="\n")
    sys.exit(1 if missing else 0)
