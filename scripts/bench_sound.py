"""Makes the runs behind docs/sound.md, digits of synthesised speech in other voices, and the page's table.

    scripts/make_spoken_words WORDS                                          # the recordings, see its first lines
    python scripts/bench_sound.py --data WORDS --outputs RUNS [--jobs 1]     # makes the runs, or resumes, and keeps
    python scripts/bench_sound.py --write docs/sound.md                      # the page's table, of what is kept

What is kept lies in docs/measured/sound. Nothing was tuned on these seeds.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench_experiments import Row, keep_comparisons, list_gain, percent, read
from bench_methods import SEEDS, put, round_value

from tl_runner import experiments
from tl_runner.plurals import count_noun
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import read_records

NAME = "spoken_words"
KEPT = Path(__file__).parents[1] / "docs" / "measured" / "sound"
BEGIN, END = "<!-- made by scripts/bench_sound.py: begin -->", "<!-- end of bench_sound -->"
TASKS = {"flite": "another synthesiser", "caribbean": "another accent", "german": "another language"}
WITHOUT_LABELS = "source_only,adabn,coral,mmd,dann,mcc,shot"
WITH_LABELS = "source_only,target_only,finetune"
ON_FEATURES = "feature_extract"  # has each row's features once, and so no random views
BUDGET = 5  # labels a class
OVER_TARGET_ONLY = ("source_only", "finetune")  # with the same labels
BY_SPEAKER = """"dataset.group='^[^-]+'\""""  # what stands before the number: no speaker is in two splits
SHARED = (
    "backbone=crnn backbone.channels=16 augment=strong dataset.sample_rate=8000 dataset.seconds=1 dataset.mels=24"
    " train.steps=200 train.batch=32 train.evaluations=4 pretrain.steps=200 pretrain.batch=32 diagnose=none"
)
COLUMNS = [
    "pair", "label", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high", "verdict",
    "estimated", "source", "seconds",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="what scripts/make_spoken_words wrote")
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        if asked.data is None:
            parser.error("--outputs needs --data")
        measure(asked.data.absolute(), asked.outputs.absolute(), asked.jobs)
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(page(read(KEPT / f"{NAME}.csv"), read(KEPT / f"{NAME}.compared.csv"))))


def describe(data: Path) -> str:
    """The experiment: its file's text."""
    targets = f"dataset.target={','.join(TASKS)}"
    words = f"dataset=audio dataset.root={data} dataset.source=espeak {BY_SPEAKER} {SHARED} threads=1 save=false"
    compared = [f"method={name} granted={BUDGET} vs method=target_only granted={BUDGET}" for name in OVER_TARGET_ONLY]
    return "\n".join(
        [
            "# Digits of synthesised speech: from one voice to others.",
            f"shared: {words} seed={','.join(map(str, SEEDS))}",
            "runs:",
            f"  - {targets} method={WITHOUT_LABELS}",
            f"  - {targets} method={WITH_LABELS} granted={BUDGET}",
            f"  - {targets} method={ON_FEATURES} augment=none granted={BUDGET}",
            f"  - {targets} method=target_only granted=all",
            "compare:",
            *(f"  - {line}" for line in compared),
            "seen: see docs/sound.md",
            "",
        ]
    )


def measure(data: Path, outputs: Path, jobs: int) -> None:
    """Make the runs, and keep their tables."""
    file = outputs / "conf" / "experiment" / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(describe(data))
    words = [f"experiment={NAME}", "--config-dir", str(outputs / "conf"), f"outputs={outputs}"]
    print(*words, flush=True)
    command = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
    subprocess.run([*command, *words, f"hydra.launcher.n_jobs={jobs}"], check=False)
    runs, _ = read_records([outputs])
    if not runs:
        raise SystemExit(f"there is no run in {outputs}")
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{NAME}.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in build_leaderboard(runs).to_dict("records"):
            writer.writerow({str(key): round_value(value) for key, value in row.items()})
    keep_comparisons(KEPT / f"{NAME}.compared.csv", runs, experiments.read_experiment(file))


def page(rows: Sequence[Row], compared: Sequence[Row]) -> Iterator[str]:
    """A table for each task: accuracies, and differences to the two baselines with the same labels."""
    over_target = {(row["pair"], row["one"], row["granted"]): row for row in compared}
    for target, title in TASKS.items():
        if not (of_task := [row for row in rows if f"target={target}" in row["pair"].split()]):
            yield from ("", f"**espeak → {target}**, {title}: no runs are kept.")
            continue
        n = sorted({int(row["n"]) for row in of_task})
        failed = sum(int(row["failed"]) for row in of_task)
        seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
        yield from ("", f"**espeak → {target}**, {title} ({seeds} seeds a row, {count_noun(failed, 'run')} failed)", "")
        yield "| method | labels a class | target, % | − source_only (95 %) | − target_only (95 %) | source, % | s |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for row in of_task:
            over = over_target.get((row["pair"], row["label"], row["granted"]))
            spread = f"{percent(row['target'])} ± {percent(row['target_sd'])}"
            source = "–" if row["label"] == "target_only" else percent(row["source"])
            asked = row["label"] in OVER_TARGET_ONLY and row["granted"] == str(BUDGET)
            gains = list_gain(row), list_gain(over) if over else "not measured" if asked else ""
            cells = f"`{row['label']}`", row["granted"], spread, *gains, source, f"{float(row['seconds']):.0f}"
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
