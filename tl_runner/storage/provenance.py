"""Where a run is made: versions, machine, git state."""

import platform
import re
import subprocess
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tl_runner.storage.sections import Environment

LIBRARIES = ("tl_runner", "torch", "torchvision", "numpy", "scikit-learn")


def collect_provenance() -> Environment:
    """Versions, machine and git state of the working folder; the run adds device, threads and engine."""
    return replace(_whereabouts(Path.cwd()))


@lru_cache(maxsize=8)  # code that a process has imported does not change, whatever happens in the folder
def _whereabouts(folder: Path) -> Environment:
    commit = _git(folder, "rev-parse", "HEAD")
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        versions={name: _version(name) for name in LIBRARIES},
        commit=commit,
        dirty=bool(_git(folder, "status", "--porcelain")) if commit else None,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here: the record then says null
    return result.stdout.strip() if result.returncode == 0 else None


def identify_maker(environment: Environment) -> dict[str, Any]:
    """What a run's numbers depend on beside its configuration and data: our code, and for the last bits the rest."""
    device = re.sub(r":\d+", "", environment.device or "")  # which GPU of several alike does not matter
    versions = {name: environment.versions[name] for name in ("tl_runner", "torch")}
    return {**versions, "device": device, "threads": environment.threads}
