"""tl_runner: which way of transferring works on your data?

The public names are loaded when they are first used, so that importing the package needs no torch.
Every command, worker and remote job imports this package before it loads torch: how threads wait is set here.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tl_runner.openmp import let_threads_sleep

if TYPE_CHECKING:
    from tl_runner.core import Batch, Group, Method, Model, Phase, Resources, Terms
    from tl_runner.domains import Labelled, Pair
    from tl_runner.inference.load import load
    from tl_runner.notebook import leaderboard, run, run_sweep

if "torch" not in sys.modules:  # else its threads are settled, and the environment is left as it is
    let_threads_sleep(os.environ)

__all__ = [
    "Batch",
    "Group",
    "Labelled",
    "Method",
    "Model",
    "Pair",
    "Phase",
    "Resources",
    "Terms",
    "leaderboard",
    "load",
    "run",
    "run_sweep",
]
ELSEWHERE = {  # all others are in core
    "Labelled": "domains",
    "Pair": "domains",
    "load": "inference.load",
    **dict.fromkeys(("leaderboard", "run", "run_sweep"), "notebook"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tl_runner.{ELSEWHERE.get(name, 'core')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
