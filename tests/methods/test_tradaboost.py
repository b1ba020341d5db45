"""TrAdaBoost against the paper's algorithm, written down again in its own terms."""

from math import ceil, log, sqrt

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from support.tasks import prepare

from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.synthetic import synthetic
from tl_runner.domains import Labelled, Pair
from tl_runner.methods.tradaboost import TrAdaBoost, boost
from tl_runner.models.backbones import identity
from tl_runner.models.features import gather_rows
from tl_runner.models.heads import Votes

ROUNDS = 6


def task(classes: int = 2, strength: float = 0.1, seed: int = 11) -> Pair:
    drawn = synthetic(
        seed, 400, features=6, informative=4, redundant=0, classes=classes, shift="concept", strength=strength
    )
    return split_domains(drawn, 0, Budget("count", 15), torch.device("cpu"))[0]


def papers_answer(source_x, source_y, granted_x, granted_y, test_x) -> np.ndarray:
    """Figure 1 of Dai et al. 2007, labels 0 and 1: T_d is the source, T_s the granted rows."""
    x, y, n = np.concatenate([source_x, granted_x]), np.concatenate([source_y, granted_y]), len(source_y)
    scaler = StandardScaler().fit(x)
    w, beta = np.ones(len(y)), 1 / (1 + sqrt(2 * log(n) / ROUNDS))
    hypotheses, betas = [], []
    for _ in range(ROUNDS):
        p = w / w.sum()
        learner = LogisticRegression(max_iter=5000).fit(scaler.transform(x), y, sample_weight=p * len(y))
        h = learner.predict(scaler.transform(x))
        error = (w[n:] * np.abs(h[n:] - y[n:])).sum() / w[n:].sum()
        assert 0 < error < 0.5, "the paper wants 0 < ε < ½"
        beta_t = error / (1 - error)
        w[:n] *= beta ** np.abs(h[:n] - y[:n])
        w[n:] *= beta_t ** -np.abs(h[n:] - y[n:])
        hypotheses.append(learner.predict(scaler.transform(test_x)))
        betas.append(beta_t)
    last = range(ceil(ROUNDS / 2) - 1, ROUNDS)
    left = np.prod([betas[t] ** -hypotheses[t].astype(float) for t in last], axis=0)
    return (left >= np.prod([betas[t] ** -0.5 for t in last])).astype(int)


def prepared(pair: Pair) -> tuple[Model, Pair]:
    backbone, width = identity(pair.shape)
    return prepare(TrAdaBoost(rounds=ROUNDS), Model(backbone, width, pair.classes), pair)


def test_for_two_classes_it_is_the_papers_algorithm():
    pair = task()
    source, labels = pair.labelled_source
    granted, answers = pair.labels_granted
    test = gather_rows(pair.target.test)
    rows = [gather_rows(source.train), labels.train, gather_rows(granted), answers, test]
    expected = papers_answer(
        *(tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy() for tensor in rows)
    )
    model, mapped = prepared(pair)
    assert model.head(gather_rows(mapped.target.test)).argmax(1).tolist() == expected.tolist()
    assert 0.2 < expected.mean() < 0.8
    assert isinstance(model.head, Votes) and len(model.head.vote) == 4  # the rounds 3, 4, 5 and 6 of 6


def labelled(pair: Pair) -> tuple[Labelled, Labelled]:
    source, labels = pair.labelled_source
    granted, answers = pair.labels_granted
    return Labelled(gather_rows(source.train), labels.train), Labelled(gather_rows(granted), answers)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_learner_votes_the_more_the_fewer_granted_rows_it_gets_wrong(classes):
    source, granted = labelled(task(classes))
    learners = boost(source, granted, classes, ROUNDS, C=1.0)
    assert 1 < len(learners) <= ROUNDS and all(vote > 0 for _, vote in learners)
    learner, vote = learners[0]
    wrong = (learner(granted.x).argmax(1) != granted.y).double().mean().item()
    assert vote == pytest.approx(log((1 - wrong) * (classes - 1) / wrong))


def test_contradicting_source_rows_lose_their_say():
    """Half of the source has its labels swapped: boosting ends nearer to the truth than its first learner begins."""
    source, granted = labelled(task(strength=0.0))
    swapped = source._replace(y=torch.where(torch.arange(len(source.y)) < 70, 1 - source.y, source.y))
    learners = boost(swapped, granted, 2, 30, C=1.0)
    right = [(learner(source.x).argmax(1) == source.y).double().mean().item() for learner, _ in learners]
    assert np.mean(right[-5:]) > right[0]


def test_a_first_learner_that_is_no_better_than_chance_is_alone_and_that_is_said(caplog):
    source, granted = labelled(task(strength=0.0))
    learners = boost(source, granted._replace(y=1 - granted.y), 2, 5, C=1.0)
    assert len(learners) == 1 and "on the granted labels is" in caplog.text


def test_a_faultless_learner_has_a_finite_vote():
    x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]).repeat(5, 1)
    rows = Labelled(x, (x[:, 0] > 0).long())
    assert all(np.isfinite(vote) for _, vote in boost(rows, rows, 2, 3, C=10.0))
