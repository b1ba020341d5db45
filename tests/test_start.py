"""Which heavy libraries a command loads: each costs every process a part of a second, or seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("hydra", "jinja2", "matplotlib", "numpy", "ot", "pandas", "PIL", "rich", "scipy", "sklearn", "torch"),
    *("torch._dynamo", "torchvision"),
}
COMMAND = {"hydra", "rich"}  # what composing and printing take
TRAINS = {
    *COMMAND,
    "numpy",
    "scipy",
    "torch",
}  # scipy: the class shares of the diagnosis, by non-negative least squares
RUN = ("dataset=blobs", "backbone=mlp", "method=source_only", "train=tiny", "device=cpu")


def loaded_by(command: str, *words: str, where: Path) -> set[str]:
    """The heavy libraries that this command has loaded when it ends."""
    code = (
        f"import json, sys; sys.argv = {[command.replace('_', '-'), *words]!r}\n"
        f"from tl_runner.cli.{command} import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', json.dumps(sorted({HEAVY!r} & sys.modules.keys())))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run."""
    where = tmp_path_factory.mktemp("start")
    assert loaded_by("tl_run", *RUN, where=where) == TRAINS
    return where


@pytest.mark.parametrize("command", ["tl_run", "tl_report", "tl_screen", "tl_predict", "tl_export"])
def test_help_loads_nothing_heavy(command, tmp_path):
    assert loaded_by(command, "--help", where=tmp_path) <= {"rich"}


def test_a_finished_run_and_a_plan_load_no_torch(folder):
    assert loaded_by("tl_run", *RUN, where=folder) == COMMAND
    assert loaded_by("tl_run", *RUN, "seed=1", "dry=true", where=folder) == COMMAND
    assert loaded_by("tl_run", "-m", *RUN, "seed=0,1,2", "dry=true", where=folder) == COMMAND


def test_a_report_loads_no_torch(folder):
    found = loaded_by("tl_report", where=folder)
    assert "pandas" in found and not found & {"hydra", "matplotlib", "sklearn", "torch", "torchvision"}


def test_training_loads_neither_the_compiler_nor_what_no_part_asks_for(folder):
    """The fixture has checked the smoke run; a method that adapts needs no more."""
    assert loaded_by("tl_run", *RUN, "method=mmd", "optimizer=sgd", where=folder) == TRAINS


@pytest.mark.slow
def test_what_asks_for_a_library_gets_it(folder):
    assert "sklearn" in loaded_by("tl_run", *RUN, "dataset=synthetic", where=folder)
    assert "torchvision" in loaded_by(
        "tl_run", *RUN, "dataset=digits", "backbone=resnet18", "train.steps=1", where=folder
    )
