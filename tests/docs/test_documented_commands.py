"""Every command that the documentation shows does what it says: it is executed here, made cheap.

Collected: what begins with `tl-` in fenced and four-space blocks, in code spans, and in the comments of conf/**/*.yaml.
They run in this process, in one folder that holds what the pages mention. A run is made cheap by `train=tiny
pretrain=tiny diagnose=none threads=1`, 20 steps where the command itself names a number of them, 300 small digits,
seeds 0 and 1 at most, and Hydra's basic launcher. What starts a cluster, another process or a service is composed with
`dry=true`. What is left out is named in LEFT_OUT with its reason; any other command that fails, a new one too, fails
the test.
"""

import csv
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from conftest import CONF, Said
from support.sounds import write_domains

from tl_runner.datasets.reviews import reviews

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LEFT_OUT = {  # a pattern of whole commands: why they are not executed
    r"tl-(predict|export|screen|report diff|run -m)": "the name of a command in a sentence",
    r".*….*": "an ellipsis stands for words of the reader's",
    r".*\b(INPUT|NAME)\b.*": "a placeholder for words of the reader's",
    r".*\bdataset=(fashion|cifar\w*)\b.*": "needs a data set that is downloaded",
    r".*\bbackbone\.weights=imagenet\b.*": "downloads weights",
    r".*\$DIR\b.*": "needs the files of an encoder",
}
DRY = re.compile(r"hydra/launcher=|hydra\.launcher\.|tracker=|timeout=")  # composed only: cluster, processes, services
CHEAP = {"tl-screen": ["pretrain=tiny", "dataset.samples=300", "device=cpu"]}
SPAN = re.compile(r"`(tl-[a-z]+(?:\s[^`]*)?)`")
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def commands_of(text: str) -> Iterator[str]:
    """The commands of a line of a block: what begins with `tl-`, also after `$ ` and `&&`, without its comment."""
    for part in text.strip().removeprefix("$ ").split("&&"):
        if re.match(r"tl-[a-z]+( |$)", part.strip()):
            yield re.split(r"\s+#", part.strip())[0]


def commands_in_page(text: str) -> Iterator[str]:
    """Those of a page in Markdown."""
    blocks = BLOCK.findall(text)
    rest = BLOCK.sub("", text)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [line for line in rest.splitlines() if line.startswith("    ")]
    for line in lines:
        yield from commands_of(line)
    for span in SPAN.findall(rest):
        yield from commands_of(" ".join(span.split()))


def commands_in_yaml(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith("#"):
            yield from commands_of(line.lstrip("# "))


def documented() -> dict[str, list[str]]:
    """Each command once, and the files that show it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for command in commands_in_page(page.read_text()):
            found.setdefault(command, []).append(page.name)
    for path in sorted(CONF.rglob("*.yaml")):
        for command in commands_in_yaml(path.read_text()):
            found.setdefault(command, []).append(f"conf/{path.relative_to(CONF)}")
    return found


DOCUMENTED = documented()
EXECUTED = [command for command in DOCUMENTED if not any(re.fullmatch(pattern, command) for pattern in LEFT_OUT)]


def alternatives(words: list[str]) -> Iterator[list[str]]:
    """`--to onnx|pt2` is two commands."""
    yield from map(list, product(*([word] if "=" in word else word.split("|") for word in words)))


def cheap(words: list[str]) -> list[str]:
    """The words of tl-run, and what makes it short."""
    if {"--help", "--version", "--cfg"} & set(words):
        return words
    text = " ".join(words)
    if "experiment=" in text:  # tests/experiments makes their runs
        return [*words, "dry=true"]
    seeds = [word for word in words if word.startswith("seed=")]
    words = [word for word in words if word not in seeds]
    if seeds:
        words.append("seed=0,1" if re.search(r"[,(]", seeds[0]) else seeds[0])
    for group in ("train", "pretrain"):
        if not re.search(rf"(^| ){group}=", text):
            words.append(f"{group}=tiny")
    words = [re.sub(r"^((?:pre)?train\.steps)=.*", r"\1=20", word) for word in words]
    if "dataset=" not in text or "dataset=digits" in words:
        words += ["dataset.samples=300", "dataset.size=8"]
    elif "dataset=image_folder" in words and "dataset.size=" not in text:
        words.append("dataset.size=16")
    if "resnet" in text:
        words.append("train.steps=4")
    if "diagnose=" not in text:
        words.append("diagnose=none")
    if "hydra/sweeper=tl_optuna" in words:
        words = [word for word in words if not word.startswith("hydra.sweeper.n_trials=")] + [
            "hydra.sweeper.n_trials=2"
        ]
    if DRY.search(text):
        words.append("dry=true")
    elif "-m" in words:
        words.append("hydra/launcher=basic")
    return [*words, "device=cpu", "threads=1"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages mention, made by the scripts of docs/quickstart.md and docs/extending.md."""
    folder = tmp_path_factory.mktemp("documented")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        blocks = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "docs/quickstart.md").read_text(), re.MULTILINE | re.DOTALL
        )
        for block in blocks:
            exec(compile(block, "docs/quickstart.md", "exec"), {})
    made = reviews(0, samples=60)
    for domain in (made.source, made.target):
        assert domain and domain.texts is not None
        rows = zip(domain.texts, (domain.classes[y] for y in domain.y.tolist()), strict=True)
        with (folder / f"{domain.name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    for root, domains in (("recordings", ("studio", "phone")), ("words", ("espeak", "flite"))):
        for name, domain in zip("ab", domains, strict=True):
            shutil.copytree(write_domains(folder / "sounds", name) / name, folder / root / domain)
    extending = (ROOT / "docs/extending.md").read_text()
    for group, name in (("method", "my_method"), ("backbone", "mobilenet")):
        code = re.search(rf"`{name}\.py`:\n\n```python\n(.*?)^```$", extending, re.MULTILINE | re.DOTALL)
        options = re.search(
            rf"`mine/{group}/{name}\.yaml`:\n\n```yaml\n(.*?)^```$", extending, re.MULTILINE | re.DOTALL
        )
        assert code and options
        (folder / f"{name}.py").write_text(code[1])
        (folder / "mine" / group).mkdir(parents=True)
        (folder / "mine" / group / f"{name}.yaml").write_text(options[1])
    return folder


@pytest.fixture
def folder(prepared: Path, typed: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared folder as the current one, with finished runs: RUN, RUN1 and RUN2 of the pages, and some more."""
    monkeypatch.chdir(prepared)
    if not (prepared / "RUN").exists():
        photos = ["dataset=image_folder", "dataset.root=photos", "dataset.source=studio", "dataset.target=phone"]
        tables = ["dataset=table", "dataset.source=a.csv", "dataset.target=b.csv", "dataset.label=diagnosis"]
        tiny = ["train=tiny", "pretrain=tiny", "device=cpu", "threads=1"]
        for words in (
            [*photos, "method=source_only", "dataset.size=16"],
            [*photos, "method=mmd", "dataset.size=16"],
            [*tables, "backbone=mlp", "diagnose=none"],
            ["dataset.samples=300", "dataset.size=8", "diagnose=none"],
        ):
            ended = typed("tl-run", *words, *tiny)
            assert ended.code == 0, ended.err
        for name, method in (("RUN1", "source_only"), ("RUN2", "mmd"), ("RUN", "mmd")):
            (run,) = (prepared / "outputs" / "runs" / "image_folder").glob(f"{method}-*")
            shutil.copytree(run, prepared / name)
    return prepared


@pytest.mark.filterwarnings("default")  # of third parties, in plug-ins that are loaded into this process
@pytest.mark.parametrize("command", EXECUTED)
def test_a_documented_command_does_what_it_says(command: str, folder: Path, typed: Callable[..., Said]):
    name, *words = [re.sub(r"^outputs/runs/.*-s\d+-[0-9a-f]{10}$", "RUN", word) for word in shlex.split(command)]
    for chosen in alternatives(words):
        made = cheap(chosen) if name == "tl-run" else [*chosen, *CHEAP.get(name, [])]
        if name == "tl-screen" and "dataset=reviews" not in chosen:
            made.append("dataset.size=8")
        ended = typed(name, *made)
        assert ended.code == 0, (
            f"{', '.join(DOCUMENTED[command])}: {shlex.join([name, *made])}\n{ended.err}\n{ended.out}"
        )


@pytest.mark.parametrize("pattern", LEFT_OUT)
def test_what_is_left_out_is_documented(pattern: str):
    assert any(re.fullmatch(pattern, command) for command in DOCUMENTED), f"{pattern}: remove it from LEFT_OUT"


def test_commands_are_found_in_blocks_spans_and_comments():
    page = "`tl-report` and\n`tl-predict RUN\nx/`\n\n    pip install . && tl-run seed=1   # a note\n"
    page += "\n```\n$ tl-run -m \\\n  seed=0,1\n```\n"
    assert [*commands_in_page(page)] == ["tl-run -m    seed=0,1", "tl-run seed=1", "tl-report", "tl-predict RUN x/"]
    assert [*commands_in_yaml("# MMD.\n#   tl-run method=mmd\nweight: 1  # tl-run\n")] == ["tl-run method=mmd"]
