"""A run's model as one file that other programs can run: inputs as the dataset gives them -> class probabilities.

What the file computes is compared with the model before it gets its name: one that differs is never there.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.inference.load import Trained
from tl_runner.models.features import rows_per_batch
from tl_runner.models.heads import InUnit
from tl_runner.storage.atomic import open_atomically

log = logging.getLogger(__name__)

Format = Literal["onnx", "torchscript", "pt2"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".torchscript", "pt2": ".pt2"}
TOLERANCE = 1e-4  # of a probability: sums in another order differ by 1e-7 to 1e-5, another function by much more
LENGTHS = (3, 1, 2)  # a third of the tokens of a text are read, then all, then half
INPUT, PROBABILITIES, VALUES = "input", "probabilities", "values"  # the names that an ONNX file gives them
FACTS = "tl_runner.json"  # the extra file of torchscript and pt2

_SIZES_MAY_BE_FIXED = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]

Run = Callable[[Tensor], Tensor]


class Predictor(nn.Module):
    """input (n, …) -> softmax(model(input)) (n, C) float32: unlike logits, the same thing for every head.

    Where there are no classes: the quantity (n, 1) in its own unit.
    """

    def __init__(self, model: Model):
        super().__init__()
        self.model, self.predict = model, model.task.predict
        self.output = name_output(model)
        self.unit = model.head.sd if isinstance(model.head, InUnit) else 1.0  # that differences are measured in

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in the file)
        return self.predict(self.model(input))


def name_output(model: Model) -> str:
    """What an exported file calls what it gives."""
    return PROBABILITIES if model.classes else VALUES


class Exported(NamedTuple):
    """The file, and how far at most a probability of its is from the model's on the samples.

    A quantity's difference is a share of its deviation.
    """

    file: Path
    difference: float


@torch.no_grad()
def export(trained: Trained, samples: Tensor, to: Format, out: Path, facts: dict[str, Any]) -> Exported:
    """Write the model as `out`, in this format, with any number of rows a call, and check it on samples (n, …), n ≥ 3.

    Of token ids (n, t) the file takes any length up to t. The model is on the CPU. `facts` go into the file beside the
    names of the classes and what is known of the preprocessing. Raises `UserError` where the format can't express the
    model, or where a prediction of the file is off by more than `TOLERANCE`; there is no new file then, and an old one
    stays as it was.
    """
    model = Predictor(trained.model).eval()
    said = {**facts, "classes": trained.classes, "preprocessing": trained.preprocessing.facts, "output": model.output}
    write, read = WAYS[to]
    torch.compiler.reset()  # else the length of a model that was exported before may be taken for a constant
    with open_atomically(out) as file:
        with _in_words(to):
            write(model, samples[:3], said, file)  # more than one row: a size of 1 would be taken for a constant
            file.flush()
            difference = farthest(model, read(Path(file.name)), samples) / model.unit
        if not difference <= TOLERANCE:  # NaN is not either
            raise UserError(
                f"the {to} file does not match the model: on {len(samples)} samples a prediction differs by up to"
                f" {difference:.1e}, and {TOLERANCE:.0e} is allowed; it was removed"
            )
    return Exported(out, difference)


def farthest(model: Run, other: Run, samples: Tensor) -> float:
    """max |model(x) − other(x)| over the samples (n, …): the first row alone, the next two, then many at a time.

    Of token ids (n, t) some are cut: a text may have any length.
    """
    sizes = [1, 2]
    rest = len(samples) - sum(sizes)
    most = rows_per_batch(samples[0].numel())
    parts = samples.split([*sizes, *[most] * (rest // most), *filter(None, [rest % most])])
    differences = []
    for part, divisor in zip(parts, cycle(LENGTHS), strict=False):
        part = part[:, : max(1, part.shape[1] // divisor)] if part.dtype == torch.int64 else part  # noqa: PLW2901
        mine, theirs = model(part), other(part)
        if mine.shape != theirs.shape:
            raise UserError(f"for inputs {tuple(part.shape)} the file gives {tuple(theirs.shape)}, the model"
                          f" {tuple(mine.shape)}")  # fmt: skip
        differences.append((mine - theirs).abs().max())
    return float(torch.stack(differences).max())  # NaN is the largest


def _free_sizes(example: Tensor) -> dict[int, Any]:
    """The dimensions of an input that may have any size: the rows, and of token ids (n, t) the length up to t."""
    text = {1: torch.export.Dim("length", max=example.shape[1])} if example.dtype == torch.int64 else {}
    return {0: torch.export.Dim("batch"), **text}


def _write_onnx(model: Predictor, example: Tensor, said: dict[str, Any], file: IO[bytes]) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401  (it runs the check)
        import onnxscript  # noqa: F401  (PyTorch's exporter needs it)
    except ImportError as error:
        raise UserError(f'--to onnx needs the package {error.name}: pip install "tl_runner[export]"') from error
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=(_free_sizes(example),),
        input_names=[INPUT], output_names=[model.output], verbose=False,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in said.items()})
    file.write(proto.SerializeToString())  # weights and all in one file, which ONNX limits to 2 GB


def _read_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {INPUT: x.numpy()})[0])


def _write_torchscript(model: Predictor, example: Tensor, said: dict[str, Any], file: IO[bytes]) -> None:
    log.warning("PyTorch %s calls TorchScript deprecated; onnx and pt2 have a future", torch.__version__)
    traced = torch.jit.trace(model, example, check_trace=False)
    torch.jit.save(traced, file, _extra_files={FACTS: json.dumps(said)})


def _read_torchscript(path: Path) -> Run:
    return torch.jit.load(str(path))


def _write_pt2(model: Predictor, example: Tensor, said: dict[str, Any], file: IO[bytes]) -> None:
    program = torch.export.export(model, (example,), dynamic_shapes=(_free_sizes(example),))
    torch.export.save(program, file, extra_files={FACTS: json.dumps(said)})


def _read_pt2(path: Path) -> Run:
    with path.open("rb") as file:
        return torch.export.load(file).module()


WAYS: dict[Format, tuple[Callable[[Predictor, Tensor, dict[str, Any], IO[bytes]], None], Callable[[Path], Run]]] = {
    "onnx": (_write_onnx, _read_onnx),
    "torchscript": (_write_torchscript, _read_torchscript),
    "pt2": (_write_pt2, _read_pt2),
}


@contextmanager
def _in_words(to: Format) -> Iterator[None]:
    """What an exporter raises as a refusal that names the format; a full disk is no fault of the model's.

    PyTorch warns here of parts of its own that will change. That TorchScript is one of them, we say in a line of
    ours – and whether the file is right is measured.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", _SIZES_MAY_BE_FIXED)  # several are tried
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # of torch.export.load, in 2.11
            yield
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever the exporter meets in a network that it can't express
        cause: BaseException = error
        while cause.__cause__:  # the exporters wrap what was wrong in advice to write to their makers
            cause = cause.__cause__
        told = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
        raise UserError(f"this model can't be written as {to}: {type(cause).__name__}: {told}") from error
