"""Methods made for several source domains, against NumPy and closed forms."""

import numpy as np
import pytest
import torch
from conftest import QUICK, made
from support.tasks import prepare
from torch import nn

from tl_runner.core import Batch, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Labelled, Pair
from tl_runner.errors import UserError
from tl_runner.functional.groups import group_means
from tl_runner.methods.groupdro import GroupDRO
from tl_runner.methods.m3sda import M3SDA, moment_distance
from tl_runner.models.backbones import small
from tl_runner.models.heads import MeanOfHeads, blueprint, rebuild_head

GENERATOR = torch.Generator().manual_seed(0)


def several() -> Pair:
    drawn = digits(0, source=("sans", "serif", "mono"), samples=60, size=8)
    return split_domains(drawn, 0, Budget.parse("0"), torch.device("cpu"))[0]


def identity(width: int = 4) -> Model:
    """A network whose features are its inputs."""
    return Model(nn.Sequential(nn.Identity()), width, ("a", "b", "c"))


def batch(n: int = 12, width: int = 4) -> Batch:
    x, t = torch.randn(n, width, generator=GENERATOR), torch.randn(n, width, generator=GENERATOR)
    y, domain = torch.arange(n) % 3, torch.arange(n) * 3 // n
    return Batch(Labelled(x, y), t, domain=domain)


def test_means_of_groups_are_numpys():
    x, group = torch.randn(20, 3, generator=GENERATOR), torch.arange(20) % 3
    expected = np.stack([x.numpy()[group.numpy() == g].mean(0) for g in range(3)])
    assert group_means(x, group, 4)[:3].numpy() == pytest.approx(expected, abs=1e-6)
    assert group_means(x, group, 4)[3].tolist() == [0, 0, 0]
    assert group_means(x[:, 0], group, 3).numpy() == pytest.approx(expected[:, 0], abs=1e-6)


@pytest.mark.parametrize("moments", [1, 2, 3])
def test_the_moment_distance_is_the_papers(moments):
    """Definition 1 of Peng et al. 2019, in NumPy: over all sources, and over all pairs of them."""
    x, t = torch.randn(30, 5, generator=GENERATOR), torch.randn(11, 5, generator=GENERATOR)
    domain = torch.arange(30) % 3
    expected = 0.0
    for k in range(1, moments + 1):
        means = [(x.numpy()[domain.numpy() == i] ** k).mean(0) for i in range(3)]
        target = (t.numpy() ** k).mean(0)
        expected += np.mean([np.linalg.norm(mean - target) for mean in means])
        pairs = [(0, 1), (0, 2), (1, 2)]
        expected += np.mean([np.linalg.norm(means[i] - means[j]) for i, j in pairs])
    assert float(moment_distance(x, domain, 3, t, moments)) == pytest.approx(expected, rel=1e-5)


def test_domains_that_are_alike_have_no_moment_distance_and_a_finite_gradient():
    x = torch.randn(8, 4, generator=GENERATOR)
    both = torch.cat([x, x]).requires_grad_()
    distance = moment_distance(both, torch.arange(16) // 8, 2, x)
    distance.backward()
    assert distance.item() < 1e-5 and both.grad is not None and bool(torch.isfinite(both.grad).all())


def test_each_domain_of_m3sda_teaches_its_own_classifier_and_their_mean_predicts():
    method, model, seen = M3SDA(weight=0.0), identity(), batch()
    model.head = MeanOfHeads(4, 3, 3)
    terms = method.terms(model, seen, 0.5)
    heads, rows, expected = model.head, seen.source, []
    for k in range(3):
        own = seen.domain == k
        logits = rows.x[own] @ heads.weight[k].T + heads.bias[k]
        expected.append(nn.functional.cross_entropy(logits, rows.y[own]))
    assert terms["source"].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    mean = torch.stack([heads.each(rows.x)[k].softmax(-1) for k in range(3)]).mean(0)
    assert torch.allclose(heads(rows.x).softmax(-1), mean, atol=1e-6)
    terms["source"].backward()
    assert heads.weight.grad is not None and bool((heads.weight.grad != 0).flatten(1).any(1).all())


def test_the_heads_of_m3sda_are_built_again_from_their_blueprint():
    model = identity()
    model.head = MeanOfHeads(4, 3, 2)
    again = rebuild_head(identity(), (4,), blueprint(model))
    again.load_state_dict(model.state_dict())
    x = torch.randn(5, 4, generator=GENERATOR)
    assert torch.equal(again.head(x), model.head(x))


def test_group_dro_weighs_by_exponentiated_losses():
    """Algorithm 1 of Sagawa et al. 2020, step by step in NumPy."""
    method, model = GroupDRO(step_size=0.7), identity()
    method.register_buffer("q", torch.full((3,), 1 / 3))
    q = np.full(3, 1 / 3)
    for _ in range(4):
        seen = batch()
        logits = model.head(seen.source.x).detach().double().numpy()
        log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses = -log[np.arange(12), seen.source.y.numpy()]
        by_group = np.array([losses[seen.domain.numpy() == g].mean() for g in range(3)])
        q = q * np.exp(0.7 * by_group)
        q = q / q.sum()
        terms = method.terms(model, seen, 0.0)
        assert terms["source"].item() == pytest.approx(float(q @ by_group), rel=1e-5)
        assert method.q.numpy() == pytest.approx(q, rel=1e-5)
        assert terms.metrics["worst"].item() == pytest.approx(by_group.max(), rel=1e-5)


def test_group_dro_with_steps_of_no_size_is_the_mean_over_domains():
    method, model, seen = GroupDRO(step_size=0.0), identity(), batch()
    method.register_buffer("q", torch.full((3,), 1 / 3))
    losses = nn.functional.cross_entropy(model.head(seen.source.x), seen.source.y, reduction="none")
    assert method.terms(model, seen, 0.0)["source"].item() == pytest.approx(losses.view(3, 4).mean().item(), rel=1e-6)


def test_group_dro_needs_several_sources():
    pair, _, _ = split_domains(digits(0, samples=60, size=8), 0, Budget.parse("0"), torch.device("cpu"))
    backbone, width = small(pair.shape, width=8, channels=4)
    with pytest.raises(UserError, match=r"dataset\.source=\[a,b\]"):
        prepare(GroupDRO(), Model(backbone, width, pair.classes), pair)


@pytest.mark.parametrize("name", ["groupdro", "m3sda", "source_only", "dann", "kmm", "maml", "shot", "adabn"])
def test_methods_run_on_a_pool(tmp_path, name):
    words = [*QUICK, "dataset.source=[sans,serif,mono]", f"method={name}"]
    record = made(tmp_path, *words)
    assert record.status == "ok" and record.scores and record.scores.members and len(record.scores.members) == 3


def test_group_dro_reads_no_row_of_the_target():
    assert GroupDRO.needs == {"source"} and M3SDA.needs == {"source", "target"}
    assert several().source is not None
