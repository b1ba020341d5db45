"""What a sweep costs beside its runs: seconds of each part of `tl-run -m` over jobs that do next to nothing.

    python scripts/bench_sweep.py                # the table, three times: some ten minutes on two cores
    python scripts/bench_sweep.py --jobs 40 --done 100 --repeats 1

Two commands are timed as a person types them, each in a process of its own: a sweep of `--jobs` new runs, one at a
time, and one of `--done` runs that are finished already. Beside the first, the same runs are made by one process in a
loop. Overhead is what the launcher's time holds beyond its start and the runs' own seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tl_runner.storage.record import read_records

JOB = ["dataset=blobs", "backbone=linear", "method=source_only", "dataset.samples=60", "device=cpu", "threads=1"]
JOB += ["train.steps=1", "train.evaluations=1", "hydra.launcher.n_jobs=1"]
PARTS = "SWEEP_PARTS"  # the file that a timed command writes its parts to


def main() -> None:
    if PARTS in os.environ:
        timed(Path(os.environ[PARTS]))
        return
    parser = argparse.ArgumentParser(description="What a sweep costs beside its runs.")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--done", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    said = parser.parse_args()
    repeats = [repeat(said.jobs, said.done) for _ in range(said.repeats)]
    print(f"| part, ms a job over {said.jobs} (skipping: {said.done}) jobs | median | range |\n|---|--:|--:|")
    for name in repeats[0]:
        values = [parts[name] for parts in repeats]
        print(f"| {name} | {statistics.median(values):,.2f} | {min(values):,.2f} – {max(values):,.2f} |")


def repeat(jobs: int, done: int) -> dict[str, float]:
    """Milliseconds a job of each part, and seconds of what comes once."""
    with TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs"
        first = command(outputs, jobs)
        again = command(outputs, jobs)
        own = {record.id: record.seconds or 0.0 for record in read_records([outputs])[0]}
        assert len(own) == jobs and first["outcomes"] == {"ran": jobs} and again["outcomes"] == {"skipped": jobs}
        loop = looped(Path(folder) / "looped", jobs)
        many(outputs, jobs, done)
        skipped = command(outputs, done)
        assert skipped["outcomes"] == {"skipped": done}
    a_job = 1000 / jobs
    start = first["first"] - own[first["id"]]
    overhead = first["launch"] - start - sum(own.values())
    found = {
        "composition": first["compose"] * a_job,
        "the runs' own seconds": sum(own.values()) * a_job,
        "**overhead of the launcher**": overhead * a_job,
        "a loop in one process, all of it": loop["wall"] * a_job,
        "a loop in one process, beyond the runs' own seconds": (loop["wall"] - loop["own"]) * a_job,
        "once, s: before composition": first["before"],
        "once, s: until the first job is at work": start,
        "once, s: after the last job": first["wall"] - first["before"] - first["compose"] - first["launch"],
        "skipping: composition": skipped["compose"] * 1000 / done,
        "skipping, s: composition": skipped["compose"],
        "**skipping, s: all but composition**": skipped["wall"] - skipped["compose"],
        "skipping, s: the launcher's part of it": skipped["launch"],
    }
    print("  ".join(f"{name.strip('*')} {value:.2f}" for name, value in found.items()), file=sys.stderr, flush=True)
    return found


def command(outputs: Path, jobs: int) -> dict[str, Any]:
    """`tl-run -m` over so many seeds, in a process of its own; the seconds of its parts."""
    told = outputs.with_name("parts.json")
    words = ["-m", *JOB, f"seed=range({jobs})", f"outputs={outputs}"]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, *words], env={**os.environ, PARTS: str(told)}, check=True, stdout=subprocess.DEVNULL
    )
    parts = json.loads(told.read_text())
    parts["wall"] = time.perf_counter() - started
    parts["before"] = parts["wall"] - parts["since"]
    return parts


def timed(told: Path) -> None:
    """In the command's process: what `tl-run` does, with a clock around the sweeper's and the launcher's work."""
    from hydra.core.plugins import Plugins

    from tl_runner.cli import tl_run
    from tl_runner.report.sweep_progress import SweepProgress

    tl_run.register_plugins()
    plugins = Plugins.instance().class_name_to_class
    spent: dict[str, Any] = {"outcomes": {}}
    began: dict[str, float] = {}

    @contextmanager
    def clock(name: str) -> Iterator[None]:
        began[name] = time.perf_counter()
        yield
        spent[name] = time.perf_counter() - began[name]

    def clocked(owner: type, method: str, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def outer(*words: Any, **named: Any) -> Any:
            with clock(name):
                return inner(*words, **named)

        setattr(owner, method, outer)

    clocked(plugins["hydra_plugins.tl_runner.sweeper.Grid"], "validate_batch_is_legal", "compose")
    clocked(plugins["hydra_plugins.tl_runner.launcher.Local"], "launch", "launch")
    over = SweepProgress.over

    def seen(self: SweepProgress, outcome: Any) -> None:
        if "first" not in spent:
            spent["first"], spent["id"] = time.perf_counter() - began["launch"], outcome.record.id
        spent["outcomes"][outcome.what] = spent["outcomes"].get(outcome.what, 0) + 1
        over(self, outcome)

    SweepProgress.over = seen
    sys.argv[0] = "tl-run"
    try:
        tl_run.main()
    finally:
        spent["since"] = time.perf_counter() - began["compose"]
        told.write_text(json.dumps(spent))


def looped(outputs: Path, jobs: int) -> dict[str, float]:
    """The same runs by one process, one after another: seconds in all and the runs' own."""
    from tl_runner.engine.run import run

    own = 0.0
    warm_up, *described = recipes(outputs, jobs + 1)
    list(run(warm_up))  # the first one imports what is imported late
    started = time.perf_counter()
    for record in described:
        for _ in run(record):
            pass
        own += record.seconds or 0.0
    return {"wall": time.perf_counter() - started, "own": own}


def recipes(outputs: Path, jobs: int) -> list[Any]:
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from tl_runner.storage.record import describe_run

    words = [word for word in JOB if not word.startswith("hydra.")]
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        content: Any = OmegaConf.to_container(compose("config", overrides=[*words, f"outputs={outputs}"]))
    choices = {"dataset": "blobs", "backbone": "linear", "method": "source_only"}
    return [describe_run({**content, "seed": seed}, choices) for seed in range(jobs)]


def many(outputs: Path, jobs: int, done: int) -> None:
    """Make finished runs of those that are left of `done`, by copying the first one's folder: nobody reads more."""
    first, *others = recipes(outputs, done)
    content = json.loads((first.folder / "run.json").read_text())
    for record in others[jobs - 1 :]:
        record.folder.mkdir(parents=True)
        told = {"id": record.id, "setting": record.setting, "seed": record.seed, "config": record.config}
        (record.folder / "run.json").write_text(json.dumps({**content, **told}, indent=2))
        (record.folder / "model.safetensors").write_bytes((first.folder / "model.safetensors").read_bytes())


if __name__ == "__main__":
    main()
