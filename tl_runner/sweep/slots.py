"""The places in which jobs run side by side on this machine: each has its share of the CPU's threads, and its GPU."""

import os
from pathlib import Path
from typing import NamedTuple

from tl_runner.errors import UserError

MANY = 8  # jobs at a time on a CPU, unless more are asked for: each holds its data in memory


class Slot(NamedTuple):
    number: int
    threads: int
    device: str | None  # for jobs that say device=auto; None leaves it to them


def count_slots(n_jobs: int | str, jobs_per_gpu: int) -> list[Slot]:
    """`n_jobs` places; `auto` is `jobs_per_gpu` on each GPU, or where there is none a core for each, up to MANY.

    The shares depend on nothing else, so that a job which is resumed has as many threads as before.
    """
    if not isinstance(jobs_per_gpu, int) or isinstance(jobs_per_gpu, bool) or jobs_per_gpu < 1:
        raise UserError(f"hydra.launcher.jobs_per_gpu takes a whole number of at least 1, got {jobs_per_gpu!r}")
    cores, gpus = _cores(), _gpus()
    if n_jobs == "auto":
        n_jobs = gpus * jobs_per_gpu or min(cores, MANY)
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs takes auto or a whole number of at least 1, got {n_jobs!r}")
    threads = max(1, cores // n_jobs)
    return [Slot(number, threads, f"cuda:{number % gpus}" if gpus else None) for number in range(n_jobs)]


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """Those that jobs may use. torch, which takes seconds to import, is only asked where there may be some."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()  # does not initialise CUDA
