"""What the tests share: composing a configuration and making its run, inside this process."""

import os
import subprocess
import sys
from collections.abc import Callable
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
YAMLS = [path for path in FOUND if path not in PLUGINS]
METHODS = [path.removeprefix("method/").removesuffix(".yaml") for path in YAMLS if path.startswith("method/")]
QUICK = ["train=tiny", "pretrain=tiny", "dataset.samples=300", "dataset.size=8"]  # of the default data set


def composed(*overrides: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration under these overrides, and the option of each named group."""
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = {group: str(config.hydra.runtime.choices[group]) for group in ("dataset", "backbone", "method")}
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    content = OmegaConf.to_container(plain)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}, choices


def built(method: str) -> Method:
    """The method of this name, as its YAML has it."""
    return config.load(composed(f"method={method}")[0]).method


def made(outputs: Path, *overrides: str) -> RunRecord:
    """The finished run under these overrides."""
    record = describe_run(*composed(*overrides, f"outputs={outputs}", "device=cpu"))
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
def typed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """A command as it is typed, in this process, which is faster than one of its own."""

    def typed(name: str, *words: object) -> Said:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        capfd.readouterr()
        try:
            import_module(f"tl_runner.cli.{name.replace('-', '_')}").main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capfd.readouterr()
        return Said(code, out, " ".join(err.split()))

    return typed


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves a file in the working folder, or prints as wide as where it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # a command in this process sets it: so it is undone at the end
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
