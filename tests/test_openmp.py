"""Idle threads sleep: every process has the setting before torch or NumPy loads, and a user's own value wins."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import QUICK, composed, made
from PIL import Image
from test_architecture import COMMANDS

from tl_runner.engine.job import Job
from tl_runner.openmp import let_threads_sleep
from tl_runner.storage.record import describe_run
from tl_runner.sweep.remote import RemoteJob

SPIN = {"GOMP_SPINCOUNT": "5000"}
SLEEPS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4", **SPIN}
ABOUT_WAITING = {*SLEEPS, "KMP_BLOCKTIME", "KMP_LIBRARY"}
TINY = ["dataset=blobs", "backbone=linear", "method=source_only", "dataset.samples=60", "train=tiny", "device=cpu"]
# Python imports this first in every process: it writes down what a library finds when it is loaded.
SPY = """
import json, os, sys

class Spy:
    seen = set()

    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch") and name not in self.seen:
            self.seen.add(name)
            with open(os.environ["SPY"], "a") as file:
                line = {"library": name, "pid": os.getpid(), "argv": sys.orig_argv, "environ": dict(os.environ)}
                file.write(json.dumps(line) + "\\n")

sys.meta_path.insert(0, Spy())
"""


class Loaded(NamedTuple):
    """A library that a process has loaded, and what it found about waiting."""

    library: str
    pid: int
    argv: list[str]
    found: dict[str, str]


@pytest.fixture
def spied(tmp_path: Path):
    """Runs Python in an environment that says nothing about waiting, or only `said`; what was loaded where."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    environ = {name: value for name, value in os.environ.items() if name not in ABOUT_WAITING}
    environ |= {"PYTHONPATH": str(tmp_path), "SPY": str(tmp_path / "spied"), "RAY_AUTH_MODE": "disabled"}

    def run(*words: object, **said: str) -> list[Loaded]:
        (tmp_path / "spied").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *map(str, words)], env={**environ, **said}, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stdout + done.stderr
        lines = [json.loads(line) for line in (tmp_path / "spied").read_text().splitlines()]
        return [Loaded(x["library"], x["pid"], x["argv"], _about_waiting(x["environ"])) for x in lines]

    return run


def _about_waiting(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name in ABOUT_WAITING}


def _command(name: str) -> list[str]:
    return ["-c", f"import sys; from tl_runner.cli.{name} import main; sys.argv[0] = '{name}'; main()"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on images, beside which lies one of them."""
    folder = tmp_path_factory.mktemp("made")
    Image.new("L", (8, 8)).save(folder / "image.png")
    return made(folder / "outputs", *QUICK, "method=source_only").folder


def _words(name: str, run: Path) -> list[object]:
    return {
        "tl_run": [*TINY, "force=true"],
        "tl_screen": [word for word in TINY if word.split("=")[0] != "method" and not word.startswith("train")],
        "tl_report": [run],
        "tl_predict": [run, run.parents[3] / "image.png"],
        "tl_export": [run, "--to", "pt2"],
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_it_before_torch_and_numpy_load(name, spied, run):
    loaded = spied(*_command(name), *_words(name, run))
    assert {library for library, *_ in loaded} >= {"numpy"} | ({"torch"} if name != "tl_report" else set())
    assert [found for *_, found in loaded] == [SLEEPS] * len(loaded)


ENGINES = {"local": "multiprocessing.forkserver", "submitit_local": "submitit.core", "ray": "default_worker"}
SAID = {"OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_THREAD_TIMEOUT": "20"}


@pytest.mark.parametrize(
    ("launcher", "said", "expected"),
    [
        pytest.param("local", {}, SLEEPS, marks=pytest.mark.slow),
        pytest.param("local", SAID, SAID, marks=pytest.mark.slow),
        pytest.param("submitit_local", {}, SLEEPS, marks=pytest.mark.cluster),
        pytest.param("ray", {}, SLEEPS, marks=pytest.mark.cluster),
    ],
)
def test_workers_and_jobs_have_it_or_what_a_user_said(launcher, said, expected, spied):
    _needs(launcher)
    loaded = spied(*_command("tl_run"), "-m", *TINY, f"hydra/launcher={launcher}", "seed=0", **said)
    elsewhere = [library for library, _, argv, _ in loaded if ENGINES[launcher] in " ".join(argv)]
    assert {*elsewhere} == {"numpy", "torch"}, loaded
    assert [found for *_, found in loaded] == [expected] * len(loaded)


@pytest.mark.cluster
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_a_job_on_another_machine_has_it_as_it_unpacks(launcher, spied, tmp_path):
    """Nothing of the environment in which the command was typed comes there."""
    _needs(launcher)
    plugin: Any = import_module(f"tl_runner.sweep.plugins.{launcher.partition('_')[0]}")
    parcel = RemoteJob(Job(describe_run(*composed(*TINY))), threads=1, full_error=False)
    sent = (plugin._make, parcel) if launcher == "ray" else plugin.Requeueable(parcel)
    (tmp_path / "sent").write_bytes(pickle.dumps(sent))
    loaded = spied("-c", "import pickle; pickle.load(open('sent', 'rb')); import torch")
    assert "torch" in {library for library, *_ in loaded}
    assert [found for *_, found in loaded] == [SLEEPS] * len(loaded)


def test_python_has_it_unless_torch_was_first(spied):
    assert [found for *_, found in spied("-c", "import tl_runner; tl_runner.Method")] == [SLEEPS] * 2
    told = "import torch, os; before = dict(os.environ); import tl_runner; assert os.environ == before"
    assert spied("-c", told)[0].found == {}


@pytest.mark.parametrize(
    ("said", "set_"),
    [
        ({}, SLEEPS),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OPENBLAS_THREAD_TIMEOUT": "4"}),
        ({"KMP_LIBRARY": "turnaround"}, {"OPENBLAS_THREAD_TIMEOUT": "4", **SPIN}),
        ({"GOMP_SPINCOUNT": "7"}, {**SLEEPS, "GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "5"}, SLEEPS),
        ({"OPENBLAS_THREAD_TIMEOUT": "26"}, {"OMP_WAIT_POLICY": "PASSIVE", **SPIN}),
    ],
)
def test_what_a_user_has_set_stays(said, set_):
    environ = {**said}
    let_threads_sleep(environ)
    assert environ == {**said, **set_}


def _needs(launcher: str) -> None:
    library = launcher.partition("_")[0]
    if library in ("ray", "submitit") and not find_spec(library):
        pytest.skip(f"{library} is not installed")
