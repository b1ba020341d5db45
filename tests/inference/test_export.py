"""tl-export: the file computes what the model computes, for every head and format, or it is not there."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, made
from safetensors.torch import load_file
from torch import Tensor, nn

import tl_runner
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.inference.export import Format, export, farthest
from tl_runner.inference.load import Trained
from tl_runner.inference.samples import samples
from tl_runner.models import backbones, heads
from tl_runner.preprocessing.batching import Unknown
from tl_runner.preprocessing.images import Images
from tl_runner.storage.record import RunRecord
from tl_runner.tasks import Regression, Task

# What PyTorch says of TorchScript is said by the command; the others are about parts of PyTorch itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),
]

FORMATS: tuple[Format, ...] = ("onnx", "torchscript", "pt2")
WIDTH, CLASSES = 12, 3


HEADS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(WIDTH, CLASSES),
    "Cosine": lambda: heads.Cosine(WIDTH, CLASSES),
    "Neighbours": lambda: heads.Neighbours(torch.rand(30, WIDTH), torch.arange(30) % CLASSES, CLASSES, 4),
    "Kernel, Linear": lambda: nn.Sequential(
        heads.Kernel(torch.rand(9, WIDTH), torch.randn(9, 4), torch.tensor(3.0)), nn.Linear(4, CLASSES)
    ),
    "Perceptron": lambda: heads.perceptron(WIDTH, 6, 0.5, CLASSES),
    "Calibrated, Linear": lambda: heads.Calibrated(nn.Linear(WIDTH, CLASSES), 1.7),
    "Margins": lambda: heads.Margins(WIDTH, CLASSES),
    "MeanOfHeads": lambda: heads.MeanOfHeads(WIDTH, CLASSES, 3),
    "Votes": lambda: heads.Votes(torch.randn(5, CLASSES, WIDTH), torch.randn(5, CLASSES), torch.rand(5)),
}
OF_QUANTITIES: dict[str, Callable[[], nn.Module]] = {
    "InUnit, Linear": lambda: heads.InUnit(nn.Linear(WIDTH, 1), 30.0, 2.0),
    "NeighbourMean": lambda: heads.NeighbourMean(torch.rand(30, WIDTH), torch.randn(30), 4),
    "WeightedMedian": lambda: heads.WeightedMedian(torch.randn(5, WIDTH), torch.randn(5), torch.rand(5)),
}


def trained(
    backbone: backbones.Backbone, shape: tuple[int, ...], head: nn.Module | None = None, task: Task | None = None
) -> Trained:
    """A model whose BatchNorm statistics are not those it was made with."""
    module, width = backbone
    model = Model(module, width, task or [f"c{i}" for i in range(CLASSES)])
    model.head = head or model.head
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(16, *shape))
    way = Images(*shape, "torch") if len(shape) == 3 else Unknown("a test", shape)
    return Trained(model.eval(), way, model.classes)


def run_by(file: Path, to: Format) -> Callable[[Tensor], Tensor]:
    """The file as others would run it."""
    if to == "pt2":
        with file.open("rb") as stored:
            return torch.export.load(stored).module()
    if to == "torchscript":
        return torch.jit.load(str(file))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (only,), (given,) = session.get_inputs(), session.get_outputs()
    assert only.name == "input" and given.name in ("probabilities", "values") and not isinstance(only.shape[0], int)
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def agrees(file: Path, to: Format, model: Model, x: Tensor) -> None:
    run = run_by(file, to)
    for part in (x, x[:1]):
        with torch.no_grad():
            torch.testing.assert_close(run(part), model.task.predict(model(part)), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("head", [*HEADS, *OF_QUANTITIES])
def test_every_head_in_every_format(head, to):
    torch.manual_seed(0)
    net, task = backbones.small((3, 8, 8), width=WIDTH, channels=4), Regression("y") if head in OF_QUANTITIES else None
    which = trained(net, (3, 8, 8), {**HEADS, **OF_QUANTITIES}[head](), task)
    x = torch.rand(40, 3, 8, 8)
    file, difference = export(which, x, to, Path("model"), {"run": "0123"})
    assert file == Path("model") and difference < 1e-5  # float32 sums in another order
    agrees(file, to, which.model, torch.rand(100, 3, 8, 8))


def test_all_heads_that_a_stored_run_may_have_are_among_them():
    own = {name for name, kind in vars(heads).items() if isinstance(kind, type) and kind.__module__ == heads.__name__}
    assert {name for name in own if issubclass(getattr(heads, name), nn.Module)} <= set(" ".join([*HEADS, *OF_QUANTITIES]).replace(",", "").split())  # noqa: E501  # fmt: skip


@pytest.mark.slow
def test_a_resnet_as_onnx_agrees_on_256_samples():
    torch.manual_seed(0)
    which = trained(backbones.resnet18((1, 8, 8), stem="cifar"), (1, 8, 8))
    x = torch.rand(256, 1, 8, 8)
    file, difference = export(which, x, "onnx", Path("model"), {})
    assert difference < 1e-5
    agrees(file, "onnx", which.model, x)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_a_net_for_rows_and_one_read_at_a_stage(to):
    torch.manual_seed(0)
    which = trained(backbones.mlp((7,), width=8), (7,))
    agrees(export(which, torch.randn(20, 7), to, Path("rows"), {}).file, to, which.model, torch.randn(9, 7))
    from tl_runner.models.features import cut_model

    part = cut_model(trained(backbones.small((1, 8, 8), channels=4), (1, 8, 8)).model, "conv2", (1, 8, 8)).eval()
    which = Trained(part, Unknown("a test", (1, 8, 8)), part.classes)
    agrees(export(which, torch.rand(20, 1, 8, 8), to, Path("part"), {}).file, to, part, torch.rand(9, 1, 8, 8))


def facts_in(file: Path, to: Format) -> dict[str, object]:
    if to == "onnx":
        import onnx

        return {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    extra = {"tl_runner.json": ""}
    if to == "pt2":
        with file.open("rb") as stored:
            torch.export.load(stored, extra_files=extra)
    else:
        torch.jit.load(str(file), _extra_files=extra)
    return json.loads(extra["tl_runner.json"])


@pytest.mark.parametrize("to", FORMATS)
def test_the_command_exports_and_says_what_it_is(to, tmp_path, typed, tiny):
    said = typed("tl-export", tiny.folder, "--to", to, "--out", "mine")
    assert said.code == 0, said.err
    assert "input (n, 1, 8, 8) float32 -> probabilities (n, 10); on 256 samples (48 of the run's data," in said.out
    assert ("deprecated" in said.err) == (to == "torchscript") == bool(said.err)
    facts = facts_in(Path("mine"), to)
    assert facts["classes"] == list("0123456789") and facts["run"] == tiny.id and facts["output"] == "probabilities"
    told = facts["preprocessing"]
    assert isinstance(told, dict) and told["shape"] == [1, 8, 8] and told["kind"] == "image"
    model = tl_runner.load(tiny.folder).model
    agrees(Path("mine"), to, model, torch.rand(20, 1, 8, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return made(tmp_path_factory.mktemp("tiny"), *QUICK, "method=source_only", "threads=1")


def test_without_a_name_the_file_is_in_the_run_and_an_old_one_is_replaced(tiny, typed, tmp_path):
    shutil.copytree(tiny.folder, tmp_path / "run")
    Path("run/model.pt2").write_text("old")
    said = typed("tl-export", "run", "--to", "pt2", "--samples", "20")
    assert said.code == 0 and said.out.startswith("run/model.pt2: ") and "on 20 samples" in said.out
    agrees(Path("run/model.pt2"), "pt2", tl_runner.load("run").model, torch.rand(5, 1, 8, 8))


class Fickle(nn.Module):
    """Another function when it is traced: the second call adds to what the first one gave."""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        off = self.by if exporting else 0.0
        return x + off * torch.arange(x.shape[-1])


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("by", "refused"), [(0.01, True), (float("nan"), True), (1e-6, False)])
def test_a_file_that_computes_something_else_is_not_left(to, by, refused):
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(8, CLASSES), Fickle(by))
    which = trained(backbones.linear((4,), width=8), (4,), head)
    Path("model").write_text("old")
    if refused:
        with pytest.raises(
            UserError, match=f"the {to} file does not match the model: on 9 samples a prediction differs by"
        ):
            export(which, torch.randn(9, 4), to, Path("model"), {})
        assert [path.read_text() for path in Path().iterdir()] == ["old"]
    else:
        assert 0 < export(which, torch.randn(9, 4), to, Path("model"), {}).difference < 1e-5


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_what_a_format_can_not_express_is_refused_in_words(to):
    which = trained(backbones.linear((4,), width=8), (4,), nn.Sequential(nn.Linear(8, CLASSES), Undecided()))
    with pytest.raises(UserError, match=f"this model can't be written as {to}: "):
        export(which, torch.randn(9, 4), to, Path("model"), {})
    assert not list(Path().iterdir())


def test_without_its_packages_onnx_is_refused_with_their_names(tiny, typed, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = typed("tl-export", tiny.folder, "--to", "onnx", "--out", "mine")
    assert said.code == 1 and said.out == "" and 'pip install "tl_runner[export]"' in said.err
    assert "error: --to onnx needs the package onnxscript" in said.err and not Path("mine").exists()


def test_what_the_command_refuses(tiny, typed):
    assert "samples must be between 3" in typed("tl-export", tiny.folder, "--to", "pt2", "--samples", "2").err
    assert "there is no folder no" in typed("tl-export", tiny.folder, "--to", "pt2", "--out", "no/model.pt2").err
    assert typed("tl-export", tiny.folder, "--to", "pickle").code == 2
    weights = tiny.folder / "model.safetensors"
    before = weights.read_bytes()
    assert "this command did not write it" in typed("tl-export", tiny.folder, "--to", "pt2", "--out", weights).err
    assert weights.read_bytes() == before
    said = typed("tl-export", tiny.folder, "--to", "pt2", "--out", "model.onnx")
    assert said.code == 1 and "named as --to onnx writes it" in said.err and not Path("model.onnx").exists()


def test_the_largest_difference_is_that_of_any_row_in_a_call_of_any_size():
    x = torch.randn(40, 3)

    def off(row: int, by: float = 0.5) -> Callable[[Tensor], Tensor]:
        return lambda part: part + by * (part == x[row]).all(-1)[:, None]

    for row in (0, 1, 2, 3, 39):
        assert farthest(lambda part: part, off(row), x) == pytest.approx(0.5)
    assert farthest(lambda part: part, off(5, -0.25), x) == pytest.approx(0.25)
    assert np.isnan(farthest(lambda part: part, off(5, float("nan")), x))
    assert farthest(lambda part: part, lambda part: part if len(part) > 1 else part + 1, x) == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"for inputs \(1, 3\) the file gives \(1, 2\), the model \(1, 3\)"):
        farthest(lambda part: part, lambda part: part[:, :2], x)


def test_samples_are_rows_of_the_test_split_and_random_ones_in_range(tiny, tmp_path):
    from PIL import Image

    which = tl_runner.load(tiny.folder)
    shutil.copytree(tiny.folder, tmp_path / "run")
    record = RunRecord(**{**vars(tiny), "found": Path("run"), "data": replace(tiny.data, range=[0.25, 0.5])})
    for i in range(5):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(f"{i}.png")
    Path("run/test.csv").write_text("path\n" + "".join(f"{i}.png\n" for i in range(5)))
    found = samples(which, record, 40)
    assert (found.x.shape, found.real, found.why) == ((40, 1, 8, 8), 5, "")
    assert found.x[:5, 0, 0, 0].tolist() == pytest.approx([10 * i / 255 for i in range(5)])
    assert 0.25 <= found.x[5:].min() < 0.27 and 0.48 < found.x[5:].max() <= 0.5
    few = samples(which, record, 6)
    assert (len(few.x), few.real) == (6, 3)
    Path("3.png").unlink()
    kept = samples(which, record, 100)
    held = load_file("run/diagnosis.safetensors")
    assert (len(kept.x), kept.real, kept.why) == (100, 48, "")
    assert torch.equal(kept.x[:24], held["target_samples"] / 255)
    assert samples(which, record, 60).real == 30
    Path("run/diagnosis.safetensors").unlink()
    none = samples(which, record, 6)
    assert (len(none.x), none.real) == (6, 0) and "is missing, such as 3.png" in none.why
