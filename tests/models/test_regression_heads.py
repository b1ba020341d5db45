"""Heads of a quantity: equal to scikit-learn's, built again from their blueprint, exportable; and the task decides."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import composed
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVR
from torch import nn

from tl_runner import config
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models.heads import (
    Fitted,
    NeighbourMean,
    Regressor,
    WeightedMedian,
    blueprint,
    fit_head,
    linear_regressor,
    rebuild_head,
    settle_head,
)
from tl_runner.tasks import Classification, Regression

PRICE, CLASSES = Regression("price", 10.0, 2.0), Classification(("a", "b"))
REFERENCE = {
    "ridge": make_pipeline(StandardScaler(), Ridge(1.0)),  # alpha = 1/(2C)
    "svm": make_pipeline(StandardScaler(), LinearSVR(C=0.5, max_iter=100_000, random_state=0)),
    "knn": KNeighborsRegressor(3),
}


def rows(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.1, 1.0]) + 3
    y = x[:, 0] + 0.4 * x[:, 1] - 2 * x[:, 2] + 0.3 * torch.randn(n, generator=generator)
    return x, (y - y.mean()) / y.std()


def heads() -> dict[str, nn.Module]:
    x, y = rows()
    fitted = {kind: fit_head(kind, x, y, 0, 0.5, 3, 0) for kind in get_args(Regressor)}
    chain = nn.Sequential(nn.Linear(4, 2), fit_head("knn", x[:, :2], y, 0, 0.5, 3, 0))
    median = WeightedMedian(torch.randn(5, 4), torch.randn(5), torch.rand(5))
    return {**fitted, "chain": chain, "median": median}


@pytest.mark.parametrize("kind", sorted(REFERENCE))
def test_a_head_is_scikit_learns(kind):
    (x, y), (new, _) = rows(), rows(seed=1)
    head = fit_head(kind, x, y, 0, 0.5, 3, 0)
    found = head(new)
    assert found.shape == (60, 1) and found.dtype == torch.float32
    expected = REFERENCE[kind].fit(x.double().numpy(), y.double().numpy()).predict(new.double().numpy())
    np.testing.assert_allclose(found[:, 0].detach().numpy(), expected, atol=1e-5)
    assert np.corrcoef(expected, rows(seed=1)[1])[0, 1] > 0.8


def test_weights_are_copies_of_rows():
    x, y = rows(40)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    weighted = linear_regressor("ridge", x, y, C=1.0, weights=torch.where(torch.arange(40) < 20, 2.0, 1.0))
    copied = Ridge(0.5).fit(torch.cat([x, x[:20]]).numpy(), torch.cat([y, y[:20]]).numpy())
    np.testing.assert_allclose(weighted.weight.detach().numpy()[0], copied.coef_, atol=1e-5)


def test_neighbours_that_are_all_rows_are_refused():
    x, y = rows(3)
    with pytest.raises(UserError, match=r"head=knn with k=3 needs more than 3 labelled rows, got 3"):
        fit_head("knn", x, y, 0, 1.0, 3, 0)


@pytest.mark.parametrize("name", ["ridge", "svm", "knn", "chain", "median"])
def test_a_head_is_built_again_from_its_blueprint(name):
    torch.manual_seed(0)
    first, again = (Model(nn.Sequential(nn.Flatten()), 4, PRICE) for _ in range(2))
    first.head = heads()[name]
    plan = json.loads(json.dumps(blueprint(first)))
    again = rebuild_head(again, (4,), plan)
    again.load_state_dict(first.state_dict())
    x, _ = rows(seed=2)
    assert torch.equal(again(x), first(x)) and again(x).shape == (60, 1)
    if name == "knn":
        assert isinstance(again.head, NeighbourMean) and again.head.values.dtype == torch.float32


@pytest.mark.parametrize("name", ["knn", "median"])
def test_a_head_is_exported_for_any_number_of_rows(name):
    torch.manual_seed(0)
    head, (x, _) = heads()[name].eval(), rows(seed=2)
    program = torch.export.export(head, (x[:3],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for n in (1, 7, 60):
        torch.testing.assert_close(program.module()(x[:n]), head(x[:n]))


def median_by_sorting(values: np.ndarray, votes: np.ndarray) -> float:
    """The least of the values that has half of the votes at or below it: of pairs, one by one."""
    half, so_far = votes.sum() / 2, 0.0
    for value, vote in sorted(zip(values, votes, strict=True)):
        so_far += vote
        if so_far >= half:
            return float(value)
    raise AssertionError


@pytest.mark.parametrize("learners", [1, 2, 5, 6])
def test_a_weighted_median_has_half_of_the_votes_at_or_below_it(learners):
    generator = torch.Generator().manual_seed(learners)
    weight, bias = torch.randn(learners, 4, generator=generator), torch.randn(learners, generator=generator)
    votes, (x, _) = torch.rand(learners, generator=generator) + 0.01, rows()
    said = (x.double() @ weight.double().T + bias.double()).numpy()
    expected = [median_by_sorting(row, votes.double().numpy()) for row in said]
    found = WeightedMedian(weight, bias, votes)(x)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-4)


def test_equal_votes_are_the_plain_median():
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    x, _ = rows()
    found = WeightedMedian(weight, torch.zeros(5), torch.ones(5))(x)
    torch.testing.assert_close(found[:, 0], (x @ weight.T).median(-1).values)


def test_the_task_decides_what_auto_is_and_which_heads_there_are():
    assert settle_head("auto", PRICE) == "ridge" and settle_head("auto", CLASSES) == "logistic"
    refused: dict[str, list[str]] = {}
    for task in (PRICE, CLASSES):
        for kind in get_args(Fitted):
            try:
                assert settle_head(kind, task) == kind or kind == "auto"
            except UserError:
                refused.setdefault(task.name, []).append(kind)
    assert refused == {"regression": ["logistic", "ncm"], "classification": ["ridge"]}
    words = "method.head=logistic tells classes apart, and 'price' is a quantity: use ridge, svm, knn or linear"
    with pytest.raises(UserError, match=words):
        settle_head("logistic", PRICE, ["linear"])
    with pytest.raises(UserError, match=r"predicts a quantity, and there are classes: use logistic, svm, knn or ncm$"):
        settle_head("ridge", CLASSES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method.C=2", ""),
        ("method.head=ridge method.C=2", ""),
        ("method.k=9", "method.k=9 does nothing with method.head=auto"),
        ("method.head=ridge method.k=9", "method.k=9 does nothing with method.head=ridge"),
        ("method.head=knn method.C=2", "method.C=2.0 does nothing with method.head=knn"),
    ],
)
def test_an_option_that_does_nothing_is_told(words, said, caplog):
    config.load_parts(composed("method=coral_linear", *words.split())[0])
    assert said in caplog.text if said else "does nothing" not in caplog.text


@pytest.mark.parametrize("kind", ["ridge", "svm"])
def test_a_column_that_hardly_varies_in_the_fitted_rows_weighs_little(kind):
    """A feature that source rows lack, but for rounding, may be large in the target: its weight stays bounded."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=generator, dtype=torch.double)
    y = (x[:, 0] - x[:, 1]).float()
    plain = linear_regressor(kind, x, y, C=1.0)
    for size in (1e-17, 1e-4):
        head = linear_regressor(kind, torch.cat([x, size * x[:, :1]], 1), y, C=1.0)
        assert abs(head.weight[0, 3]) < 2 * plain.weight.abs().max()
        torch.testing.assert_close(head.weight[:, :3], plain.weight, atol=0.02, rtol=0)
