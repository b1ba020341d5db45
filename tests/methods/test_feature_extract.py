"""Frozen features and fitted heads: as scikit-learn on the same features, stored and loaded again."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import QUICK, made
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from support.stored import calibrated
from support.tasks import prepare
from torch import nn

import tl_runner
from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods.feature_extract import FeatureExtract
from tl_runner.models.backbones import small
from tl_runner.models.features import cut_model, gather_rows
from tl_runner.models.heads import (
    Classifier,
    Cosine,
    Neighbours,
    Votes,
    blueprint,
    fit_head,
    gives_probabilities,
    linear_classifier,
    perceptron,
    rebuild_head,
)
from tl_runner.rng import Rng

CPU = torch.device("cpu")
REFERENCE = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=5000, tol=1e-6)),
    "svm": make_pipeline(StandardScaler(), LinearSVC(C=0.5, max_iter=100_000, random_state=0)),
    "knn": KNeighborsClassifier(3),
    "ncm": KNeighborsClassifier(1),  # of the class means
}


def task(classes: int = 10, granted: str = "8") -> tuple[Pair, Model]:
    drawn = digits(0, samples=200, size=8)
    kept = drawn.target.y < classes
    target = drawn.target._replace(
        x=drawn.target.x[kept], y=drawn.target.y[kept], classes=drawn.target.classes[:classes]
    )
    pair, _, _ = split_domains(drawn._replace(source=None, target=target), 0, Budget.parse(granted), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = small(pair.shape, width=16, channels=4)
        return pair, Model(backbone, width, pair.classes)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("layer", [None, "conv1"])
@pytest.mark.parametrize("head", sorted(REFERENCE))
def test_a_head_is_scikit_learns_on_the_same_features(head, layer, classes):
    pair, model = task(classes)
    method = FeatureExtract(head, layer, C=0.5, k=3)
    prepared, mapped = prepare(method, model, pair)
    assert not method.phases(prepared)
    split, labels = pair.labels_granted
    maps = model.eval().backbone[:2] if layer == "conv1" else model.eval().backbone

    def features(split) -> np.ndarray:
        with torch.no_grad():
            read = maps(split.take(torch.arange(len(split))))
        return (read.mean((2, 3)) if layer == "conv1" else read).double().numpy()

    known, y = features(split), labels.numpy()
    if head == "ncm":
        known, y = np.stack([known[y == c].mean(0) for c in range(classes)]), np.arange(classes)
    reference = REFERENCE[head].fit(known, y)
    expected = reference.predict(features(pair.target.test))
    found = prepared(gather_rows(mapped.target.test)).argmax(1).numpy()
    assert (found == expected).mean() > 0.99  # the solvers stop a little apart
    whole = nn.Sequential(prepared.backbone, prepared.head).eval()  # as a stored model: from images
    again = whole(pair.target.test.take(torch.arange(len(pair.target.test))))
    assert torch.equal(again.argmax(1), torch.as_tensor(found))
    if head == "logistic":
        probabilities = again.softmax(1).detach().numpy()
        np.testing.assert_allclose(probabilities, reference.predict_proba(features(pair.target.test)), atol=2e-3)


def test_the_backbone_stays_and_the_linear_head_is_trained_by_the_loop(tmp_path):
    fitted = made(tmp_path, "method=feature_extract", *QUICK)
    trained = made(tmp_path, "method=feature_extract", "method.head=linear", *QUICK)
    for record, steps in ((fitted, 0), (trained, 20)):
        assert record.scores is not None and record.scores.last["step"] == steps
    first, second = (tl_runner.load(record.folder).model.backbone.state_dict() for record in (fitted, trained))
    assert all(torch.equal(first[name], second[name]) for name in first)  # the shared source model, to the bit


def test_neighbours_that_are_all_rows_are_refused():
    with pytest.raises(UserError, match=r"head=knn with k=3 needs more than 3 labelled rows, got 3: set a smaller k"):
        fit_head("knn", torch.eye(3), torch.arange(3), 3, 1.0, 3, 0)


@pytest.mark.parametrize("words", ["", "head=knn", "head=ncm", "layer=conv1", "head=linear layer=conv2", "head=svm"])
def test_a_stored_model_maps_images_to_the_predictions_of_its_run(words, tmp_path):
    options = [f"method.{word}" for word in words.split()]
    record = made(tmp_path, "method=feature_extract", *options, *QUICK)
    _the_stored_model_predicts_as_the_run_did(record)


def test_so_does_that_of_tradaboost(tmp_path):
    _the_stored_model_predicts_as_the_run_did(made(tmp_path, "method=tradaboost", *QUICK))


def _the_stored_model_predicts_as_the_run_did(record) -> None:
    with Rng(0).child("data").as_default():
        pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget("count", 0), CPU)
    model = tl_runner.load(record.folder).model
    with torch.no_grad():
        found = model(pair.target.test.take(torch.arange(len(pair.target.test)))).softmax(1)
    torch.testing.assert_close(found, calibrated(record), atol=1e-5, rtol=1e-4)


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    pair, model = task()
    with pytest.raises(
        UserError, match=r"no stage 'conv3' – did you mean 'conv[12]'.*possible: pixels, conv1, conv2, hidden"
    ):
        prepare(FeatureExtract(layer="conv3"), model, pair)


def test_a_stage_is_read_as_one_vector_a_row():
    pair, model = task()
    assert [cut_model(model, stage, pair.shape).width for stage in model.stages] == [1, 4, 8, 16]


def test_a_class_without_a_granted_row_is_never_predicted_and_one_class_alone_always():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    head = linear_classifier("logistic", x, torch.arange(30) % 2 * 2, classes=4, C=1.0)
    assert set(head(x).argmax(1).tolist()) <= {0, 2}
    only = linear_classifier("svm", x, torch.full((30,), 3), classes=4, C=1.0)
    assert set(only(x).argmax(1).tolist()) == {3}


def test_weights_are_copies_of_rows():
    """A row of weight 2 counts as the row twice: the fit is on the same scaled columns, so they are given scaled."""
    generator = Rng(0).child("rows").generator()
    x, y = torch.randn(40, 3, generator=generator), torch.arange(40) % 3
    x = (x - x.mean(0)) / x.std(0, correction=0)
    twice = torch.where(torch.arange(40) < 20, 2.0, 1.0)
    weighted = linear_classifier("logistic", x, y, 3, C=1.0, weights=twice)
    copied = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(
        torch.cat([x, x[:20]]).numpy(), torch.cat([y, y[:20]])
    )
    np.testing.assert_allclose(weighted.weight.detach().numpy(), copied.coef_, atol=2e-3)


def test_a_chain_of_heads_and_a_cosine_are_built_again_from_their_blueprint():
    torch.manual_seed(0)
    rows = Neighbours(torch.rand(9, 3), torch.arange(9) % 2, 2, k=3)
    heads = (
        torch.nn.Sequential(torch.nn.Linear(6, 3), rows),
        Cosine(6, 2, temperature=0.1),
        Cosine(6, 2, temperature=0.1, unit_weights=True),
        perceptron(6, 4, 0.3, 2),
    )
    for head in heads:
        model = Model(torch.nn.Sequential(torch.nn.Flatten()), 6, ("a", "b"))
        model.head = head
        plan = json.loads(json.dumps(blueprint(model)))
        again = rebuild_head(Model(torch.nn.Sequential(torch.nn.Flatten()), 6, ("a", "b")), (6,), plan)
        again.load_state_dict(model.state_dict())
        x = torch.rand(5, 6)
        torch.testing.assert_close(again.eval()(x), model.eval()(x), rtol=0, atol=0)
        assert repr(again.head) == repr(model.head)  # the share of dropout too


def test_heads_whose_softmax_is_no_probability_are_known_and_built_again():
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    known = {kind: gives_probabilities(fit_head(kind, x, y, 3, C=1.0, k=3, seed=0)) for kind in get_args(Classifier)}
    assert known == {"logistic": True, "svm": False, "knn": True, "ncm": False}
    votes = Votes(torch.rand(2, 3, 4), torch.rand(2, 3), torch.rand(2))
    assert not gives_probabilities(votes) and not gives_probabilities(torch.nn.Sequential(torch.nn.Linear(4, 4), votes))
    model = Model(torch.nn.Sequential(torch.nn.Flatten()), 4, ("a", "b", "c"))
    model.head = fit_head("ncm", x, y, 3, C=1.0, k=3, seed=0)
    again = rebuild_head(model, (4,), json.loads(json.dumps(blueprint(model))))
    assert not gives_probabilities(again.head)


def test_a_cosine_head_knows_features_by_their_direction_alone():
    head = Cosine(3, 2, temperature=0.5)
    head.weight.data = torch.tensor([[2.0, 0, 0], [0, 3.0, 0]])
    row = torch.tensor([[10.0, 10.0, 0.0]])
    torch.testing.assert_close(head(row), torch.tensor([[4.0, 6.0]]) / 2**0.5)
    head.unit_weights = True
    torch.testing.assert_close(head(row), torch.full((1, 2), 2 / 2**0.5))


def test_a_cosine_head_that_was_saved_without_the_option_has_unit_weights():
    model = Model(torch.nn.Sequential(torch.nn.Flatten()), 6, ("a", "b"))
    model.head = Cosine(6, 2, temperature=0.1, unit_weights=True)
    plan = blueprint(model)
    assert plan.pop("unit_weights") is True
    again = rebuild_head(Model(torch.nn.Sequential(torch.nn.Flatten()), 6, ("a", "b")), (6,), plan)
    again.load_state_dict(model.state_dict())
    x = torch.rand(5, 6)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
