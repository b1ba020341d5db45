"""The house stays easy to live in: who imports whom, and how long a file may be."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tl_runner

ROOT = Path(tl_runner.__file__).parent
FILES = sorted(file for file in ROOT.rglob("*.py") if file.parent.name != "conf")  # which an install puts inside

COMMANDS = [
    name.replace("-", "_") for name in tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["scripts"]
]

# room -> the rooms of this package that it may import; packages count as one room.
MAY_IMPORT = {
    "atomic": set(),
    "cached": {"atomic"},
    "errors": set(),
    "menu": {"errors"},
    "openmp": set(),
    "part_names": {"menu"},
    "losses": set(),
    "importance": {"losses"},
    "validators": {"losses"},
    "divergence": {"importance", "losses"},
    "kernel_ratios": {"losses"},
    "transferability": {"errors"},
    "distances": {"losses"},
    "chance": set(),
    "select": {"errors"},
    "domains": {"errors"},
    "core": {"domains", "errors"},
    "features": {"cached", "core", "domains"},
    "batchnorm": {"core", "domains", "errors", "features"},
    "fixed": set(),
    "needed": {"core", "errors", "rates"},
    "alignment": {"core", "features", "losses"},
    "heads": {"core", "errors", "features", "losses"},
    "augment": {"chance", "errors"},
    "weights": {"errors"},
    "backbones": {"errors", "weights"},
    "rates": {"backbones", "core"},
    "optimizers": {"core", "errors", "rates"},
    "evaluate": {
        *("batchnorm", "core", "divergence", "domains", "errors", "features", "importance", "select", "validators"),
    },
    "exhibits": {"domains", "evaluate"},
    "diagnose": {"batchnorm", "core", "divergence", "domains", "errors", "evaluate", "exhibits", "features"},
    "train": {"chance", "core", "domains", "errors", "rates", "select"},
    "methods": {
        *("alignment", "augment", "batchnorm", "chance", "config", "core", "distances", "domains", "errors"),
        *("features", "fixed", "heads", "importance", "kernel_ratios", "losses", "needed", "rates"),
    },
    "datasets": {"atomic", "chance", "domains", "errors"},
    "checkpoint": {"atomic"},
    "progress": {"batchnorm", "chance", "select", "train"},
    "lock": {"atomic", "errors"},
    "start": {
        *("atomic", "batchnorm", "cached", "chance", "checkpoint", "config", "contents", "core", "domains", "errors"),
        *(
            "evaluate",
            "identity",
            "lock",
            "machine",
            "methods",
            "optimizers",
            "part_names",
            "progress",
            "rates",
            "store",
            "train",
        ),
        "whereabouts",
    },
    "choice": {
        *("batchnorm", "cached", "config", "contents", "core", "divergence", "domains", "errors", "evaluate"),
        *("identity", "inputs", "methods", "start", "store", "train", "validators", "whereabouts"),
    },
    "machine": {"core", "errors", "train"},
    "config": {"errors", "part_names", "select"},
    "contents": {"atomic", "datasets"},  # one rule of what is nobody's data (`litter`)
    "inputs": {
        "contents",
        "part_names",
    },  # which tells what a path in a configuration holds, before any data set is imported
    "identity": {"contents", "inputs", "part_names"},
    "whereabouts": set(),
    "store": {"contents", "identity", "inputs", "part_names"},
    "recording": {
        *("atomic", "checkpoint", "contents", "errors", "identity", "inputs", "progress", "store", "train", "trackers"),
        "whereabouts",
    },
    "trackers": {"errors", "lock", "select", "store", "train"},
    "preprocessing": {"datasets", "errors"},
    "restore": {"batchnorm", "config", "core", "errors", "heads", "preprocessing", "store"},
    # using -> datasets: which files of a folder count must be one rule for training and predicting (`litter`)
    "using": {"atomic", "datasets", "errors", "features", "preprocessing", "restore", "store"},
    "run": {
        *("batchnorm", "chance", "choice", "config", "core", "datasets", "evaluate", "heads", "machine", "progress"),
        *("recording", "start", "store", "train"),
    },
    "screen": {
        *("chance", "config", "core", "datasets", "divergence", "domains", "errors", "features", "machine"),
        *("rates", "start"),
        *("store", "train", "transferability", "whereabouts"),
    },
    "job": {"config", "errors", "lock", "run", "store", "train", "whereabouts"},
    "plan": {"job", "lock", "store"},
    "report": {"atomic", "errors", "identity", "inputs", "job", "lock", "plan", "screen", "store", "train"},
    "sweep": {
        *("atomic", "contents", "errors", "identity", "job", "lock", "menu", "plan", "recording", "report", "store"),
        "train",
        "validators",  # by which trials agree
    },
    "cli": {
        *("contents", "errors", "job", "machine", "menu", "preprocessing", "recording", "report", "restore"),
        *("rewording", "screen", "store", "sweep", "using"),
    },
    "rewording": {"errors", "menu"},
}
# library -> the only rooms that may import it
ONLY_IN = {
    "hydra": {"cli", "rewording", "sweep"},
    "rich": {"cli", "report"},
    "mlflow": {"trackers"},
    "optuna": {"sweep"},
    "ray": {"sweep"},
    "submitit": {"sweep"},
    "tensorboard": {"trackers"},
    "pandas": {"report"},
    "omegaconf": {"config", "part_names", "recording", "sweep"},
    "onnx": {"using"},
    "onnxruntime": {"using"},
    "onnxscript": {"using"},
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tl_runner":
            found |= {f"tl_runner.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in FILES if room(f) != "__init__"], ids=lambda f: str(f.relative_to(ROOT)))
def test_data_goes_one_way(file):
    here = room(file)
    for name in imports(file):
        library, _, rest = name.partition(".")
        if library == "tl_runner":
            assert rest.split(".")[0] in {here, *MAY_IMPORT[here]}, f"{here} imports {name}"
        assert here in ONLY_IN.get(library, {here}), f"{here} imports {name}"


def test_every_room_has_its_rule():
    assert {room(file) for file in FILES} - {"__init__"} == set(MAY_IMPORT)


def test_files_are_small():
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in FILES}
    assert max(lines.values()) <= 300, lines
    assert lines["run.py"] <= 90 and lines["methods/mmd.py"] <= 40
    loop = next(n for n in ast.parse((ROOT / "train.py").read_text()).body if getattr(n, "name", "") == "train")
    assert isinstance(loop, ast.FunctionDef) and loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno < 60


def test_the_method_that_contributing_shows_is_the_one_that_there_is():
    shown = (ROOT.parent / "CONTRIBUTING.md").read_text().partition("```diff\n")[2].partition("```")[0]
    for part in shown.split("--- /dev/null\n+++ b/")[1:]:
        name, *lines = part.splitlines()
        assert (ROOT.parent / name).read_text().splitlines() == [line[1:] for line in lines if line.startswith("+")]


def test_only_the_run_opens_the_answers():
    opened = [room(file) for file in FILES if ".open()" in file.read_text().replace("files.open()", "")]
    assert opened == ["run"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_heavy_library(name):
    code = (
        f"import sys; sys.argv = ['{name}', '--help']\n"
        f"from tl_runner.cli.{name} import main\n"
        "import tl_runner\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pandas', 'sklearn', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_public_names_are_loaded_late():
    code = "import sys, tl_runner; assert 'torch' not in sys.modules; tl_runner.Method; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert dir(tl_runner) == ["Batch", "Labelled", "Method", "Model", "Pair", "load"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tl_runner.nothing
