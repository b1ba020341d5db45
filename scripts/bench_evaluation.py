"""What evaluation and diagnosis cost beside training: processor seconds a run of their parts, on one thread.

    python scripts/bench_evaluation.py                             # the table of docs/performance.md
    python scripts/bench_evaluation.py "backbone=small method=dann" …

Runs of several seeds in one process, after one that warms up: the median and the range. To compare two versions, run
this file with each on `PYTHONPATH`, in turn.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import tl_runner  # noqa: F401  (it sets how threads wait, before torch loads, as in tl-run)

# isort: split
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tl_runner.engine import run as engine
from tl_runner.evaluation import diagnosis, scores
from tl_runner.storage.record import RunRecord, describe_run

RUNS = 5
DEFAULT = ("dataset=digits backbone=mlp method=mmd", "dataset=digits backbone=small method=mmd")
PARTS = (  # indented by which part they are of; each as its caller knows it
    ("evidence", engine, "collect_evidence"),
    ("· classifier of the domains", scores, "separate_domains"),
    ("· temperatures", scores, "fit_temperature"),
    ("diagnosis before", diagnosis.Diagnose, "before"),
    ("diagnosis after", diagnosis.Diagnose, "after"),
    ("· `joint_error`", diagnosis, "joint_error"),
    ("· `label_shift`", diagnosis, "label_shift"),
    ("two tests by MMD, before and after", diagnosis, "mmd_test"),
)


def count_seconds(found: dict[str, float], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        result = function(*args, **options)
        found[part] += time.process_time() - started
        return result

    return timed


def describe(words: str, seed: int, outputs: str) -> RunRecord:
    """The record of a run of these words, as `tl-run` has it."""
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        made = [*words.split(), f"seed={seed}", "threads=1", "device=cpu", f"outputs={outputs}"]
        content: Any = OmegaConf.to_container(compose("config", overrides=made))
    groups = ("dataset", "backbone", "method")
    return describe_run(content, {group: content[group].get("name", group) for group in groups})


def main() -> None:
    seconds: dict[str, float] = defaultdict(float)
    for part, owner, name in PARTS:
        setattr(owner, name, count_seconds(seconds, part, getattr(owner, name)))
    for words in sys.argv[1:] or DEFAULT:
        found: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as outputs:
            for seed in range(RUNS + 1):
                seconds.clear()
                started = time.process_time()
                list(engine.run(describe(words, seed, outputs)))
                seconds["the whole run"] = time.process_time() - started
                for part, value in seconds.items() if seed else ():
                    found[part].append(1000 * value)
        print(f"\n| `{words}`, {RUNS} runs | ms a run, median | range |\n|---|--:|--:|")
        for part in (*(part for part, *_ in PARTS), "the whole run"):
            values = found[part]
            print(f"| {part} | {statistics.median(values):,.0f} | {min(values):,.0f} – {max(values):,.0f} |")


if __name__ == "__main__":
    main()
