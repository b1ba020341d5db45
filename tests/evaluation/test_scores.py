"""Scores against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import UNKNOWN, InMemory
from tl_runner.evaluation.scores import collect_evidence, predict, score_run
from tl_runner.functional.metrics import calibration_error
from tl_runner.models.backbones import identity
from tl_runner.models.batchnorm import DomainModels
from tl_runner.models.features import ROWS
from tl_runner.storage.sections import Scores
from tl_runner.tasks import Classification

TWO = Classification(("a", "b"))


def test_scores_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, 4, generator=generator).softmax(-1)
    y = torch.randint(4, (200,), generator=generator)
    found = TWO.score(p, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(-1)))
    assert found["macro_f1"] == pytest.approx(f1_score(y, p.argmax(-1), average="macro"))
    assert found["balanced"] == pytest.approx(balanced_accuracy_score(y, p.argmax(-1)))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_classes_that_do_not_occur_count_as_scikit_learn_has_it():
    p, y = torch.eye(5)[[0, 0, 3, 1, 1, 3]], torch.tensor([0, 1, 1, 1, 0, 0])
    found = TWO.score(p, y)
    assert found["macro_f1"] == pytest.approx(f1_score(y, p.argmax(-1), average="macro"))
    assert found["balanced"] == pytest.approx(balanced_accuracy_score(y, p.argmax(-1)))


def test_the_calibration_error_by_hand():
    """Two rows at confidence .8, one right: |.5 − .8| on half the rows; two at .6, both right: |1 − .6| on the rest."""
    p = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    y = torch.tensor([0, 1, 0, 0])
    assert calibration_error(p, y) == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    sure = torch.tensor([[1.0, 0.0]] * 3)
    assert calibration_error(sure, torch.tensor([0, 0, 0])) == pytest.approx(0.0)
    assert calibration_error(sure, torch.tensor([1, 1, 1])) == pytest.approx(1.0)


def test_predictions_are_those_of_the_whole_split_in_order():
    model = Model(*identity((3,)), ("a", "b")).train()
    x = torch.randn(ROWS + 7, 3)
    p = predict(model, InMemory(x))
    torch.testing.assert_close(p, model(x).softmax(-1).detach())
    assert not model.training


def test_the_verdict_puts_the_oracle_beside_the_choice():
    right, half = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = score_run(TWO, {10: half, 20: right, 30: half}, torch.tensor([0, 1]), selected=10)
    guess = {"accuracy": 0.5, "balanced": 0.5, "macro_f1": pytest.approx(1 / 3)}
    assert found.last == {"step": 30, **guess}
    assert found.selected == {"step": 10, **guess}
    assert found.oracle == {"step": 20, "accuracy": 1.0, "balanced": 1.0, "macro_f1": 1.0}
    assert found.target and found.target["accuracy"] == 0.5
    assert found.majority == {"class": 0, **guess}


def test_the_oracle_is_that_of_each_score():
    """Of 4 rows, 3 of class 0: saying 0 has accuracy .75 and balanced .5; the other has .5 and (1/3 + 1)/2."""
    said = {1: torch.eye(2)[[0, 0, 0, 0]], 2: torch.eye(2)[[0, 1, 1, 1]]}
    found = score_run(TWO, said, torch.tensor([0, 0, 0, 1]), selected=2)
    assert found.oracle and (found.oracle["step"], found.oracle["accuracy"]) == (1, 0.75)
    assert found.oracle["balanced"] == pytest.approx(2 / 3) and found.selected["balanced"] == pytest.approx(2 / 3)
    assert found.majority == {"class": 0, "accuracy": 0.75, "balanced": 0.5, "macro_f1": pytest.approx(3 / 7)}


def test_rows_without_a_label_are_not_scored_and_without_any_label_nothing_is():
    p = {1: torch.eye(2)[[0, 0, 1, 0]], 5: torch.eye(2)[[0, 1, 1, 1]]}
    some = score_run(TWO, p, torch.tensor([0, UNKNOWN, 1, UNKNOWN]), selected=1)
    assert some == score_run(TWO, {1: p[1][[0, 2]], 5: p[5][[0, 2]]}, torch.tensor([0, 1]), selected=1)
    none = score_run(TWO, p, torch.full((4,), UNKNOWN), 1)
    assert none == Scores(None, None, {"step": 5}, {"step": 1}, None)


def test_what_gives_no_probabilities_has_no_calibration_error():
    p, y = torch.eye(3)[[0, 1, 2]], torch.tensor([0, 1, 1])
    assert "ece" in TWO.score(p, y, calibrated=True) and "ece" not in TWO.score(p, y)
    assert "ece" not in (score_run(TWO, {1: p}, y, 1, calibrated=False).target or ("ece",))


def floor_of(granted: str, keeps_source: bool) -> tuple[float | None, float]:
    pair, _, _ = split_domains(blobs(0, samples=100, classes=3), 0, Budget.parse(granted), torch.device("cpu"))
    backbone, width = identity(pair.shape)
    model = Model(backbone, width, pair.classes)
    evidence, _ = collect_evidence(DomainModels(model, model), pair, 1, keeps_source)
    assert evidence.source_val is not None
    return evidence.floor, evidence.floor_rows


def test_the_floor_is_held_out_labels_else_the_source_where_that_is_learned_and_else_none():
    assert floor_of("0", keeps_source=True)[1] == 20
    assert floor_of("0", keeps_source=False) == (None, 0)
    assert floor_of("1", keeps_source=True) == (None, 0)  # one label a class: none is left to hold out
    assert floor_of("5", keeps_source=True)[1] == floor_of("5", keeps_source=False)[1] == 3
