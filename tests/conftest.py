"""What the tests share: composing a configuration and making its run, inside this process."""

import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tl_runner import config, options
from tl_runner.core import Method
from tl_runner.engine.run import run
from tl_runner.storage.record import RunRecord, describe_run

torch.set_num_threads(1)  # two test processes share two cores

CONF = options.conf()
FOUND = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml") if path.parent != CONF)
PLUGINS = [path for path in FOUND if path.startswith("hydra/")]  # launchers and sweepers, which are Hydra's to build
EXPERIMENTS = [
    path.removeprefix("experiment/").removesuffix(".yaml") for path in FOUND if path.startswith("experiment/")
]
YAMLS = [path for path in FOUND if not path.startswith(("hydra/", "experiment/"))]  # a part of a run each
OF_TEXTS, OF_QUANTITIES = {"udalm"}, {"dare_gram"}  # alone: see tests/methods/test_udalm.py, test_regression_methods.py
OF_SEVERAL_SOURCES = {"groupdro"}  # alone: see tests/methods/test_several_sources.py
OF_OTHERS = OF_TEXTS | OF_QUANTITIES | OF_SEVERAL_SOURCES
METHODS = sorted({Path(path).stem for path in YAMLS if path.startswith("method/")} - OF_OTHERS)
REPRESENTATIVES = {"mmd", "dann", "finetune", "feature_extract", "kmm", "shot", "maml"}  # of each way of transferring
QUICK = ["train=tiny", "pretrain=tiny", "dataset.samples=300", "dataset.size=8"]  # of the default data set


def some_slow(methods: Iterable[str]) -> list[Any]:
    """Parameters of a test of whole runs: these methods; all but one of each kind are left to --full."""
    return [name if name in REPRESENTATIVES else pytest.param(name, marks=pytest.mark.slow) for name in methods]


def composed(*overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration under these overrides, and the option of each named group."""
    return deepcopy(_composed(overrides))


@cache  # it takes a tenth of a second, and many tests make several runs of one configuration
def _composed(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = {group: str(config.hydra.runtime.choices[group]) for group in ("dataset", "backbone", "method")}
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content = OmegaConf.to_container(plain)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}, choices


def built(method: str) -> Method:
    """The method of this name, as its YAML has it."""
    return config.build_named("method", method, "method")


def described(outputs: Path, *overrides: str) -> RunRecord:
    """The record, before its run, of a run on the CPU under these overrides."""
    config, choices = composed(*overrides, "device=cpu")
    return describe_run({**config, "outputs": str(outputs)}, choices)


def made(outputs: Path, *overrides: str) -> RunRecord:
    """The finished run under these overrides."""
    record = described(outputs, *overrides)
    for _ in run(record):
        pass
    return record


def command(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command such as tl-run in a process of its own, in the current folder, by the entry point's own function."""
    code = f"import sys; sys.argv[0] = {name!r}; from tl_runner.cli.{name.replace('-', '_')} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HYDRA_FULL_ERROR": "0", **environment},
    )


class Said(NamedTuple):
    """What a command ended with, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `command`, in this process: a tenth of the time. What a command leaves in its process is undone."""

    def here(name: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ours, known = logging.getLogger("tl_runner"), {*sys.modules}
        told = list(ours.handlers)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, words)])
            patch.setattr(sys, "path", [*sys.path])
            for variable, value in {"HYDRA_FULL_ERROR": "0", **environment}.items():
                patch.setenv(variable, value)
            try:
                import_module(f"tl_runner.cli.{name.replace('-', '_')}").main()
                code = 0
            except SystemExit as end:
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except Exception:
                traceback.print_exc()
                code = 1
        ours.handlers[:] = told
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for module in {*sys.modules} - known:  # a user's, of the folder that the test works in
            if str(getattr(sys.modules[module], "__file__", None)).startswith(str(Path.cwd())):
                del sys.modules[module]
        return subprocess.CompletedProcess([name, *map(str, words)], code, *capfd.readouterr())

    return here


@pytest.fixture
def typed(here: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Said]:
    """A command as it is typed, in this process; what it says on stderr without line breaks."""

    def typed(name: str, *words: object) -> Said:
        result = here(name, *words)
        return Said(result.returncode, result.stdout, " ".join(result.stderr.split()))

    return typed


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves a file in the working folder, or prints as wide as where it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # a command in this process sets it: so it is undone at the end
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
