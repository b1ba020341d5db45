"""Makes the runs behind docs/text.md: sentiment across domains, real sentences of three and made-up reviews of two.

    scripts/make_sentiment FOLDER                                             # the real ones, see its first lines
    python scripts/bench_text.py --data FOLDER --outputs RUNS [GROUP …]       # makes the runs, or resumes, and keeps
    python scripts/bench_text.py --write docs/text.md                         # the page's tables, of what is kept

GROUP is one of small, encoder, budgets, reviews. `--encoder DIR` is the folder of a BERT-like encoder (MiniLM), and
`--device cuda` trains on a GPU, several runs at a time (`--jobs`). Tables are kept in docs/measured/text.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby, permutations
from pathlib import Path

from bench_methods import put, round_value

from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.storage.record import RunRecord, read_records

KEPT = Path(__file__).parents[1] / "docs" / "measured" / "text"
BEGIN, END = "<!-- made by scripts/bench_text.py: begin -->", "<!-- end of bench_text -->"
DOMAINS = ("amazon", "imdb", "yelp")
COLUMNS = [
    "pair", "label", "backbone", "granted", "n", "failed", "target", "target_sd", "difference", "low", "high",
    "verdict", "estimated", "source", "seconds",
]  # fmt: skip
TUNED = ("train=transformer", "optimizer=transformer", "schedule=warmup", "backbone.length=64")
TITLES = {
    "small": "Real sentences, networks from scratch",
    "encoder": "Real sentences, a pre-trained encoder (MiniLM) without target labels",
    "budgets": "Real sentences, a pre-trained encoder (MiniLM) with some target labels",
    "reviews": "Made-up reviews (`dataset=reviews`)",
}
SEEDS = {"small": 5, "encoder": 3, "budgets": 3, "reviews": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", metavar="GROUP", nargs="*", choices=[*SEEDS, []], help="only these tables")
    parser.add_argument("--data", type=Path, help="the folder of amazon.csv, imdb.csv and yelp.csv")
    parser.add_argument("--encoder", type=Path, help="the folder of the encoder")
    parser.add_argument("--outputs", type=Path, help="the folder of the runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="fewer seeds than the table has")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    if asked.outputs:
        for group in asked.groups or SEEDS:
            measure(group, asked)
    if asked.write:
        put(asked.write, BEGIN, END, "\n".join(page()))


def list_lines(group: str, encoder: str) -> Iterator[str]:
    """The rows of a table as words of commands, each for all of its pairs."""
    transformer = " ".join(("backbone=transformer", f"backbone.path={encoder}", *TUNED))
    if group in ("small", "reviews"):
        yield "backbone=tfidf method=source_only train.steps=600"
        yield "backbone=embedding_gru method=source_only,mmd,dann,coral"
        yield "backbone=bag_of_embeddings method=source_only"
    if group == "encoder":
        yield f"{transformer} optimizer.lr_backbone=0 optimizer.lr=0.002 method=source_only"
        yield f"{transformer} method=source_only,mmd,dann,coral,mcc,udalm"
    if group == "budgets":
        budgets = f"{transformer} granted=5,25,100"
        yield f"{budgets} pretrain=none method=finetune"
        yield f"{budgets} pretrain=none method=feature_extract"
        yield f"{budgets} pretrain=transformer method=finetune,feature_extract"
        yield f"{budgets} pretrain=transformer method=finetune method.lp_ft=true"
        yield f"{budgets} pretrain=transformer method=finetune method.lora_rank=8"
        yield f"{transformer} granted=5,25,100 method=source_only"


def measure(group: str, asked: argparse.Namespace) -> None:
    """Make the runs of a table, as an experiment of its own, and keep it."""
    outputs = asked.outputs.absolute() / group
    seeds = ",".join(map(str, range(asked.seeds or SEEDS[group])))
    encoder = str(asked.encoder.absolute()) if asked.encoder else "DIR"
    lines = [f"{pair} {line}" for line in list_lines(group, encoder) for pair in _pairs(group, asked.data)]
    folder = outputs / "conf" / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(f"  - {line}" for line in lines)
    shared = f"threads=1 save=false device={asked.device} seed={seeds}"
    (folder / f"{group}.yaml").write_text(
        f"# {TITLES[group]}\nshared: {shared}\nruns:\n{listed}\nseen: see docs/text.md\n"
    )
    words = [f"experiment={group}", "--config-dir", str(outputs / "conf"), f"outputs={outputs}"]
    places = "jobs_per_gpu" if asked.device.startswith("cuda") else "n_jobs"
    command = [sys.executable, "-c", "from tl_runner.cli.tl_run import main; main()"]
    print(*words, flush=True)
    subprocess.run([*command, *words, f"hydra.launcher.{places}={asked.jobs}"], check=False)
    keep(group, outputs)


def _pairs(group: str, data: Path | None) -> Iterator[str]:
    if group == "reviews":
        yield "dataset=reviews"
        yield "dataset=reviews dataset.source=gadgets"
        return
    if data is None:
        raise SystemExit(f"{group} needs --data")
    two = [("amazon", "imdb"), ("imdb", "amazon")]
    for source, target in permutations(DOMAINS, 2) if group == "small" else two:
        files = (data.absolute() / f"{name}.csv" for name in (source, target))
        yield "dataset=text dataset.source={} dataset.target={}".format(*files)


def keep(group: str, outputs: Path) -> None:
    """The leaderboard of these runs, as docs/measured/text/GROUP.csv."""
    runs, _ = read_records([outputs])
    if not runs:
        raise SystemExit(f"{group} left no run in {outputs}")
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{group}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        firsts = {run.setting: run for run in runs}
        for row in build_leaderboard(runs).to_dict("records"):
            told = {str(key): round_value(value) for key, value in row.items()}
            writer.writerow({**told, "label": name_row(firsts[row["setting"]])})


def name_row(record: RunRecord) -> str:
    """The method, and what its options mean."""
    config, method = record.config, record.choices["method"]
    said = ["backbone frozen"] * (config["optimizer"].get("lr_backbone") == 0)
    said += ["LP-FT"] * (config["method"].get("lp_ft") is True)
    if rank := config["method"].get("lora_rank"):
        said.append(f"LoRA of rank {rank}")
    said += ["no source model"] * (method in ("finetune", "feature_extract") and not config["pretrain"]["steps"])
    return ", ".join([method, *said])


def page() -> Iterator[str]:
    """A table for each group that was measured."""
    for group, title in TITLES.items():
        file = KEPT / f"{group}.csv"
        if not file.exists():
            continue
        with file.open(newline="") as opened:
            rows = [*csv.DictReader(opened)]
        yield from ("", f"### {title}", "")
        for pair, of_pair in groupby(rows, key=lambda row: row["pair"]):
            listed = [*of_pair]
            n = sorted({int(row["n"]) for row in listed})
            failed = sum(int(row["failed"]) for row in listed)
            seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
            yield from ("", f"**{pair}** ({seeds} seeds a row, {failed} runs failed)", "")
            yield "| backbone | method | labels a class | target, % | − source_only, points (95 %) | source, % | s |"
            yield "|---|---|--:|--:|--:|--:|--:|"
            for row in listed:
                yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Mapping[str, str]) -> list[str]:
    """What a row says, in percent and points."""
    spread = f" ± {100 * float(row['target_sd']):.1f}" if row["target_sd"] else ""
    target = f"{100 * float(row['target']):.1f}{spread}" if row["target"] else "–"
    gain = f"{100 * float(row['difference']):+.1f}" if row["difference"] else ""
    if row["low"]:
        gain += f" ({100 * float(row['low']):+.1f} to {100 * float(row['high']):+.1f})"
    source = f"{100 * float(row['source']):.1f}" if row["source"] else "–"
    return [
        row["backbone"],
        row["label"],
        row["granted"],
        target,
        gain.replace("-", "−"),
        source,
        f"{float(row['seconds']):.0f}",
    ]


if __name__ == "__main__":
    main()
