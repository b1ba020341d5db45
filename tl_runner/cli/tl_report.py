"""tl-report: compare runs."""

import argparse
import sys
from pathlib import Path

from tl_runner.cli.standing import stand
from tl_runner.cli.tl_report_diff import diff

EXAMPLES = """\
examples:
  tl-report                                   all runs below outputs/
  tl-report outputs/runs/digits --html digits.html
                                              the same as one page with figures, which needs no network
  tl-report diff RUN1 RUN2                    what differs between two runs; tl-report diff --help
  tl-report ./diff                            the runs in a folder that is named diff
"""


def main() -> None:
    """The command `tl-report`."""
    stand()
    if sys.argv[1:2] == ["diff"]:
        diff(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="tl-report",
        description="Compare all runs found in these folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[Path("outputs")])
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page with tables and figures, too")
    words = parser.parse_args()
    paths, html = words.paths, words.html
    from tl_runner.report import tables
    from tl_runner.report.consoles import complain, consoles
    from tl_runner.report.leaderboard import leaderboard
    from tl_runner.store import records, searched_by_labels

    missing = [str(path) for path in paths if not path.exists()]
    found, faults = records(path for path in paths if path.exists())
    console, errors = consoles()
    if html and (refusal := unfit(html)):
        complain(errors, refusal)
        sys.exit(1)
    for fault in [*(f"{path} does not exist" for path in missing), *faults]:
        complain(errors, fault, "warning: ", "yellow")
    if not found:
        complain(errors, f"no runs in {', '.join(map(str, paths))}; tl-run makes some")
        sys.exit(1)
    board = leaderboard(found, searched_by_labels(paths))
    console.print(*tables.leaderboard(board, console.width), sep="\n")
    if html:
        from tl_runner.report.caveats import caveats
        from tl_runner.report.page.paper import save

        size = save(html, found, board, [*caveats(found, board), *faults])
        complain(errors, f"the page is {html}, {size / 1e6:.1f} MB", "note: ", "green")
    sys.exit(1 if missing else 0)


def unfit(html: Path) -> str:
    """Why no page can be written under this name; nothing where it can. No record of a run is ever overwritten."""
    if html.suffix.lower() not in (".html", ".htm"):
        return f"--html {html}: the name of a page ends in .html"
    if html.is_dir():
        return f"--html {html} is a folder: name a file"
    return "" if html.parent.is_dir() else f"--html {html}: there is no folder {html.parent}"
