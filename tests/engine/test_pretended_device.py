"""What would go wrong on a GPU, or wait for it, on a device that is not there: see `support.pretended_device`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    METHODS,
    OF_OTHERS,
    OF_QUANTITIES,
    OF_SEVERAL_SOURCES,
    OF_TEXTS,
    QUICK,
    REPRESENTATIVES,
    built,
    composed,
)
from safetensors.torch import load_file
from support.encoders import save_encoder, text_task
from support.equal_runs import equal
from support.pretended_device import MISSING, NAME, PretendedDevice, pretend
from support.quantities import sums
from support.tasks import prepare
from torch import Tensor

from tl_runner.core import Batch, Method, Model, Resources
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import InMemory, Labels, OnDisk, Pair, Split
from tl_runner.engine import run as engine
from tl_runner.engine.device import apply_kernels
from tl_runner.engine.shared_data import Shared
from tl_runner.methods.auto import Auto
from tl_runner.models import backbones
from tl_runner.models.tokens import list_ids
from tl_runner.rng import Rng
from tl_runner.storage.record import RunRecord, describe_run
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, train

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
A_POINT = Counter({"tl_runner/training/loop.py": 1})  # the terms of the steps since the point before
BY_DESIGN = {  # where a method waits at each step, and why
    "deepjdot": Counter({"tl_runner/methods/deepjdot.py": 2}),  # POT solves on the CPU: the cost goes, the plan comes
}
# They take no steps: closed forms are fitted once, on the CPU, by SciPy, scikit-learn or POT; adabn trains nothing.
STEPLESS = {"adabn", "coral_linear", "feature_extract", "ot_map", "sa", "tca", "tradaboost"}
Away = Callable[..., Any]


@pytest.fixture(scope="module")
def away() -> Iterator[Away]:
    """Calls a function in a process that has the device: the first backward pass of a process counts its devices."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=pretend) as pool:
        yield lambda function, *args, **options: pool.submit(function, *args, **options).result()


def take_task(name: str, method: Method, backbone: str, size: int, device: torch.device) -> tuple[Model, Pair]:
    """The model and the data that the method prepares for itself on the device."""
    if name in OF_TEXTS:
        pair, model, tokenizer = text_task(save_encoder(Path("bert")), granted=0)
        return method.prepare(model.to(device), placed(pair, device), Resources(Rng(0), tokens=list_ids(tokenizer)))
    source = ("sans", "serif") if name in OF_SEVERAL_SOURCES else "rendered"
    drawn = sums(0) if name in OF_QUANTITIES else digits(0, source=source, samples=120, size=size)
    pair, _, _ = split_domains(drawn, 0, Budget.parse("5" if "granted" in method.needs else "0"), device)
    with Rng(0).child("model").as_default():
        features, width = getattr(backbones, "mlp" if name in OF_QUANTITIES else backbone)(pair.shape)
        model = Model(features, width, pair.task, "per_domain").to(device)
    with Rng(0).child("prepare").as_default():
        return prepare(method, model, pair)


def placed(pair: Pair, device: torch.device) -> Pair:
    moved = pair.mapped(lambda split: InMemory(split.take(torch.arange(len(split))).to(device)))
    source, labels = moved.labelled_source
    return replace(moved, source=replace(source, labels=Labels(*(y.to(device) for y in labels))))


def on_disk(split: Split) -> Split:
    """As a data set that is too large for memory is read."""
    rows = torch.arange(len(split))
    x = split.take(rows)
    return OnDisk((255 * x.cpu()).byte(), rows, x.device)


class Learnt(NamedTuple):
    """What the model says of target rows after training, on the CPU, and by file where each step waited.

    The first step of a phase is left out: it makes what is made once, such as a table of directions.
    """

    logits: Tensor
    waits: list[Counter[str]]


def learn(
    method: Method | str, device: str, backbone: str = "small", view: str = "none", disk: bool = False, **plan: Any
) -> Learnt:
    """Two steps a phase of a method, by its name or as it is, with a point after each."""
    name, method = (method, built(method)) if isinstance(method, str) else ("", method)
    if isinstance(method, Auto):  # it is replaced by one of the others before anything is trained
        method = method.build("jmmd")
    with PretendedDevice() as watch:
        place, waits, phase = torch.device(device), list[Counter[str]](), ""
        size = 16 if plan.get("precision") == "bf16" else 8  # on maps of one pixel it is not safe: docs/performance.md
        model, pair = take_task(name, method, backbone, size, place)
        pair = pair.mapped(on_disk) if disk else pair
        steps = Train(steps=2 * max(1, len(method.phases(model))), batch=8, log_every=1, evaluations=1, **plan)
        method, model = method.to(place), apply_kernels(model.to(place), steps)
        torch.manual_seed(0)
        views = getattr(augment, view)
        for point in train(model, method, pair, steps, optimizers.sgd, optimizers.constant, views, Rng(0), Cursor()):
            waits += [Counter(watch.waits)] * (point.phase == phase)
            phase = point.phase
            watch.waits.clear()
        some = pair.target.test.take(torch.arange(4, device=place))
        with torch.no_grad():
            return Learnt(model.eval()(some).float().cpu(), waits)


def check_waits(name: str, waits: list[Counter[str]]) -> None:
    """Each step waits for its own point alone, or where the method can't but wait."""
    assert bool(waits) == (name not in STEPLESS)
    assert all(each == A_POINT + BY_DESIGN.get(name, Counter()) for each in waits), waits


def take_turns(away: Away, method: str, **options: Any) -> tuple[Learnt, Learnt]:
    """The same on the CPU and on the device."""
    return learn(method, "cpu", **options), away(learn, method, NAME, **options)


@pytest.mark.parametrize("name", [*METHODS, *sorted(OF_OTHERS)])
def test_a_step_waits_for_its_point_alone_and_learns_what_it_learns_on_the_cpu(name, away):
    if name in OF_TEXTS:
        pytest.importorskip("transformers", reason="needs the extra [text]")
    here, there = take_turns(away, name)
    check_waits(name, there.waits)
    if name not in OF_TEXTS:  # on a CPU columns of padding are left out, so that dropout draws other numbers
        torch.testing.assert_close(there.logits, here.logits, rtol=1e-4, atol=1e-5)  # there the optimiser is torch's


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "precision"), [("small", "bf16"), ("resnet18", "fp32"), ("resnet18", "bf16")])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in STEPLESS])
def test_no_precision_and_no_deeper_network_makes_a_step_wait(name, backbone, precision, away):
    check_waits(name, away(learn, name, NAME, backbone, precision=precision).waits)


@pytest.mark.parametrize("view", ["none", "shift", "weak", "strong"])
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_random_views_and_rows_on_disk_make_no_step_wait(view, disk, away):
    here, there = take_turns(away, "mmd", view=view, disk=disk)
    check_waits("mmd", there.waits)
    torch.testing.assert_close(there.logits, here.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plan", [{"average": "ema"}, {"balance": "classes"}, {"channels_last": True}, {"clip": None}])
def test_no_option_of_training_makes_a_step_wait(plan, away):
    check_waits("mmd", away(learn, "mmd", NAME, **plan).waits)


class Planted(Method):
    """A method that does this with its loss, or beside it, at each step."""

    def __init__(self, does: str):
        super().__init__()
        self.does = does

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        x, y = batch.source.x, batch.source.y
        loss = F.cross_entropy(model(x), y)
        PLANTS_OF_ALL[self.does](x, loss)
        return {"source": loss}


PLANTS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "item": lambda x, loss: loss.item(),
    "float": lambda x, loss: float(loss),
    "if": lambda x, loss: bool(loss > 0),
    "cpu": lambda x, loss: x.cpu(),
    "list": lambda x, loss: x[0, 0, 0].tolist(),
    "equal": lambda x, loss: torch.equal(x, x),
    "mask": lambda x, loss: x[x > 0],
    "unique": lambda x, loss: x.unique(),
    "made there": lambda x, loss: torch.tensor([1.0, 2.0], device=x.device),
    "a number made there": lambda x, loss: torch.tensor(2.0, device=x.device),
    "blocking": lambda x, loss: torch.ones(3).to(x.device),
    "copied into": lambda x, loss: torch.empty_like(x[0, 0, 0]).copy_(torch.ones(x.shape[-1])),
    "copied from": lambda x, loss: torch.empty(x.shape[-1]).copy_(x[0, 0, 0]),
    "index": lambda x, loss: x[torch.arange(3)],
}


@pytest.mark.parametrize("does", PLANTS)
def test_a_method_that_waits_is_found(does, away):
    here = {"tests/engine/test_pretended_device.py": 1}
    assert away(learn, Planted(does), NAME).waits == [A_POINT + Counter(here)]


ALLOWED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "non-blocking": lambda x, loss: torch.ones(3).to(x.device, non_blocking=True),
    "a number": lambda x, loss: loss * torch.tensor(2.0),
    "filled by a mask": lambda x, loss: x.clone().masked_fill_(x > 0, 0.0),
    "set by a mask": lambda x, loss: x.clone().__setitem__(x > 0, 0.0),
    "seed": lambda x, loss: int(torch.randint(2**31, ())),
}
MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": lambda x, loss: x + torch.ones(x.shape[-1]),
    "product": lambda x, loss: x @ torch.ones(x.shape[-1], 2),
    "joined": lambda x, loss: torch.cat([loss[None], torch.ones(1)]),
    "index of a CPU tensor": lambda x, loss: torch.zeros(9)[x.flatten()[:3].long()],
    "generator": lambda x, loss: torch.rand(3, device=x.device, generator=torch.Generator()),
}
PLANTS_OF_ALL = {**PLANTS, **ALLOWED, **MIXED}


@pytest.mark.parametrize("does", ALLOWED)
def test_what_does_not_wait_is_not_held_against_a_method(does, away):
    assert away(learn, Planted(does), NAME).waits == [A_POINT]


@pytest.mark.parametrize("does", MIXED)
def test_what_was_left_on_the_cpu_is_found(does, away):
    with pytest.raises(RuntimeError, match=r"Expected (all tensors to be on the same|a 'pretended') device"):
        away(learn, Planted(does), NAME)


def make_run(outputs: Path, device: str, *overrides: str, cut: int = 0) -> RunRecord:
    """The run that these overrides say, on the device; where `cut` is not 0, cut off after so many points, resumed."""
    config, choices = composed(*QUICK, *overrides, "device=cpu")
    record = describe_run({**config, "outputs": str(outputs / device)}, choices)
    with pytest.MonkeyPatch.context() as patch, PretendedDevice():
        patch.setattr(Shared, "claim_device", lambda *_: torch.device(device))
        if cut:
            points = engine.run(record)
            for _ in range(cut):
                next(points)
            with pytest.raises(KeyboardInterrupt):
                points.throw(KeyboardInterrupt())
            assert (record.folder / "checkpoint.pt").exists()
        for _ in engine.run(record):
            pass
    return record


# Of methods that weigh rows, one whose weights are well determined: those of kmm follow the last bit of its kernel.
WHOLE = sorted(REPRESENTATIVES - {"mmd", "kmm"} | {"density_ratio"})


@pytest.mark.parametrize("name", ["mmd", *(pytest.param(name, marks=pytest.mark.slow) for name in WHOLE)])
def test_a_whole_run_says_what_it_says_on_the_cpu(name, tmp_path, away):
    """Evaluation, diagnosis, the source model, closed forms, predictions: all of `tl-run`."""
    words = f"method={name}", "diagnose=full"
    here, there = make_run(tmp_path, "cpu", *words), away(make_run, tmp_path, NAME, *words)
    assert there.status == here.status == "ok" and there.diagnosis
    said, expected = (load_file(record.folder / "predictions.safetensors") for record in (there, here))
    torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-4)  # after 20 steps


@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
def test_a_run_goes_from_the_device_to_a_checkpoint_and_back(optimizer, tmp_path, away):
    words = "method=dann", f"optimizer={optimizer}", "train.average=ema", "train.steps=10", "diagnose=none"
    whole = away(make_run, tmp_path / "whole", NAME, *words)
    resumed = away(make_run, tmp_path / "resumed", NAME, *words, cut=2)
    equal(resumed, whole)
