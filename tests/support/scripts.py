"""Benchmark scripts as modules: scripts/ is no package."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "scripts"


def import_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, newly imported, beside those that it imports."""
    monkeypatch.syspath_prepend(FOLDER)
    for each in (name, "bench_experiments", "bench_methods", "measured"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return import_module(name)
