"""scripts/bench_weather.py: its tables say what is shown, and docs/pictures has what it draws."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.scripts import import_script

ROOT = Path(__file__).parents[2]
CELL = {"n": "5", "failed": "0", "target": "0.8", "target_sd": "0.02", "source": "0.9", "seconds": "7"}
GAIN = {"difference": "0.1", "low": "0.05", "high": "0.15"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("bench_weather", monkeypatch)


def rows(bench: ModuleType, **gains: dict[str, str]) -> list[dict[str, str]]:
    none = dict.fromkeys(GAIN, "")
    pairs = [f"road_signs {words}" for words in bench.TASKS.values()]
    methods = {bench.BASE: none, bench.CEILING: none, **gains}
    return [{"pair": pair, "label": method, **CELL, **gain} for pair in pairs for method, gain in methods.items()]


def test_differences_are_sorted_and_bold_where_their_interval_leaves_0(bench):
    lost = {"difference": "-0.2", "low": "-0.3", "high": "-0.1"}
    unsure = {"difference": "0.01", "low": "-0.02", "high": "0.04"}
    lines = [*bench.page(rows(bench, mcc=unsure, shot=lost, mmd=GAIN))]
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["`mmd`", "`mcc`", "`shot`"]
    assert lines[2].count("**+10.0 (+5.0 to +15.0)**") == len(bench.TASKS) == 5
    assert "**" not in lines[3] and lines[3].count("+1.0 (−2.0 to +4.0)") == 5
    assert lines[4].count("**−20.0 (−30.0 to −10.0)**") == 5 and lines[4].endswith("| −20.0 | 7 |")
    assert lines[-1] == "125 runs, 0 failed; n = 5 a cell."


def test_a_cell_without_a_score_is_left_open(bench):
    made = rows(bench, mmd=GAIN)
    made[2] |= {"target": "", "n": "0", "failed": "5"}
    lines = [*bench.page(made)]
    assert lines[2].startswith("| `mmd` | – | **+10.0") and lines[-1] == "70 runs, 5 failed; n = 0 to 5 a cell."


def test_the_strip_of_pictures_is_what_the_script_draws(bench, tmp_path):
    bench.draw_strip(tmp_path / "strip.png")
    drawn, kept = (Image.open(file).convert("RGB") for file in (tmp_path / "strip.png", bench.STRIP))
    assert drawn.size == kept.size and bench.STRIP.stat().st_size < 300_000
    apart = np.asarray(drawn, dtype=float) - np.asarray(kept)
    assert np.abs(apart).mean() < 2  # of 255: another Pillow may choose other colours for its palette


def test_the_pages_tables_are_those_of_what_is_kept_and_every_cell_has_five_seeds(bench):
    kept = bench.read(bench.KEPT / f"{bench.NAME}.csv")
    page = (ROOT / "docs" / "weather.md").read_text()
    assert page.partition(bench.BEGIN)[2].partition(bench.END)[0].strip() == "\n".join(bench.page(kept))
    assert {row["n"] for row in kept} == {"5"} and len(kept) == 50
