"""Makes the runs behind "With a pre-trained network" in docs/which-method.md: lite0 beside networks from scratch.

    python scripts/bench_pretrained.py --outputs RUNS                 # makes the runs, or resumes, and keeps the table
    python scripts/bench_pretrained.py --outputs RUNS --seeds         # makes none, and keeps the table of those there
    python scripts/bench_pretrained.py --write docs/which-method.md   # the page's table, of what is kept

Needs Fashion-MNIST (Debian's package dataset-fashion-mnist, or --fashion FOLDER) and the extra [lite0]. Two pairs:
Fashion-MNIST under noise, and folders of PNGs that are made of it, clothes on black -> clothes on crops of the two
photographs that scikit-learn carries (|photograph − image|, as MNIST-M is made: Ganin et al. 2016). All runs of a seed
come before those of the next. The table is kept in docs/measured/pretrained.csv.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from bench_methods import put, round_value

from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import RunRecord, read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "pretrained.csv"
BEGIN, END = "<!-- made by scripts/bench_pretrained.py: begin -->", "<!-- end of bench_pretrained -->"
UNLABELLED = "source_only,adabn,tent,coral,mmd,dann,mcc"
SETTINGS = (
    ["method=source_only,feature_extract,finetune", "granted=5"],
    ["method=finetune", "method.lp_ft=true", "granted=5"],
    ["method=feature_extract", "pretrain.steps=0", "granted=5"],
    [f"method={UNLABELLED}"],
)
STEPS = "pretrain.steps=150"
TRAINING = ["train.steps=150", "train.batch=32", "pretrain.batch=32", "train.evaluations=3"]
SIDE, ROWS = 64, 1500
COLUMNS = [
    "pair", "backbone", "label", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high", "oracle",
    "seconds",
]  # fmt: skip
PAIRS = {"noise": "Fashion-MNIST → noise", "photographs": "clothes on black → on photographs"}
NETS = ("small", "resnet18", "lite0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--fashion", type=Path, help="the folder of Fashion-MNIST's IDX files")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--nets", nargs="*", default=[*NETS], choices=NETS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        measure(asked.outputs.absolute(), asked.fashion, asked.seeds, asked.nets, asked.jobs)
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(page()))


def measure(outputs: Path, fashion: Path | None, seeds: list[int], nets: list[str], jobs: int) -> None:
    """Make the runs that are not there; keep the table of all after each seed."""
    outputs.mkdir(parents=True, exist_ok=True)
    clothes = outputs / "clothes"
    if not clothes.is_dir():
        write_clothes(clothes, fashion)
    root = [f"dataset.root={fashion.absolute()}"] if fashion else []
    pairs = (
        ["dataset=fashion", "dataset.shift=noise", f"dataset.samples={ROWS}", *root],
        ["dataset=image_folder", f"dataset.root={clothes}", "dataset.source=black", "dataset.target=photographs"],
    )
    shared = [f"outputs={outputs}", "threads=1", "save=false", "diagnose=none", "train.channels_last=true"]
    command = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
    keep(outputs)
    for seed in seeds:
        for net in nets:
            for pair in pairs:
                for words in SETTINGS:
                    line = ["-m", *pair, f"dataset.size={SIDE}", *words, f"backbone={net}", *TRAINING, *shared]
                    line += [*([] if "pretrain.steps=0" in words else [STEPS]), f"seed={seed}"]
                    line.append(f"hydra.launcher.n_jobs={jobs}")
                    print(*line, flush=True)
                    subprocess.run([*command, *line], check=False, stdout=subprocess.DEVNULL)
        keep(outputs)


def write_clothes(folder: Path, fashion: Path | None) -> None:
    """Two domains of PNGs, 28 pixels a side, of different images: `black` and `photographs`, in colour."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from tl_runner.datasets.fashion import read_fashion

    raw = read_fashion(str(fashion) if fashion else None, download=False)
    rng = np.random.default_rng(0)
    photographs = [image.astype(int) for image in load_sample_images().images]
    chosen = rng.permutation(len(raw.y))[: 2 * ROWS]
    for domain, rows in (("black", chosen[:ROWS]), ("photographs", chosen[ROWS:])):
        for row in rows:
            image = np.asarray(raw.x[row]).reshape(28, 28, 1).astype(int).repeat(3, axis=2)
            if domain == "photographs":
                photograph = photographs[rng.integers(len(photographs))]
                top, left = (rng.integers(length - 28) for length in photograph.shape[:2])
                image = np.abs(photograph[top : top + 28, left : left + 28] - image)
            place = folder / domain / raw.classes[int(raw.y[row])].replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(place / f"{row}.png")


def keep(outputs: Path) -> None:
    """The table of what has been run so far."""
    runs, _ = read_records([outputs])
    labels = {run.setting: _name_setting(run) for run in runs}
    with KEPT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in build_leaderboard(runs).to_dict("records"):
            row["pair"] = "noise" if row["dataset"] == "fashion" else "photographs"
            row["label"] = labels[str(row["setting"])]
            writer.writerow({str(key): round_value(value) for key, value in row.items()})


def _name_setting(run: RunRecord) -> str:
    """A method and what was set of it; of all but `feature_extract` the source model has the same steps."""
    method = run.choices["method"]
    if run.config["method"].get("lp_ft"):
        return f"{method} lp_ft"
    alone = method == "feature_extract" and not run.config["pretrain"]["steps"]
    return f"{method} pretrain=none" if alone else method


def page() -> Iterator[str]:
    """A table for each pair and budget: a row a method, a column a network."""
    with KEPT.open(newline="") as opened:
        rows = [*csv.DictReader(opened)]
    rows.sort(key=lambda row: (row["pair"], int(row["granted"])))
    for (pair, granted), of_pair in groupby(rows, key=lambda row: (row["pair"], row["granted"])):
        listed = [*of_pair]
        cells = {(row["label"], row["backbone"]): row for row in listed}
        nets = [net for net in NETS if any(row["backbone"] == net for row in listed)]
        best = nets[-1]
        failed = sum(int(row["failed"]) for row in listed)
        labels = [*dict.fromkeys(row["label"] for row in sorted(listed, key=lambda row: row["backbone"] != best))]
        yield from ("", f"**{PAIRS[pair]}**, {granted} target labels a class ({failed} runs failed)", "")
        yield f"| method | {' | '.join(f'`{net}`, %' for net in nets)} |"
        yield f"|---|{'--:|' * len(nets)}"
        for label in labels:
            yield f"| `{label}` | {' | '.join(_cell(cells.get((label, net))) for net in nets)} |"


def _cell(row: dict[str, str] | None) -> str:
    """Mean ± sd, the difference to source_only of this net with its 95 % interval, and n."""
    if row is None or not row["target"]:
        return "–"
    spread = f" ± {100 * float(row['target_sd']):.1f}" if row["target_sd"] else ""
    said = f"{100 * float(row['target']):.1f}{spread}"
    if row["difference"]:
        said += f"; {100 * float(row['difference']):+.1f}"
        said += f" ({100 * float(row['low']):+.1f} to {100 * float(row['high']):+.1f})" if row["low"] else ""
    return f"{said} (n = {row['n']})".replace("-", "−")


if __name__ == "__main__":
    main()
