"""What docs/methods.md says that methods predict, and from what, against the methods themselves."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import OF_QUANTITIES, OF_SEVERAL_SOURCES, OF_TEXTS, YAMLS, built
from support.tasks import batch_of, prepare

from tl_runner.config import build_named
from tl_runner.core import Model
from tl_runner.datasets.audio import audio
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.reviews import reviews
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.engine.preparation import check_task
from tl_runner.engine.texts import TextEncoding, add_tokenizer
from tl_runner.errors import UserError
from tl_runner.models.backbones import small
from tl_runner.models.inputs import build_backbone
from tl_runner.models.text_backbones import embedding_gru
from tl_runner.rng import Rng
from tl_runner.tasks import EVERY_TASK

SECTION = Path(__file__).parents[2].joinpath("docs/methods.md").read_text().partition("## What each method can")[2]
NAMES = sorted(Path(path).stem for path in YAMLS if path.startswith("method/"))
COMPOSED = {"sum", "auto"}  # of others: what they serve follows from these


def listed(first: str) -> set[str]:
    """The methods in the row of the section's tables that begins so."""
    (row,) = re.findall(rf"^\| {re.escape(first)}.*$", SECTION.partition("## How the defaults")[0], re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row)) & {*NAMES} - COMPOSED


def test_the_tasks_are_those_that_the_docs_list():
    of = {name: set(built(name).tasks) for name in NAMES}
    assert {name for name in NAMES if of[name] == EVERY_TASK} - COMPOSED == listed("classes and quantities")
    assert {name for name in NAMES if of[name] == {"regression"}} == listed("quantities alone") == OF_QUANTITIES
    assert built("sum").tasks == {"classification"}  # of mcc, bsp and dann


@pytest.fixture(scope="module")
def texts() -> tuple[Pair, Model, TextEncoding]:
    drawn, text = add_tokenizer(reviews(0, samples=120), embedding_gru)
    assert text and text.tokenizer is None
    pair, _, _ = split_domains(drawn, 0, Budget.parse("5"), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = build_backbone(embedding_gru, pair.shape, text.tokenizer)
        return pair, Model(backbone, width, pair.task), text


OF_INPUTS = listed("`density_ratio`")
REFUSED = listed("`adamatch`") | OF_INPUTS | listed("`adabn`")


FOR_CLASSES = sorted({*NAMES} - OF_QUANTITIES - OF_TEXTS - OF_SEVERAL_SOURCES - COMPOSED)


@pytest.mark.parametrize("name", FOR_CLASSES)
def test_a_method_learns_from_texts_or_is_listed(name, texts):
    pair, model, _ = texts
    learns_or_refuses(name, pair, model, REFUSED)


@pytest.fixture(scope="module")
def sounds() -> tuple[Pair, Model]:
    """With the normalisation whose layer, a BatchNorm without weights, some methods might stumble over."""
    drawn = audio(0, Path("cache"), samples=160, normalise="domain")
    pair, _, info = split_domains(drawn, 0, Budget.parse("5"), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = build_backbone(partial(small, channels=8, width=32), pair.shape, None, info.sound)
        return pair, Model(backbone, width, pair.task)


@pytest.mark.parametrize("name", [*FOR_CLASSES, *sorted(OF_TEXTS)])
def test_a_method_learns_from_sound_or_is_listed(name, sounds):
    pair, model = sounds
    pair = replace(pair, granted=None) if name == "adabn" else pair  # which would have no use for them
    learns_or_refuses(name, pair, model, OF_INPUTS | OF_TEXTS)


@pytest.mark.parametrize("name", sorted(OF_INPUTS))
def test_what_refuses_waveforms_learns_from_what_the_model_makes_of_them(name, sounds):
    pair, model = sounds
    learns_or_refuses(name, pair, model, set(), view="features")


def learns_or_refuses(name: str, pair: Pair, model: Model, refused: set[str], **options: Any) -> None:
    """The terms of a step are finite, or the method is one of those that refuse."""
    method = build_named("method", {name: options}, "method")
    check_task(method, pair)
    if name in refused:
        with pytest.raises(UserError):
            prepare(method, model, pair)
        return
    prepared, mapped = prepare(method, model, pair)
    for phase in method.phases(prepared):
        if phase.refresh:
            phase.refresh(prepared, mapped)
        terms = method.terms(prepared, batch_of(method, mapped, phase), 0.5)
        assert all(torch.isfinite(value) for value in terms.values())
