"""tl-report: compare runs."""

import argparse
import sys
from pathlib import Path

from tl_runner.cli.standing import stand

EXAMPLES = """examples
  tl-report                                  all runs below outputs/
  tl-report outputs/runs/digits other/       those of several folders
  tl-report --format markdown > table.md     to paste
  tl-report --format csv > table.csv         the numbers, accuracies in [0, 1]"""


def main() -> None:
    """The command `tl-report`."""
    stand()
    parser = argparse.ArgumentParser(
        prog="tl-report",
        description="Which method won, by how much, and is it real? Compares all runs found in these folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[Path("outputs")])
    parser.add_argument("--format", choices=["table", "markdown", "csv", "json", "latex"], default="table")
    said = parser.parse_args()
    from tl_runner.report import formats, tables
    from tl_runner.report.caveats import caveats
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.leaderboard import leaderboard
    from tl_runner.report.ranking import rankings
    from tl_runner.store import records, searched_by_labels

    missing = [str(path) for path in said.paths if not path.exists()]
    found, faults = records(path for path in said.paths if path.exists())
    console, errors = consoles()
    for fault in [*(f"{path} does not exist" for path in missing), *faults]:
        complain(errors, fault, "warning: ", "yellow")
    if not found:
        complain(errors, f"no runs in {', '.join(map(str, said.paths))}; tl-run makes some")
        sys.exit(1)
    board = leaderboard(found, searched_by_labels(said.paths))
    ranked, cautions = list(rankings(board)), caveats(found, board)
    if said.format == "table":
        console.print(*tables.leaderboard(board, ranked, cautions, console.width), sep="\n")
    else:
        console.file.write(formats.written(said.format, board, ranked, cautions))
    sys.exit(1 if missing else 0)
