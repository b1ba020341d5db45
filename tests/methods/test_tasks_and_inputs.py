"""What docs/methods.md says that methods predict, and from what, against the methods themselves."""

import re
from pathlib import Path

import pytest
import torch
from conftest import OF_QUANTITIES, OF_SEVERAL_SOURCES, OF_TEXTS, YAMLS, built
from support.tasks import batch_of, prepare

from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.reviews import reviews
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.engine.preparation import check_task
from tl_runner.engine.texts import TextEncoding, add_tokenizer
from tl_runner.errors import UserError
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


REFUSED = listed("`adamatch`") | listed("`density_ratio`") | listed("`adabn`")


@pytest.mark.parametrize("name", sorted({*NAMES} - OF_QUANTITIES - OF_TEXTS - OF_SEVERAL_SOURCES - COMPOSED))
def test_a_method_learns_from_texts_or_is_listed(name, texts):
    pair, model, _ = texts
    method = built(name)
    check_task(method, pair)
    if name in REFUSED:
        with pytest.raises(UserError):
            prepare(method, model, pair)
        return
    prepared, mapped = prepare(method, model, pair)
    for phase in method.phases(prepared):
        if phase.refresh:
            phase.refresh(prepared, mapped)
        terms = method.terms(prepared, batch_of(method, mapped, phase), 0.5)
        assert all(torch.isfinite(value) for value in terms.values())
