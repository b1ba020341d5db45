"""Which package may import which, and what a command loads."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tl_runner

ROOT = Path(tl_runner.__file__).parent
FILES = sorted(file for file in ROOT.rglob("*.py") if file.parent.name != "conf")  # which an install puts inside

COMMANDS = [
    name.replace("-", "_") for name in tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["scripts"]
]

# package, or module of the root -> what of this package it may import; lower ones first
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "openmp": set(),
    "plurals": set(),
    "rng": set(),
    "tasks": {"functional"},
    "domains": {"errors", "tasks"},
    "core": {"domains", "errors", "functional", "rng", "tasks"},
    "options": {"errors"},
    "option_names": {"options"},
    "experiments": {"errors", "options", "pairs", "plurals"},
    "pairs": {"datasets", "errors", "option_names", "options"},
    "functional": {"errors", "rng"},
    "storage": {"errors", "option_names"},
    "datasets": {"domains", "errors", "plurals", "rng", "storage", "tasks"},
    "models": {"core", "domains", "errors", "functional", "options", "rng", "storage", "tasks"},
    "preprocessing": {"datasets", "domains", "errors", "models", "plurals", "storage"},
    "training": {"core", "domains", "errors", "models", "options", "rng"},
    "evaluation": {"core", "domains", "errors", "functional", "models", "storage", "tasks", "training"},
    "config": {
        *("core", "datasets", "errors", "evaluation", "option_names", "options", "storage", "tasks", "trackers"),
        "training",
    },
    "methods": {"config", "core", "domains", "errors", "functional", "models", "options", "rng", "tasks", "training"},
    "trackers": {"errors", "storage", "training"},
    "inference": {
        "config",
        "core",
        "errors",
        "functional",
        "models",
        "plurals",
        "preprocessing",
        "rng",
        "storage",
        "tasks",
    },
    "engine": {
        *("config", "core", "datasets", "domains", "errors", "evaluation", "functional", "methods", "models"),
        *("option_names", "rng", "storage", "tasks", "trackers", "training"),
    },
    "report": {"engine", "options", "plurals", "storage", "training"},
    "sweep": {
        *("engine", "errors", "experiments", "functional", "option_names", "options", "pairs", "plurals", "report"),
        "storage",
    },
    "cli": {
        "engine",
        "errors",
        "experiments",
        "inference",
        "options",
        "plurals",
        "preprocessing",
        "report",
        "storage",
        "sweep",
    },
    "notebook": {"cli", "engine", "errors", "options", "report", "rng", "storage", "sweep"},
}
# library -> the only packages that may import it
ONLY_IN = {
    "hydra": {"cli", "notebook", "sweep"},
    "rich": {"cli", "report"},
    "mlflow": {"trackers"},
    "optuna": {"sweep"},
    "ray": {"sweep"},
    "submitit": {"sweep"},
    "tensorboard": {"trackers"},
    "trackio": {"trackers"},
    "wandb": {"trackers"},
    "pandas": {"notebook", "report"},
    "omegaconf": {"config", "engine", "option_names", "sweep"},
    "pyarrow": {"datasets"},
    "soundfile": {"datasets"},
    "onnx": {"inference"},
    "onnxruntime": {"inference"},
    "onnxscript": {"inference"},
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tl_runner":
            found |= {f"tl_runner.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def package(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in FILES if package(f) != "__init__"], ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file):
    here = package(file)
    for name in imports(file):
        library, _, rest = name.partition(".")
        if library == "tl_runner":
            assert rest.split(".")[0] in {here, *MAY_IMPORT[here]}, f"{here} imports {name}"
        assert here in ONLY_IN.get(library, {here}), f"{here} imports {name}"


def test_every_package_has_its_rule_and_no_two_need_each_other():
    assert {package(file) for file in FILES} - {"__init__"} == set(MAY_IMPORT)
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


def test_no_two_modules_need_each_other():
    """What only a type checker imports counts, too: a circle of ideas is one."""
    names = {file: ".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in FILES}
    TopologicalSorter({names[file]: imports(file) & {*names.values()} for file in FILES}).prepare()


def test_the_method_that_contributing_shows_is_the_one_that_there_is():
    shown = (ROOT.parent / "CONTRIBUTING.md").read_text().partition("```diff\n")[2].partition("```")[0]
    for part in shown.split("--- /dev/null\n+++ b/")[1:]:
        name, *lines = part.splitlines()
        assert (ROOT.parent / name).read_text().splitlines() == [line[1:] for line in lines if line.startswith("+")]


def test_only_the_run_opens_the_answers():
    opened = [
        file.relative_to(ROOT).as_posix() for file in FILES if ".open()" in file.read_text().replace("files.open()", "")
    ]
    assert opened == ["engine/run.py"]


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
    assert dir(tl_runner) == sorted(tl_runner.__all__) and all(getattr(tl_runner, name) for name in dir(tl_runner))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tl_runner.nothing
