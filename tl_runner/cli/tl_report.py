"""tl-report: compare runs."""

import argparse
import sys
from pathlib import Path

from tl_runner.cli.process import ensure_streams, run_command
from tl_runner.cli.tl_report_diff import diff
from tl_runner.errors import UserError

EXAMPLES = """examples
  tl-report                                  all runs below outputs/
  tl-report outputs/runs/digits other/       those of several folders
  tl-report --format markdown > table.md     to paste
  tl-report --format csv > table.csv         the numbers, accuracies in [0, 1]
  tl-report --html report.html               a page with figures, too; it needs no network
  tl-report --score balanced                 compare mean per-class accuracies, for classes of unequal size
  tl-report diff RUN1 RUN2                   what differs between two runs; see tl-report diff --help
  tl-report ./diff                           the runs in a folder that is named diff"""


def main() -> None:
    """The command `tl-report`."""
    ensure_streams()
    if sys.argv[1:2] == ["diff"]:
        diff(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="tl-report",
        description="Which method won, by how much, and is it real? Compares all runs found in these folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[Path("outputs")])
    parser.add_argument("--format", choices=["table", "markdown", "csv", "json", "latex"], default="table")
    parser.add_argument(
        "--score",
        choices=["headline", "accuracy", "balanced", "macro_f1", "r2", "spearman"],
        default="headline",
        help="what the tables compare; headline: accuracy, or R² of a quantity (r2); balanced: the mean accuracy of the"
        " classes",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page with tables and figures, too")
    said = parser.parse_args()
    run_command(lambda: _report(said))


def _report(said: argparse.Namespace) -> None:
    """Print the leaderboard of the runs that there are, and write the page if one is asked for."""
    from tl_runner.report import formats, tables
    from tl_runner.report.caveats import list_caveats
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.domain_matrix import build_matrices
    from tl_runner.report.leaderboard import build_leaderboard
    from tl_runner.report.ranking import rankings
    from tl_runner.storage.record import find_oracle_trials, read_records

    missing = [str(path) for path in said.paths if not path.exists()]
    console, errors = consoles()
    if said.html and (refusal := unfit(said.html)):
        raise UserError(refusal)
    found, faults = read_records(path for path in said.paths if path.exists())
    for fault in [*(f"{path} does not exist" for path in missing), *faults]:
        complain(errors, fault, "warning: ", "yellow")
    if not found:
        raise UserError(f"no runs in {', '.join(map(str, said.paths))}; create some with tl-run")
    board = build_leaderboard(found, find_oracle_trials(said.paths), said.score)
    ranked, cautions = list(rankings(found, said.score)), list_caveats(found, board)
    matrices = build_matrices(found, said.score)
    if said.format == "table":
        console.print(*tables.render_leaderboard(board, ranked, cautions, console.width), sep="\n")
        console.print(*map(tables.render_matrix, matrices), sep="\n")
    else:
        console.file.write(formats.format_leaderboard(said.format, board, ranked, cautions, matrices))
    if said.html:
        from tl_runner.report.page.render import save

        size = save(said.html, found, board, ranked, [*cautions, *faults], matrices)
        complain(errors, f"the page is {said.html}, {size / 1e6:.1f} MB", "note: ", "green")
    if missing:
        sys.exit(1)


def unfit(html: Path) -> str:
    """Why no page can be written under this name; nothing where it can. No record of a run is ever overwritten."""
    if html.suffix.lower() not in (".html", ".htm"):
        return f"--html {html}: the name of a page ends in .html"
    if html.is_dir():
        return f"--html {html} is a folder: name a file"
    return "" if html.parent.is_dir() else f"--html {html}: there is no folder {html.parent}"
