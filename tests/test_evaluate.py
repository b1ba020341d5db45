"""Scores against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from tl_runner.backbones import identity
from tl_runner.core import Model
from tl_runner.domains import InMemory
from tl_runner.evaluate import calibration_error, predict, scores, verdict
from tl_runner.features import ROWS


def test_scores_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, 4, generator=generator).softmax(-1)
    y = torch.randint(4, (200,), generator=generator)
    found = scores(p, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(-1)))
    assert found["macro_f1"] == pytest.approx(f1_score(y, p.argmax(-1), average="macro"))


def test_the_calibration_error_by_hand():
    """Two rows at confidence .8, one right: |.5 − .8| on half the rows; two at .6, both right: |1 − .6| on the rest."""
    p = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    y = torch.tensor([0, 1, 0, 0])
    assert calibration_error(p, y) == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    sure = torch.tensor([[1.0, 0.0]] * 3)
    assert calibration_error(sure, torch.tensor([0, 0, 0])) == pytest.approx(0.0)
    assert calibration_error(sure, torch.tensor([1, 1, 1])) == pytest.approx(1.0)


def test_predictions_are_those_of_the_whole_split_in_order():
    model = Model(*identity((3,)), classes=("a", "b")).train()
    x = torch.randn(ROWS + 7, 3)
    p = predict(model, InMemory(x))
    torch.testing.assert_close(p, model(x).softmax(-1).detach())
    assert not model.training


def test_the_verdict_puts_the_oracle_beside_the_choice():
    right, half = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = verdict({10: half, 20: right, 30: half}, torch.tensor([0, 1]), selected=10)
    assert found["last"] == {"step": 30, "accuracy": 0.5}
    assert found["selected"] == {"step": 10, "accuracy": 0.5}
    assert found["oracle"] == {"step": 20, "accuracy": 1.0}
    assert found["target"]["accuracy"] == 0.5
