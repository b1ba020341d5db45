"""The HTML report as a reader has it: in a headless Chromium, at the width of a phone and of a desk, light and dark."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.made_up_runs import made_up

from tl_runner.report.caveats import list_caveats
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.page.render import page
from tl_runner.storage.record import read_records

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for seed in (0, 1, 2):
        for method in ("source_only", "mmd", "kmm", "weighted"):
            made_up(folder, method, seed, classes=10)
    made_up(folder, "mmd", 3, status="failed")
    made_up(folder, "a_method_with_an_uncommonly_long_name_that_has_to_fold", 0, layer="x" * 60)
    made_up(folder, "a_method_with_an_uncommonly_long_name_that_has_to_fold", 0, layer="y" * 60)
    found = read_records([folder])[0]
    frame = build_leaderboard(found)
    file = folder / "report.html"
    file.write_text(page(found, frame, [], list_caveats(found, frame), datetime(2026, 11, 21, tzinfo=UTC)))
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One for all tests. Its sandbox needs a user that is not root."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: "Browser", report: Path, request: pytest.FixtureRequest) -> Iterator["Page"]:
    """The page; afterwards: it complained of nothing, and asked for nothing but itself."""
    size, scheme = getattr(request, "param", (DESK, "light"))
    tab = browser.new_page(viewport=cast(Any, size), color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    yield tab
    tab.close()
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def column(tab: "Page", title: str) -> list[str]:
    """The cells below this head, from top to bottom."""
    return tab.evaluate(
        """title => {
            const table = document.querySelector("table.board");
            const place = [...table.tHead.rows[0].cells].findIndex(head => head.innerText.trim().startsWith(title));
            return [...table.tBodies[0].rows].map(row => row.cells[place].dataset.value);
        }""",
        title,
    )


def numbers(cells: list[str]) -> list[float]:
    return [float(cell) for cell in cells if cell != "nan"]


def head(tab: "Page", title: str) -> Any:
    return tab.locator("table.board").first.locator("thead th", has_text=title).first


def test_a_click_sorts_by_value_and_says_so(opened):
    start = numbers(column(opened, "Target"))
    assert start == sorted(start, reverse=True) and head(opened, "Target").get_attribute("aria-sort") == "descending"
    head(opened, "Target").locator("button").click()
    assert numbers(column(opened, "Target")) == start[::-1] != start
    assert head(opened, "Target").get_attribute("aria-sort") == "ascending"
    head(opened, "Difference").locator("button").click()
    differences = column(opened, "Difference")
    assert numbers(differences) == sorted(numbers(differences), reverse=True) and min(numbers(differences)) < 0
    assert differences[-1] == "nan"  # the baseline's stays at the end, either way
    assert head(opened, "Target").get_attribute("aria-sort") == "none"
    head(opened, "Difference").locator("button").click()
    assert column(opened, "Difference")[-1] == "nan"


def test_the_keyboard_sorts_too(opened):
    head(opened, "Method").locator("button").focus()
    opened.keyboard.press("Enter")
    names = column(opened, "Method")
    assert names == sorted(names) and head(opened, "Method").get_attribute("aria-sort") == "ascending"
    opened.keyboard.press("Space")
    assert column(opened, "Method") == names[::-1]
    outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_first_tab_skips_to_the_results(opened):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    assert opened.locator(".skip").bounding_box()["y"] >= 0
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("opened", [(PHONE, "light"), (DESK, "light"), (PHONE, "dark"), (DESK, "dark")], indirect=True)
def test_it_fits_its_window_and_its_figures_have_size(opened, tmp_path):
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    charts = opened.evaluate(
        """[...document.querySelectorAll("svg.chart")].map(chart => {
            const box = chart.getBoundingClientRect();
            return [box.left, box.right, box.height, chart.querySelectorAll("path, circle, rect").length];
        })"""
    )
    assert len(charts) > 25
    for left, right, height, marks in charts:
        assert left >= 0 and right <= width and right - left > 100 and height > 80 and marks > 1
    pictures = "[...document.querySelectorAll('img')].every(image => image.complete && image.naturalWidth > 0)"
    assert opened.evaluate(pictures)
    scales = (
        "[...document.querySelectorAll('svg.chart')]"
        ".map(chart => chart.getBoundingClientRect().width / chart.viewBox.baseVal.width)"
    )
    bare = "figure.features svg.chart"  # two of which share a phone's width, and hold no text
    assert sum(scale < 0.75 for scale in opened.evaluate(scales)) <= opened.locator(bare).count()  # 11 px text above 8
    shot = tmp_path / "page.png"
    opened.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000


def test_light_and_dark_are_both_readable(browser, report):
    seen = {}
    for scheme in ("light", "dark"):
        tab = browser.new_page(viewport=DESK, color_scheme=scheme)
        tab.goto(report.as_uri())
        seen[scheme] = tab.evaluate(
            """Object.fromEntries([["body", "body"], ["caption", "figcaption"], ["tick", "svg.chart text"],
                ["link", "nav a"],                ["bad", ".wrong"], ["line", "svg .line.c0"]].map(([name, found]) => {
                const style = getComputedStyle(document.querySelector(found));
                return [name, name === "tick" ? style.fill : name === "line" ? style.stroke : style.color];
            }))"""
        )
        seen[scheme]["paper"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.close()
        for name, colour in seen[scheme].items():
            least = {"paper": 0.0, "line": 3.0}.get(name, 4.5)  # of WCAG 2.2 for figures, for text
            assert contrast(colour, seen[scheme]["paper"]) >= least, (scheme, name)
    assert all(seen["light"][name] != seen["dark"][name] for name in seen["light"])


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours like rgb(1, 2, 3): (L1 + 0.05) / (L2 + 0.05), L the relative luminance."""

    def luminance(colour: str) -> float:
        shares = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
