"""docs/report.png: the first screen of the HTML report, of a small sweep or of runs that exist.

Needs a Chromium (apt-get install chromium) and the extra [test], which has Playwright.

    python scripts/make_report_picture.py                        # runs a sweep of fifteen runs first: minutes
    python scripts/make_report_picture.py --outputs outputs      # of the runs there
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent.parent / "docs" / "report.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE = {"width": 1180, "height": 1030}
MOST_BYTES = 200_000


def run(command: str, *words: str, outputs: Path) -> None:
    """One of our commands, from the environment of this Python."""
    subprocess.run(
        [str(Path(sys.executable).with_name(command)), *words], cwd=outputs.parent, check=True, env=os.environ
    )


def take_picture(page: Path, picture: Path, height: int) -> None:
    """A screenshot of the top of the page. The sandbox of Chromium needs a user that is not root."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": SIZE["width"], "height": height}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.screenshot(path=str(picture))
        browser.close()
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="a folder of finished runs; without it a sweep is run")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--height", type=int, default=SIZE["height"])
    asked = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        outputs = asked.outputs.resolve() if asked.outputs else Path(folder) / "outputs"
        if not asked.outputs:
            run("tl-run", "-m", "method=source_only,mmd,dann", "seed=0,1,2,3,4", outputs=outputs)
        page = Path(folder) / "report.html"
        run("tl-report", str(outputs), "--html", str(page), outputs=outputs)
        take_picture(page, asked.picture, asked.height)
    size = asked.picture.stat().st_size
    print(f"{asked.picture}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 1000:.0f} kB: use a smaller --height")


if __name__ == "__main__":
    main()
