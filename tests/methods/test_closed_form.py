"""Closed-form alignment against the papers' formulas, by NumPy and SciPy; from `prepare` to the stored model."""

import warnings

import numpy as np
import ot
import pytest
import scipy.linalg
import torch
from conftest import QUICK, made
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from support.stored import calibrated
from support.tasks import prepare
from torch import nn

import tl_runner
from tl_runner.core import Method, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Domain, InMemory, Labelled, LabelledSplit, Labels, Pair
from tl_runner.errors import UserError
from tl_runner.methods.closed_form import affine_map, sample_rows
from tl_runner.methods.coral_linear import CoralLinear, recolouring
from tl_runner.methods.ot_map import OTMap, move_along, transport_plan, transport_source
from tl_runner.methods.sa import SubspaceAlignment, principal_axes
from tl_runner.methods.tca import TCA, linear_components, rbf_components
from tl_runner.models.backbones import identity
from tl_runner.models.features import gather_rows
from tl_runner.models.heads import Calibrated, Neighbours
from tl_runner.rng import Rng
from tl_runner.tasks import Classification

NAMES = {"coral_linear": CoralLinear, "sa": SubspaceAlignment, "tca": TCA, "ot_map": OTMap}


def clouds(n: int = 40, m: int = 55, d: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of two Gaussians with other means and covariances, float64."""
    generator = np.random.default_rng(seed)
    source, target = (generator.normal(size=(rows, d)) @ generator.normal(size=(d, d)) for rows in (n, m))
    return torch.tensor(source + 1.0), torch.tensor(target - generator.normal(size=d))


def pair_of(source: Labelled, target: Labelled, granted: int = 0) -> tuple[Pair, Model]:
    """A task whose splits are all the same rows, and a model whose features are the inputs."""
    classes = tuple(str(c) for c in range(int(source.y.max()) + 1))
    x, answers = InMemory(source.x), Labels(source.y, source.y, source.y)
    y = InMemory(target.x)
    given = LabelledSplit(InMemory(target.x[:granted]), target.y[:granted]) if granted else None
    pair = Pair(
        Domain("s", Classification(classes), x, x, x, answers), Domain("t", Classification(classes), y, y, y), given
    )
    backbone, width = identity(pair.shape)
    return pair, Model(backbone, width, classes)


def prepare_for(method: Method, task: tuple[Pair, Model]) -> tuple[Model, Pair]:
    return prepare(method, task[1], task[0])


def blobs(n: int = 60) -> tuple[Labelled, Labelled]:
    """Three classes; the target is stretched and moved, so that what separates the source does not separate it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    centres = torch.tensor([[4.0, 0.0, 1.0], [-4.0, 0.5, 0.0], [0.0, 1.5, -1.0]])
    x, z = (centres[y] + 0.2 * torch.randn(n, 3, generator=generator) for _ in range(2))
    return Labelled(x, y), Labelled(z * torch.tensor([0.5, 3.0, 1.0]) + torch.tensor([5.0, -2.0, 3.0]), y)


def test_recoloured_source_rows_have_the_covariance_and_the_mean_of_the_target():
    source, target = clouds()
    moved = affine_map(recolouring(source, target, 1e-9), source, target)(source)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(target.T), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(moved.mean(0), target.mean(0))


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_recolouring_is_the_papers_algorithm(ridge):
    """Algorithm 1 of Sun et al. 2016: D_s C_s^(−1/2) C_t^(1/2) with C = cov(D) + I, by SciPy's matrix root."""
    source, target = clouds()
    c_s, c_t = (np.cov(rows.numpy().T) + ridge * np.eye(4) for rows in (source, target))
    expected = scipy.linalg.inv(scipy.linalg.sqrtm(c_s)) @ scipy.linalg.sqrtm(c_t)
    np.testing.assert_allclose(recolouring(source, target, ridge).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_subspaces_are_aligned_as_in_the_paper():
    """X_a = X_s X_sᵀ X_t (Fernando et al. 2013): inner products of S X_a and T X_t, which signs leave alone."""
    source, target = clouds(d=6)
    first, second = (Labelled(rows.float(), torch.arange(len(rows)) % 3) for rows in (source, target))
    pair, model = pair_of(first, second)
    prepared, aligned = prepare(SubspaceAlignment(dimensions=3), model, pair)
    s, t = (rows.numpy() - rows.numpy().mean(0) for rows in (source, target))
    x_s, x_t = (np.linalg.eigh(np.cov(rows.T))[1][:, ::-1][:, :3] for rows in (s, t))
    m = np.linalg.lstsq(x_s, x_t, rcond=None)[0]  # the minimum of ‖X_s M − X_t‖
    expected = np.concatenate([s @ x_s @ m, t @ x_t])
    assert isinstance(prepared.head, nn.Sequential)
    rows = torch.cat([gather_rows(aligned.labelled_source[0].train), gather_rows(aligned.target.train)])
    found = prepared.head[0](rows).detach().double().numpy()
    assert found.shape == (95, 3)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-5 * np.abs(expected).max() ** 2)


def test_where_both_subspaces_are_one_nothing_is_lost_of_it():
    source, _ = clouds()
    axes = principal_axes(source, 2)
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.double))
    assert principal_axes(source, 99).shape == (4, 4)
    assert principal_axes(source[:3], 99).shape == (4, 2)  # three rows have two directions
    assert principal_axes(source[:1].expand(5, 4), 2).shape == (4, 1)  # collapsed: any one direction


@pytest.mark.parametrize("mu", [1e-3, 1.0])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_transfer_components_solve_the_generalised_eigenproblem(kernel, mu):
    """(K L K + μ I)⁻¹ K H K of Pan et al. 2011 in full, by SciPy, with the matrices as the paper writes them."""
    source, target = clouds()
    x, n, m = torch.cat([source, target]).numpy(), len(source), len(target)
    distances = cdist(x, x, "sqeuclidean")
    k = x @ x.T if kernel == "linear" else np.exp(-distances / distances[~np.eye(n + m, dtype=bool)].mean())
    blocks = np.block(
        [
            [np.full((n, n), 1 / n**2), np.full((n, m), -1 / (n * m))],
            [np.full((m, n), -1 / (n * m)), np.full((m, m), 1 / m**2)],
        ]
    )
    centring = np.eye(n + m) - 1 / (n + m)
    constraint, spread = k @ blocks @ k + mu * np.eye(n + m), k @ centring @ k
    values, vectors = scipy.linalg.eigh(spread, constraint)
    expected = k @ vectors[:, ::-1][:, :3]
    if kernel == "linear":
        found = x @ linear_components(source, target, 3, mu).numpy()
    else:
        found = rbf_components(source, target, 3, mu)(torch.cat([source, target])).double().numpy()
    # float32 kernels; inner products, as signs are free
    size = np.abs(expected).max() ** 2
    np.testing.assert_allclose(
        found @ found.T, expected @ expected.T, atol=(1e-9 if kernel == "linear" else 1e-4) * size
    )
    if kernel == "linear":
        w = np.linalg.lstsq(k, found, rcond=None)[0]  # of least norm: in the span of K, where ours is
        objective = np.trace(np.linalg.solve(w.T @ constraint @ w, w.T @ spread @ w))
        assert objective == pytest.approx(values[-3:].sum(), rel=1e-6)


def test_transfer_components_bring_the_means_together():
    source, target = clouds()
    gaps = []
    for mu in (1e-3, 1e9):  # at a large μ they are principal components of sorts, which do not look at the domains
        p = linear_components(source, target, 2, mu)
        spread = (torch.cat([source, target]) @ p).std(0).norm()
        gaps.append(((source.mean(0) - target.mean(0)) @ p).norm() / spread)
    assert gaps[0] < 0.3 * gaps[1]


def test_a_translated_cloud_is_moved_onto_the_other():
    source, _ = clouds()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([30.0, -3.0, 2.0, 9.0])
    torch.testing.assert_close(transport_source(source, source[order] + shift, 0.0), source + shift)
    near = move_along(source, source + shift)(source + 1e-3)
    torch.testing.assert_close(near, source + 1e-3 + shift)


def test_the_plan_is_that_of_a_linear_programme():
    source, target = clouds(7, 9)
    plan = transport_plan(source, target, 0.0).numpy()
    cost = cdist(source.numpy(), target.numpy(), "sqeuclidean")
    rows, columns = np.kron(np.eye(7), np.ones(9)), np.kron(np.ones(7), np.eye(9))
    best = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.r_[np.full(7, 1 / 7), np.full(9, 1 / 9)])
    assert (plan * cost).sum() == pytest.approx(best.fun)
    np.testing.assert_allclose(plan, best.x.reshape(7, 9), atol=1e-9)  # of generic rows the optimum is unique
    expected = best.x.reshape(7, 9) @ target.numpy() / (1 / 7)
    np.testing.assert_allclose(transport_source(source, target, 0.0).numpy(), expected, atol=1e-8)


def test_the_entropic_plan_is_sinkhorns():
    source, target = clouds(7, 9)
    cost = cdist(source.numpy(), target.numpy(), "sqeuclidean")
    kernel, u, v = np.exp(-cost / (0.1 * cost.mean())), np.ones(7), np.ones(9)
    for _ in range(5000):
        u = 1 / 7 / (kernel @ v)
        v = 1 / 9 / (kernel.T @ u)
    np.testing.assert_allclose(transport_plan(source, target, 0.1).numpy(), u[:, None] * kernel * v, atol=1e-6)


@pytest.mark.parametrize(("entropy", "steps"), [(0.0, 1), (0.01, 1), (0.1, 10)])
def test_a_plan_that_its_solver_did_not_finish_is_told_of_and_one_that_is_none_refused(entropy, steps, caplog):
    name = "emd" if entropy == 0 else "sinkhorn"
    solver = getattr(ot, name)
    assert not caplog.text and transport_plan(*clouds(), entropy).isfinite().all() and not caplog.text
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(ot, name, lambda *words, **options: solver(*words, **{**options, "numItermax": steps}))
        warnings.simplefilter("ignore")  # POT's own
        if steps == 1:
            with pytest.raises(UserError, match=r"no transport plan was found with method.entropy=0.*\d% of the mass"):
                transport_plan(*clouds(), entropy)
        else:
            transport_plan(*clouds(), entropy)
            assert "the transport plan is not quite the optimal one" in caplog.text


def test_only_so_many_rows_are_drawn_and_all_where_there_are_fewer():
    rows = torch.arange(20).float()[:, None]
    drawn = sample_rows(rows, 5, 3, "source")
    assert len(drawn.unique()) == 5 and torch.equal(drawn, sample_rows(rows, 5, 3, "source"))
    assert not torch.equal(drawn, sample_rows(rows, 5, 4, "source")) and not torch.equal(
        drawn, sample_rows(rows, 5, 3, "target")
    )
    assert sorted(sample_rows(rows, 99, 3, "source").flatten().tolist()) == list(range(20))


@pytest.mark.parametrize("head", ["logistic", "svm", "knn", "ncm"])
@pytest.mark.parametrize("name", ["coral_linear", "ot_map"])
def test_stretched_and_moved_classes_are_found_again(name, head):
    source, target = blobs()
    pair, model = pair_of(source, target)
    method = NAMES[name](head=head, **({"ridge": 1e-3} if name == "coral_linear" else {}))
    prepared, aligned = prepare(method, model, pair)
    assert not method.phases(prepared)
    assert (prepared(target.x).argmax(1) == target.y).float().mean() > 0.95
    domain, labels = aligned.labelled_source
    assert (prepared(gather_rows(domain.test)).argmax(1) == labels.test).float().mean() > 0.95
    assert (prepared(source.x).argmax(1) == source.y).float().mean() < 0.9  # as they were they mean nothing to it
    assert torch.equal(gather_rows(aligned.target.test), target.x)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_granted_rows_join_the_head(name):
    """With labels that contradict the source's, and five times as many rows."""
    source, target = blobs()
    wrong = Labelled(target.x, (target.y + 1) % 3)
    few = Labelled(source.x[:15], source.y[:15])
    without, _ = prepare_for(NAMES[name](head="knn", k=3), pair_of(few, wrong))
    joined, _ = prepare_for(NAMES[name](head="knn", k=3), pair_of(few, wrong, granted=60))
    assert (joined(target.x).argmax(1) == wrong.y).float().mean() > 0.9
    assert (without(target.x).argmax(1) == wrong.y).float().mean() < 0.6


@pytest.mark.parametrize("head", ["logistic", "knn", "ncm"])
@pytest.mark.parametrize("name", [*sorted(NAMES), "rbf", "entropy"])
def test_collapsed_features_leave_finite_predictions(name, head):
    y = torch.arange(12) % 3
    pair, model = pair_of(Labelled(torch.ones(12, 4), y), Labelled(torch.zeros(12, 4), y))
    method = {"rbf": TCA(kernel="rbf", head=head), "entropy": OTMap(0.1, head=head)}.get(name) or NAMES[name](head=head)
    prepared, aligned = prepare(method, model, pair)
    for split in (aligned.target.test, aligned.labelled_source[0].test):
        assert prepared(gather_rows(split)).isfinite().all()


def test_every_option_does_something():
    source, target = blobs()
    noisy = Labelled(target.x + torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), target.y)

    def predicted(method) -> torch.Tensor:
        prepared, _ = prepare_for(method, pair_of(source, noisy))
        return prepared(noisy.x).detach()

    others = [
        (CoralLinear(), [CoralLinear(ridge=0.01), CoralLinear(C=0.1), CoralLinear(head="svm")]),
        (
            SubspaceAlignment(),
            [SubspaceAlignment(dimensions=1), SubspaceAlignment(C=0.1), SubspaceAlignment(head="ncm")],
        ),
        (TCA(), [TCA(dimensions=1), TCA(mu=100.0, dimensions=1), TCA(C=0.1), TCA(kernel="rbf"), TCA(head="ncm")]),
        (TCA(kernel="rbf"), [TCA(kernel="rbf", rows=10), TCA(kernel="rbf", mu=0.01)]),
        (OTMap(), [OTMap(entropy=0.5), OTMap(rows=10), OTMap(C=0.1), OTMap(head="ncm")]),
    ]
    for one, different in others:
        expected = predicted(one)
        assert all(not torch.allclose(predicted(method), expected, atol=1e-3) for method in different)
    for kind in NAMES.values():
        votes = [predicted(kind(head="knn", k=k)) for k in (1, 30)]
        assert not torch.equal(*votes)


@pytest.mark.parametrize(
    "wrong", [lambda: CoralLinear(ridge=0.0), lambda: SubspaceAlignment(0), lambda: TCA(mu=0.0), lambda: OTMap(-1.0)]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match="must be"):
        wrong()


@pytest.mark.parametrize(
    "words",
    ["coral_linear", "sa", "sa head=knn", "tca", "tca kernel=rbf", "tca kernel=rbf head=knn", "ot_map head=svm"],
)
def test_a_stored_model_maps_images_to_the_predictions_of_its_run(words, tmp_path):
    name, *options = words.split()
    record = made(tmp_path, f"method={name}", *(f"method.{option}" for option in options), *QUICK)
    with Rng(0).child("data").as_default():
        pair, _, _ = split_domains(digits(0, samples=300, size=8), 0, Budget("count", 0), torch.device("cpu"))
    model = tl_runner.load(record.folder).model
    with torch.no_grad():
        found = model(pair.target.test.take(torch.arange(len(pair.target.test)))).softmax(1)
    assert record.scores is not None and record.scores.source["accuracy"] > 0.3  # of aligned rows
    torch.testing.assert_close(found, calibrated(record, 0), atol=1e-5, rtol=1e-4)
    if "head=knn" in words:
        head = model.head.head if isinstance(model.head, Calibrated) else model.head
        assert isinstance(head, nn.Sequential) and isinstance(head[1], Neighbours)
