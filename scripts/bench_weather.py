"""Makes the runs behind docs/weather.md, which are experiment=road_weather, and its tables and pictures.

    python scripts/bench_weather.py --outputs FOLDER [--jobs 1]   # makes the runs, or resumes, and keeps their table
    python scripts/bench_weather.py --write docs/weather.md       # the page's tables, of what is kept, and its pictures

The table is kept in docs/measured/experiments/road_weather.csv, where scripts/bench_experiments.py finds it, too.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from bench_experiments import KEPT, list_gain, measure, percent, read
from bench_methods import put
from PIL import Image, ImageDraw, ImageFont

from tl_runner import experiments, options
from tl_runner.datasets.fonts import find_fonts
from tl_runner.datasets.image_shifts import SEVERITY, shift_images
from tl_runner.datasets.road_signs import CITIES
from tl_runner.datasets.sign_faces import FACES
from tl_runner.datasets.street_views import photograph

NAME, BASE, CEILING = "road_weather", "source_only", "target_only"
BEGIN, END = "<!-- made by scripts/bench_weather.py: begin -->", "<!-- end of bench_weather -->"
TASKS = {  # what a column is called: how the report names its pair
    "fog": "shift=fog target=north",
    "rain": "shift=rain",
    "dusk": "shift=dusk",
    "other city": "shift=none",
    "other city in fog": "shift=fog target=south",
}
STRIP = KEPT.parents[1] / "pictures" / "road_signs.png"
SIDE, MARGIN = 48, 92  # pixels of an image, and of the words beside a row
Cells = Mapping[str, Mapping[str, Mapping[str, str]]]  # method -> task -> row of the kept table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        (found,) = experiments.find_experiments([f"experiment={NAME}"], [options.conf()])
        measure(found, asked.outputs, asked.jobs)
    if asked.write:
        draw_strip(STRIP)
        put(asked.write, BEGIN, END, "\n".join(page(read(KEPT / f"{NAME}.csv"))))


def page(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Differences to source-only, then accuracies; a row a method, a column a task."""
    cells = arrange(rows)
    adapting = sorted(cells.keys() - {BASE, CEILING}, key=lambda method: -_mean(cells[method], "difference"))
    heads = " | ".join(TASKS)
    yield from (f"| method | {heads} | mean | s |", "|---|" + "--:|" * (len(TASKS) + 2))
    for method in adapting:
        of = cells[method]
        gains = [_mark(of[task]) if task in of else "–" for task in TASKS]
        mean = percent(str(_mean(of, "difference")), "+.1f")
        yield f"| `{method}` | {' | '.join([*gains, mean])} | {_mean(of, 'seconds'):.0f} |"
    yield from ("", f"| method | {heads} | source, % |", "|---|" + "--:|" * (len(TASKS) + 1))
    for method in (*(each for each in (CEILING,) if each in cells), *adapting, BASE):
        of = cells[method]
        scores = [f"{percent(of[t]['target'])} ± {percent(of[t]['target_sd'])}" if t in of else "–" for t in TASKS]
        source = "–" if method == CEILING else percent(str(_mean(of, "source")))
        yield f"| `{method}` | {' | '.join(scores)} | {source} |"
    runs, failed = (sum(int(row[key]) for row in rows) for key in ("n", "failed"))
    least, most = (of(int(row["n"]) for row in rows) for of in (min, max))
    seeds = f"{least}" if least == most else f"{least} to {most}"
    yield from ("", f"{runs} runs, {failed} failed; n = {seeds} a cell.")


def arrange(rows: Sequence[Mapping[str, str]]) -> Cells:
    """The rows that have scores, by method and task."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in rows:
        (task,) = (task for task, words in TASKS.items() if {*words.split()} <= {*row["pair"].split()})
        if row["target"]:
            found.setdefault(row["label"], {})[task] = row
    return found


def _mean(of: Mapping[str, Mapping[str, str]], key: str) -> float:
    return fmean(float(row[key]) for row in of.values())


def _mark(row: Mapping[str, str]) -> str:
    """A difference with its interval, bold where that leaves 0."""
    sure = row["low"] and (float(row["low"]) > 0 or float(row["high"]) < 0)
    return f"**{list_gain(row)}**" if sure else list_gain(row)


def draw_strip(file: Path) -> None:
    """A column a class, a row for each city and weather: the same signs in all rows of a city."""
    weathers = ("clear", "fog", "rain", "snow", "dusk", "glare")
    (plain,) = (each for each in find_fonts() if each.stem == "DejaVuSans")
    font = ImageFont.truetype(str(plain), size=11)
    size = MARGIN + len(FACES) * SIDE, SIDE // 2 + len(CITIES) * len(weathers) * SIDE
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(FACES):
        words = name.replace("_", "\n")
        at = MARGIN + (column + 0.5) * SIDE, SIDE / 4
        pen.multiline_text(at, words, "black", font.font_variant(size=8), "mm", align="center")
    for row, (city, weather) in enumerate((city, weather) for city in CITIES for weather in weathers):
        clear = photograph(CITIES[city], torch.arange(len(FACES)), SIDE, torch.Generator().manual_seed(1))
        shift = "none" if weather == "clear" else weather
        x = shift_images(clear, shift, SEVERITY, torch.Generator().manual_seed(0))
        images = torch.cat([*x], -1).permute(1, 2, 0).numpy()
        top = SIDE // 2 + row * SIDE
        sheet.paste(Image.fromarray(images), (MARGIN, top))
        pen.text((4, top + SIDE / 2), f"{city}, {weather}", "black", font, "lm")
    file.parent.mkdir(exist_ok=True)
    sheet.quantize(200, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
