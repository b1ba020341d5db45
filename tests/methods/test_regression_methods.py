"""Methods that predict a quantity, on one task: they learn it, are stored and built again; TrAdaBoost.R2 by NumPy."""

import json
from copy import deepcopy
from math import ceil, log, sqrt

import numpy as np
import pytest
import torch
from conftest import OF_QUANTITIES, OF_SEVERAL_SOURCES, OF_TEXTS, YAMLS, built
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from support.tasks import batch_of, images, prepare
from torch import nn

from tl_runner import config
from tl_runner.core import Method, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.datasets.synthetic_regression import synthetic_regression
from tl_runner.domains import Domain, Labelled, Pair
from tl_runner.engine.preparation import check_task
from tl_runner.errors import UserError
from tl_runner.functional.inverse_gram import inverse_gram_distances
from tl_runner.methods.tradaboost import TrAdaBoost, boost_regressors
from tl_runner.models.backbones import identity, mlp
from tl_runner.models.features import gather_rows
from tl_runner.models.heads import WeightedMedian, blueprint, rebuild_head
from tl_runner.rng import Rng
from tl_runner.training import augment
from tl_runner.training.loop import Cursor, Train, train

FITTED = ["auto", "ridge", "svm", "knn"]
CLOSED_FORM = ["coral_linear", "sa", "tca", "ot_map"]
SAID = [
    *({name: {"head": head}} for name in ("feature_extract", *CLOSED_FORM) for head in FITTED),
    {"feature_extract": {"head": "linear"}},
    {"tca": {"kernel": "rbf"}},
    "tradaboost",
    "dare_gram",
]
ROUNDS = 6
NAMES = sorted(path.split("/")[1].removesuffix(".yaml") for path in YAMLS if path.startswith("method/"))
SERVE = [name for name in NAMES if "regression" in built(name).tasks]
TRAINED = [name for name in SERVE if name != "adabn" and name not in OF_TEXTS | OF_SEVERAL_SOURCES]


def task(granted: str = "0", contradiction: float = 0.0) -> tuple[Pair, Model]:
    """y = x₀ + 2x₁ + sin x₂ in some unit; the target's rows are moved, and its quantity differs by `contradiction`."""

    def side(name: str, shift: float, other: float) -> Raw:
        generator = torch.Generator().manual_seed(len(name))
        x = torch.randn(200, 4, generator=generator) + shift
        y = x[:, 0] + 2 * x[:, 1] + x[:, 2].sin() + other * x[:, 3] + 0.1 * torch.randn(200, generator=generator)
        return Raw(name, x, 50 * y.double() + 300, (), quantity="price")

    drawn = Drawn(side("source", 0.0, contradiction), side("target", 0.3, 0.0), {}, fresh=True)
    pair, _, _ = split_domains(drawn, 0, Budget.parse(granted), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        backbone, width = mlp(pair.shape, width=16, depth=1)
        return pair, Model(backbone, width, pair.task)


def learn(method: Method, model: Model, pair: Pair) -> tuple[Model, Pair]:
    """Prepared and, where it has phases, trained for 200 steps."""
    check_task(method, pair)
    with Rng(0).child("prepare").as_default():
        model, pair = prepare(method, model, pair)
    plan = Train(steps=200, batch=32, evaluations=1)

    def adam(groups):
        return torch.optim.Adam([{"params": [*group.parameters]} for group in groups], lr=0.01)

    for _ in train(model, method, pair, plan, adam, lambda _: 1.0, augment.none, Rng(0), Cursor()):
        pass
    return model.eval(), pair


@torch.no_grad()
def r2(model: Model, side: Domain, labels: torch.Tensor) -> float:
    return model.task.score(model.task.predict(model(gather_rows(side.test))), labels)["r2"]


@pytest.mark.parametrize("said", SAID, ids=str)
def test_it_learns_the_quantity_and_a_stored_model_says_the_same(said):
    method = config.build_named("method", said, "method")
    pair, model = task("40" if "granted" in method.needs else "0")
    fresh = Model(*mlp(pair.shape, width=16, depth=1), pair.task)
    model, mapped = learn(method, model, pair)
    source, labels = mapped.labelled_source
    # A random backbone's features suffice for a line; `sa` and `tca` see 10 of their 16 directions, knn is coarse.
    assert r2(model, source, labels.test) > 0.5, "of the source's test rows"
    plan = json.loads(json.dumps(blueprint(model)))
    again = rebuild_head(fresh, pair.shape, plan)
    again.load_state_dict(model.state_dict())
    whole = again.eval()(gather_rows(pair.target.test))  # from inputs, as the stored model takes them
    torch.testing.assert_close(whole, model(gather_rows(mapped.target.test)), atol=1e-5, rtol=1e-5)


def synthetic(granted: str, batchnorm: bool = False, **options) -> tuple[Pair, Model]:
    """`dataset=synthetic_regression`, and an MLP or a layer with BatchNorm."""
    drawn = synthetic_regression(0, samples=200, **options)
    pair, _, _ = split_domains(drawn, 0, Budget.parse(granted), torch.device("cpu"))
    with Rng(0).child("model").as_default():
        if not batchnorm:
            return pair, Model(*mlp(pair.shape, width=16, depth=1), pair.task)
        (columns,) = pair.shape
        layer = nn.Sequential(nn.Linear(columns, 16), nn.BatchNorm1d(16), nn.ReLU())
        return pair, Model(nn.Sequential(layer), 16, pair.task)


@torch.no_grad()
def share_unexplained(model: Model, pair: Pair, granted: bool) -> float:
    """1 − R² on the training rows whose labels count: the granted ones, else the source's."""
    if granted:
        rows, labels = pair.labels_granted
    else:
        source, of_source = pair.labelled_source
        rows, labels = source.train, of_source.train
    errors = model.eval()(gather_rows(rows))[:, 0] - labels
    return (errors.square().mean() / labels.var(correction=0)).item()


@pytest.mark.parametrize("said", [*TRAINED, {"sum": {"parts": ["mmd", "dann", "dare_gram"]}}], ids=str)
def test_each_that_serves_quantities_learns_synthetic_regression(said):
    method = config.build_named("method", said, "method")
    granted = "granted" in method.needs
    pair, model = synthetic("30" if granted else "0", batchnorm=said == "stochnorm")
    before = share_unexplained(model, pair, granted)
    model, pair = learn(method, model, pair)
    # Who always says the mean comes to 1. `ot_map`, 0.69, moves rows whose random features hold little of the quantity.
    assert share_unexplained(model, pair, granted) < 0.75 < before


def test_adabn_of_a_quantity_undoes_a_move():
    pair, model = synthetic("0", batchnorm=True, shift="move", strength=3.0)
    model, _ = learn(built("source_only"), model, pair)
    with torch.no_grad():
        source, x = (gather_rows(side.test) for side in (pair.source or pair.target, pair.target))
        then = model(x)
        adapted, _ = learn(built("adabn"), deepcopy(model), pair)
        apart = [abs(said.mean() - model(source).mean()).item() for said in (then, adapted(x))]
    assert apart[1] < apart[0] / 2, "what is said of the target is centred as of the source"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SERVE])
def test_all_others_refuse_a_quantity(name):
    with pytest.raises(UserError, match="predicts classes, and 'y' is a quantity: use source_only, target_only"):
        check_task(built(name), synthetic("5")[0])


def test_those_of_quantities_alone_are_these_and_refuse_classes():
    alone = {name for name in SERVE if built(name).tasks == {"regression"}}
    assert alone == OF_QUANTITIES
    with pytest.raises(UserError, match="DAREGRAM predicts a quantity, and this dataset has classes"):
        check_task(built("dare_gram"), images("0")[0])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"feature_extract": {"head": "logistic"}}, "is a quantity: use ridge, svm, knn or linear"),
        ({"coral_linear": {"head": "ncm"}}, "is a quantity: use ridge, svm or knn"),
    ],
)
def test_a_head_that_does_not_suit_the_task_is_refused(said, words):
    pair, model = task("10")
    with pytest.raises(UserError, match=words):
        prepare(config.build_named("method", said, "method"), model, pair)


# ---- dare_gram


def test_dare_gram_adds_both_distances_and_training_brings_them_down():
    pair, model = task()
    one, other = (gather_rows(side.train) for side in (pair.labelled_source[0], pair.target))

    @torch.no_grad()
    def apart(net: Model, one: torch.Tensor = one, other: torch.Tensor = other) -> tuple[float, float]:
        source, target = net.features(one, other)
        angle, scale = inverse_gram_distances(source, target, 0.9)
        return angle.item(), scale.item()

    method = built("dare_gram")
    batch = batch_of(method, pair)
    terms = method.terms(model, batch, 0.0)
    expected = apart(model, batch.source.x, batch.target)
    assert [*terms] == ["source", "angle", "scale"]
    assert terms["angle"].item() == pytest.approx(0.05 * expected[0], rel=1e-5)
    assert terms["scale"].item() == pytest.approx(0.001 * expected[1], rel=1e-5)
    strong = config.build_named("method", {"dare_gram": {"alpha_cos": 1.0, "gamma_scale": 0.1}}, "method")
    none = config.build_named("method", {"dare_gram": {"alpha_cos": 0.0, "gamma_scale": 0.0}}, "method")
    aligned, plain = (apart(learn(each, task()[1], pair)[0]) for each in (strong, none))
    assert aligned[1] < plain[1] / 2  # the scale that was asked for a hundred times as loud


@pytest.mark.parametrize("wrong", [{"alpha_cos": -1}, {"gamma_scale": -1}, {"share": 1.5}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be"):
        config.build_named("method", {"dare_gram": wrong}, "method")


# ---- TrAdaBoost.R2


def papers_answer(source_x, source_y, granted_x, granted_y, test_x) -> tuple[np.ndarray, np.ndarray]:
    """Pardoe & Stone 2010, figure of TrAdaBoost.R2: T_source first. The weights of the last round, and the answers."""
    x, y, n = np.concatenate([source_x, granted_x]), np.concatenate([source_y, granted_y]), len(source_y)
    scaler = StandardScaler().fit(x)
    w, beta = np.full(len(y), 1 / len(y)), 1 / (1 + sqrt(2 * log(n) / ROUNDS))
    hypotheses, betas = [], []
    for _ in range(ROUNDS):
        learner = Ridge(0.5).fit(scaler.transform(x), y, sample_weight=w * len(y))
        off = np.abs(y - learner.predict(scaler.transform(x)))
        e = off / off.max()
        error = (e[n:] * w[n:]).sum() / w[n:].sum()
        assert 0 < error < 0.5, "the paper wants 0 < ε < ½"
        betas.append(error / (1 - error))
        w = np.concatenate([w[:n] * beta ** e[:n], w[n:] * betas[-1] ** -e[n:]])
        w /= w.sum()
        hypotheses.append(learner.predict(scaler.transform(test_x)))
    last = range(ceil(ROUNDS / 2) - 1, ROUNDS)
    votes = np.array([log(1 / betas[t]) for t in last])
    answers = []
    for said in np.array([hypotheses[t] for t in last]).T:
        order = said.argsort()
        answers.append(said[order][np.cumsum(votes[order]) >= votes.sum() / 2][0])
    return w, np.array(answers)


def labelled(pair: Pair) -> tuple[Labelled, Labelled]:
    source, labels = pair.labelled_source
    granted, answers = pair.labels_granted
    return Labelled(gather_rows(source.train), labels.train), Labelled(gather_rows(granted), answers)


def test_tradaboost_of_a_quantity_is_the_papers_algorithm():
    pair, _ = task("20", contradiction=3.0)
    source, granted = labelled(pair)
    test = gather_rows(pair.target.test)
    arrays = [tensor.double().numpy() for tensor in (source.x, source.y, granted.x, granted.y, test)]
    _, expected = papers_answer(*arrays)
    backbone, width = identity(pair.shape)
    model, mapped = prepare(TrAdaBoost(rounds=ROUNDS), Model(backbone, width, pair.task), pair)
    assert isinstance(model.head, WeightedMedian) and len(model.head.vote) == 4  # the rounds 3, 4, 5 and 6 of 6
    found = model.head(gather_rows(mapped.target.test))[:, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)  # learners are float32 here
    assert np.std(expected) > 0.3


def test_contradicting_source_rows_lose_their_say():
    pair, _ = task("20", contradiction=3.0)
    source, granted = labelled(pair)
    weights, _ = papers_answer(*(t.double().numpy() for t in (*source[:2], *granted[:2], source.x)))
    learners = boost_regressors(source, granted, 30, C=1.0)
    offs = [(learner(granted.x)[:, 0] - granted.y).abs().mean().item() for learner, _ in learners]
    assert len(learners) > 5 and np.mean(offs[-5:]) < offs[0] and all(vote > 0 for _, vote in learners)
    assert weights[len(source.y) :].mean() > weights[: len(source.y)].mean()


def test_a_first_learner_that_is_no_good_is_alone_and_that_is_said(caplog):
    x = torch.linspace(-1, 1, 50)[:, None]
    source = Labelled(x, x[:, 0])
    learners = boost_regressors(source, Labelled(x[:2], torch.tensor([1.0, 1.0])), 5, C=1.0)
    assert len(learners) == 1 and "TrAdaBoost.R2 stopped after its first learner" in caplog.text


def test_a_faultless_learner_has_a_finite_vote():
    x = torch.linspace(-1, 1, 50)[:, None]
    rows = Labelled(x, torch.zeros(50))
    learners = boost_regressors(rows, rows, 5, C=10.0)
    assert len(learners) == 1 and np.isfinite(learners[0][1])
