"""Adversarial adaptation against NumPy and the papers' formulas; who descends, who ascends, who gets nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import built
from support.tasks import batch_of, images, prepare, task
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model, Terms
from tl_runner.domains import Labelled
from tl_runner.errors import UserError
from tl_runner.functional import losses
from tl_runner.methods.adda import ADDA
from tl_runner.methods.bsp import BSP, largest_squared
from tl_runner.methods.cdan import CDAN, LARGEST, RANDOMISED, multilinear
from tl_runner.methods.dann import DANN
from tl_runner.methods.discriminator import discriminator_loss
from tl_runner.methods.mcd import MCD, discrepancy
from tl_runner.methods.mdd import MDD, log_others
from tl_runner.methods.mme import MME
from tl_runner.methods.strength import Strength
from tl_runner.methods.sum import Sum
from tl_runner.models.heads import Cosine
from tl_runner.training.loop import begin_phase

P = 0.3  # the progress at which terms are taken: their strength is neither 0 nor 1


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, part: nn.Module) -> list[Tensor]:
    """Of each parameter; 0 where the loss does not depend on it."""
    found = torch.autograd.grad(loss, [*part.parameters()], retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, part.parameters(), strict=True)]


def same(got: list[Tensor], expected: list[Tensor], factor: float = 1.0) -> None:
    assert any(one.abs().sum() > 0 for one in expected)
    for one, other in zip(got, expected, strict=True):  # float32 sums in another order
        torch.testing.assert_close(one, factor * other, rtol=1e-4, atol=1e-7)


def nothing(got: list[Tensor]) -> None:
    assert all(torch.equal(one, torch.zeros_like(one)) for one in got)


def begun(method: Method, granted: str = "0") -> tuple[Model, Batch]:
    """A model and a batch, the method prepared."""
    pair, model = task(granted)
    model, pair = prepare(method, model, pair)
    for phase in method.phases(model):
        begin_phase(phase, model, method)
    return model, batch_of(method, pair)


def entropies(p: np.ndarray) -> np.ndarray:
    return np.array([-sum(v * np.log(v) for v in row if v > 0) for row in p])


def bce(logits: Tensor, domain: int) -> Tensor:
    """Row by row, as it stands in a textbook."""
    p = torch.sigmoid(logits.squeeze(1))
    return -torch.log(p if domain else 1 - p)


# The discriminator


def test_a_discriminator_is_not_told_which_domain_has_more_rows():
    """One answer for all rows costs log 2 at best, and that at 0, though the target has three times the rows."""
    constant = torch.zeros(1, requires_grad=True)
    loss, accuracy = discriminator_loss(constant.expand(8)[:, None], constant.expand(24)[:, None])
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2)) and accuracy == 0.5
    assert constant.grad is not None and constant.grad.abs() < 1e-6
    source, target = normal(5, 1), normal(9, 1, seed=1)
    loss, accuracy = discriminator_loss(source, target)
    torch.testing.assert_close(loss, 0.5 * bce(source, 1).mean() + 0.5 * bce(target, 0).mean())
    rate = 0.5 * (source > 0).float().mean() + 0.5 * (target <= 0).float().mean()
    torch.testing.assert_close(accuracy, rate)
    assert (
        discriminator_loss(torch.ones(3, 1), -torch.ones(2, 1))[1] == 1
        and discriminator_loss(-torch.ones(3, 1), torch.ones(2, 1))[1] == 0
    )


def test_the_loss_of_a_sure_discriminator_is_finite():
    loss, _ = discriminator_loss(torch.full((2, 1), -1e4), torch.full((2, 1), 1e4))
    assert loss == 1e4


@pytest.mark.parametrize("schedule", ["ramp", "linear", "constant"])
@pytest.mark.parametrize("kind", [DANN, CDAN])
def test_schedule_is_the_strength_of_the_reversal(kind, schedule):
    method = kind(dropout=0.0, hidden=8, schedule=schedule)
    model, batch = begun(method)
    features = [rows.detach().requires_grad_() for rows in model.features(*batch.inputs)]
    loss, _ = method.adversarial_loss(model, *features, P)
    (got,) = torch.autograd.grad(loss, features[:1])
    method.reversal = Strength(1.0, "constant")
    loss, _ = method.adversarial_loss(model, *features, P)
    (full,) = torch.autograd.grad(loss, features[:1])
    torch.testing.assert_close(got, full * losses.scheduled(schedule, P))


# CDAN


def test_the_multilinear_map_is_the_outer_product_of_each_row():
    f, g = normal(6, 4), normal(6, 3, seed=1).softmax(-1)
    expected = np.stack([np.outer(a, b).reshape(-1) for a, b in zip(f.numpy(), g.numpy(), strict=True)])
    np.testing.assert_array_equal(multilinear(f, g).numpy(), expected)


def test_the_randomised_map_keeps_inner_products():
    """E⟨T(f, g), T(f', g')⟩ = ⟨f, f'⟩⟨g, g'⟩ over the two matrices (Long et al. 2018, theorem 1)."""
    width, classes = 600, 8
    model = Model(nn.Sequential(nn.Linear(1, width)), width, [*"abcdefgh"])
    method = CDAN(hidden=4)
    prepare(method, model, task()[0])
    assert method.randomised and width * classes > LARGEST
    assert {"of_features", "of_predictions"} <= {*method.state_dict()} and "of_features" not in dict(
        method.named_parameters()
    )
    assert next(method.discriminator.parameters()).shape[1] == RANDOMISED
    f, g = normal(5, width) + 0.3, (3 * normal(5, classes, seed=1)).softmax(-1)
    joint = method.joint(f, g)
    by_hand = (f.numpy() @ method.of_features.numpy()) * (g.numpy() @ method.of_predictions.numpy()) / np.sqrt(1024)
    np.testing.assert_allclose(joint.numpy(), by_hand, rtol=1e-4, atol=1e-5)
    exact = (f @ f.T) * (g @ g.T)
    # a mean of 1024 products of Gaussians, each with a deviation of about three times the norms' product
    tolerance = 4 * 3 * torch.outer(exact.diag().sqrt(), exact.diag().sqrt()) / np.sqrt(RANDOMISED)
    assert ((joint @ joint.T - exact).abs() < tolerance).all()
    assert (joint @ joint.T).diag().mean().item() == pytest.approx(exact.diag().mean().item(), rel=0.15)
    small = CDAN(hidden=4)
    prepare(small, task()[1], task()[0])
    assert not small.randomised and not [*small.buffers()]


def test_the_certainty_of_rows_is_one_plus_exp_of_minus_the_entropy_with_mean_one():
    logits = (2 * normal(7, 4)).requires_grad_()
    p = logits.softmax(-1)
    weights = losses.certainty(p)
    by_hand = 1 + np.exp(-entropies(p.detach().double().numpy()))
    np.testing.assert_allclose(weights.numpy(), by_hand / by_hand.mean(), rtol=1e-5)
    assert not weights.requires_grad
    torch.testing.assert_close(losses.certainty(torch.full((3, 4), 0.25)), torch.ones(3))
    assert torch.isfinite(losses.certainty(torch.eye(4))).all() and losses.certainty(torch.eye(4)).mean() == 1


@pytest.mark.parametrize("entropy", [False, True])
def test_cdan_is_the_papers_formula_and_reverses_the_features_gradient_alone(entropy):
    method = CDAN(weight=0.7, entropy=entropy, hidden=16, dropout=0.0)
    model, drawn = begun(method)
    batch = Batch(Labelled(drawn.source.x, drawn.source.y), drawn.target[:10])  # 16 rows and 10
    with torch.no_grad():
        model.head.weight.mul_(5)  # pyright: ignore[reportOperatorIssue, reportCallIssue]  # some rows sure, others not
    terms = method.terms(model, batch, P)
    loss = terms["conditional_adversary"]
    expected = torch.zeros(())
    for x, domain in ((batch.source.x, 1), (batch.target, 0)):
        (f,) = model.features(x)
        g = model.head(f).softmax(-1).detach()
        joint = torch.stack([torch.outer(a, b).reshape(-1) for a, b in zip(f, g, strict=True)])
        w = 1 + np.exp(-entropies(g.numpy())) if entropy else np.ones(len(x))
        expected = (
            expected + 0.5 * (torch.tensor(w / w.mean()).float() * bce(method.discriminator(joint), domain)).mean()
        )
    torch.testing.assert_close(loss, 0.7 * expected)
    same(gradients(loss, method.discriminator), gradients(0.7 * expected, method.discriminator))
    same(gradients(loss, model.backbone), gradients(0.7 * expected, model.backbone), -losses.ramp(P))
    nothing(gradients(loss, model.head))  # g and its entropy are without gradient
    assert 0 <= terms.metrics["discriminator_accuracy"] <= 1


def test_entropy_changes_what_cdan_learns():
    terms = []
    for entropy in (False, True):
        method = CDAN(entropy=entropy, dropout=0.0)
        model, batch = begun(method)
        with torch.no_grad():
            model.head.weight.mul_(5)  # pyright: ignore[reportOperatorIssue, reportCallIssue]
        terms.append(method.terms(model, batch, P)["conditional_adversary"])
    assert terms[0] != terms[1]


# BSP


def test_the_largest_squared_singular_value_is_numpys():
    features = normal(2, 9, 5) + 1
    expected = [np.linalg.svd(rows, compute_uv=False)[0] ** 2 for rows in features.double().numpy()]
    np.testing.assert_allclose(largest_squared(features).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_features_have_a_spectrum_with_a_finite_gradient(value):
    rows = torch.full((8, 4), value, requires_grad=True)
    penalty = largest_squared(rows)
    penalty.backward()
    assert penalty.item() == pytest.approx(32 * value, rel=1e-5)
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, 2 * rows.detach())  # of rank one, σ² is the sum of squares


def test_the_spectrum_is_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert largest_squared(normal(6, 3).bfloat16()).dtype == torch.float32


def test_bsp_penalises_both_domains():
    method = BSP(weight=0.01, schedule="linear")
    model, batch = begun(method)
    terms = method.terms(model, batch, P)
    expected = sum(
        float(np.linalg.svd(model.features(x)[0].detach().double().numpy(), compute_uv=False)[0] ** 2)
        for x in (batch.source.x, batch.target)
    )
    assert terms.keys() == {"source", "bsp"} and not [*method.parameters()]
    assert terms["bsp"].item() == pytest.approx(0.01 * P * expected, rel=1e-4)


@pytest.mark.parametrize("name", ["dann", "cdan"])
def test_bsp_on_top_of_an_adversary_is_a_sum(name):
    """As its authors have it."""
    method, alone = Sum(["bsp", name]), built(name)
    (model, batch), _ = begun(method), begun(alone)
    method.eval()  # no dropout
    alone.eval()
    together, plain = (each.terms(model, batch, P) for each in (method, alone))
    assert isinstance(together, Terms) and isinstance(plain, Terms)
    assert together.keys() == {*plain, "bsp"}
    assert all(torch.equal(together[key], plain[key]) for key in plain)
    assert torch.equal(together.metrics["discriminator_accuracy"], plain.metrics["discriminator_accuracy"])
    of_sum, of_alone = (begin_phase(each.phases(model)[0], model, each) for each in (method, alone))
    assert {g.lr for g in of_sum} == {g.lr for g in of_alone} == {1.0}


# MCD


def test_mcd_is_the_papers_and_each_player_goes_its_way():
    method = MCD(weight=0.7)
    model, batch = begun(method, "5")
    terms = method.terms(model, batch, P)
    source, target, granted = (model.features(x)[0] for x in (batch.source.x, batch.target, batch.granted.x))
    p, q = ((f(target)).softmax(-1) for f in (model.head, method.second))
    gap = torch.stack([(p[i, c] - q[i, c]).abs() for i in range(len(p)) for c in range(p.shape[1])]).mean()
    torch.testing.assert_close(terms["mcd"], -0.7 * gap)
    for head in (model.head, method.second):  # minus the gap is minimised: they make it large
        same(gradients(terms["mcd"], head), gradients(gap, head), -0.7)
    same(gradients(terms["mcd"], model.backbone), gradients(gap, model.backbone), 0.7 * losses.ramp(P))
    assert terms.keys() == {"source", "granted", "second_source", "second_granted", "mcd"}
    for name, head, rows, y in (
        ("source", model.head, source, batch.source.y),
        ("granted", model.head, granted, batch.granted.y),
        ("second_source", method.second, source, batch.source.y),
        ("second_granted", method.second, granted, batch.granted.y),
    ):
        torch.testing.assert_close(terms[name], F.cross_entropy(head(rows), y))


def test_two_equal_heads_do_not_differ_and_sure_opposite_ones_differ_most():
    logits = normal(4, 3)
    assert discrepancy(logits, logits) == 0
    assert discrepancy(100 * torch.eye(2), 100 * torch.eye(2).flip(0)) == 1  # |1 − 0| + |0 − 1| over two classes
    method = MCD()
    model, _ = begun(method)
    assert not torch.equal(method.second.weight, model.head.weight)  # pyright: ignore[reportArgumentType]
    assert method.second not in [*model.modules()]


# MDD


def test_the_log_of_one_minus_p_is_numpys_and_finite_where_p_is_one():
    logits, y = 3 * normal(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    p = logits.double().softmax(-1).numpy()
    expected = [np.log(1 - p[i, c]) for i, c in enumerate(y)]
    np.testing.assert_allclose(log_others(logits, y).numpy(), expected, rtol=1e-4, atol=1e-6)
    sure = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
    value = log_others(sure, torch.tensor([0, 0]))
    value.sum().backward()
    torch.testing.assert_close(value.detach(), torch.tensor([np.log(2) - 200, 0.0]).float())
    assert sure.grad is not None and torch.isfinite(sure.grad).all()


def test_mdd_is_the_papers_and_each_player_goes_its_way():
    """Zhang et al. 2019, equation (30): γ E_s log σ_y(h) + E_t log(1 − σ_y(h)) with y the head's class."""
    method = MDD(weight=0.7, margin=3.0, hidden=16, dropout=0.0)
    model, drawn = begun(method)
    batch = Batch(Labelled(drawn.source.x, drawn.source.y), drawn.target[:10])
    terms = method.terms(model, batch, P)
    loss = terms["mdd"]
    (source,), (target,) = model.features(batch.source.x), model.features(batch.target)
    agree = [
        (torch.exp(other) / torch.exp(other).sum())[said.argmax()].log()
        for other, said in zip(method.adversary(source), model.head(source), strict=True)
    ]
    differ = [
        (1 - (torch.exp(other) / torch.exp(other).sum())[said.argmax()]).log()
        for other, said in zip(method.adversary(target), model.head(target), strict=True)
    ]
    disparity = 3.0 * torch.stack(agree).mean() + torch.stack(differ).mean()
    torch.testing.assert_close(loss, -0.7 * disparity)
    same(gradients(loss, method.adversary), gradients(disparity, method.adversary), -0.7)  # which it makes large
    same(gradients(loss, model.backbone), gradients(disparity, model.backbone), 0.7 * losses.ramp(P))
    nothing(gradients(loss, model.head))
    others = [int((method.adversary(f).argmax(1) != model.head(f).argmax(1)).sum()) for f in (source, target)]
    assert terms.metrics["discriminator_accuracy"].item() == pytest.approx(0.5 * (1 - others[0] / 16 + others[1] / 10))


@pytest.mark.parametrize("hidden", [0, 16])
def test_mdds_heads_are_of_one_form_and_start_apart(hidden):
    pair, plain = task("0")
    method = MDD(hidden=hidden, dropout=0.3)
    model, _ = prepare(method, plain, pair)
    assert repr(method.adversary) == repr(model.head)
    own, other = ([*head.parameters()] for head in (model.head, method.adversary))
    assert [p.shape for p in own] == [p.shape for p in other] and not torch.equal(own[0], other[0])
    assert isinstance(plain.head, nn.Linear) and (model.head is plain.head) == (hidden == 0)
    if hidden:  # the authors' classifier: one hidden layer
        assert [type(part) for part in model.head.children()] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
        assert own[0].shape == (hidden, model.width)


# ADDA


def test_adda_trains_the_discriminator_on_labels_and_the_encoder_on_inverted_ones():
    method = ADDA(weight=0.7, hidden=16, dropout=0.0, schedule="linear")
    model, drawn = begun(method)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.1)  # the target's encoder has gone on
    batch = Batch(Labelled(drawn.source.x, drawn.source.y), drawn.target[:10])
    terms = method.terms(model, batch, P)
    source, (target,) = method.source_encoder.net(batch.source.x), model.features(batch.target)
    discriminator = (
        0.5 * bce(method.discriminator(source), 1).mean() + 0.5 * bce(method.discriminator(target), 0).mean()
    )
    fooled = bce(method.discriminator(target), 1).mean()
    assert terms.keys() == {"discriminator", "adversary"} and not batch.unread
    torch.testing.assert_close(terms["discriminator"], discriminator)
    torch.testing.assert_close(terms["adversary"], 0.7 * P * fooled)
    same(gradients(terms["discriminator"], method.discriminator), gradients(discriminator, method.discriminator))
    nothing(gradients(terms["discriminator"], model.backbone))
    same(gradients(terms["adversary"], model.backbone), gradients(fooled, model.backbone), 0.7 * P)
    nothing(gradients(terms["adversary"], method.discriminator))


def test_adda_leaves_the_head_and_the_source_encoder_as_they_were():
    pair, model = images("5")
    method = ADDA(hidden=8)
    model, pair = prepare(method, model, pair)
    (phase,) = method.phases(model)
    groups = begin_phase(phase, model, method)
    trained = {p for group in groups for p in group.parameters}
    assert trained == {*model.backbone.parameters(), *method.discriminator.parameters()}
    assert [(group.lr, group.of_backbone) for group in groups] == [(1.0, True), (1.0, False)]
    before = {key: value.clone() for key, value in method.source_encoder.state_dict().items()}
    running = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()
    method.train()
    terms = method.terms(model, batch_of(method, pair), P)
    assert terms.keys() == {"granted", "discriminator", "adversary"}
    terms["granted"].backward()
    assert all(p.grad is None for p in model.head.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    after = method.source_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # its BatchNorm statistics too
    moved = [key for key, value in model.backbone.state_dict().items() if not torch.equal(value, running[key])]
    assert moved and all("running" in key or "batches" in key for key in moved)


@pytest.mark.parametrize("method", [DANN(lr_critic=0.3), CDAN(lr_critic=0.3)])
def test_the_discriminator_has_a_rate_of_its_own(method):
    pair, model = task()
    model, _ = prepare(method, model, pair)
    (phase,) = method.phases(model)
    groups = begin_phase(phase, model, method)
    rates = {id(parameter): group.lr for group in groups for parameter in group.parameters}
    assert {rates[id(p)] for p in method.discriminator.parameters()} == {0.3}
    assert {rates[id(p)] for p in model.parameters()} == {1.0}


def test_adda_refuses_in_words_what_it_cannot_go_on_from():
    pair, model = task()
    with pytest.raises(UserError, match=r"no source model here: .* and pretrain=default"):
        prepare(ADDA(), model, pair, has_source_model=False)
    bare = Model(nn.Sequential(nn.Flatten()), 10, pair.classes)
    with pytest.raises(UserError, match="this backbone has no parameters"):
        prepare(ADDA(), bare, pair)


# MME


def test_mme_is_the_papers_and_each_player_goes_its_way():
    method = MME(weight=0.7, temperature=0.5, schedule="ramp")
    pair, plain = task("5")
    model, pair = prepare(method, plain, pair)
    assert isinstance(model.head, Cosine) and model.head.temperature == 0.5 and isinstance(plain.head, nn.Linear)
    batch = batch_of(method, pair)
    terms = method.terms(model, batch, P)
    source, target, granted = (model.features(x)[0] for x in (batch.source.x, batch.target, batch.granted.x))
    w = model.head.weight

    def logits(f: Tensor) -> Tensor:
        """Rows of length 1, prototypes of any (their code; the paper's section 3.2 writes W f / ‖f‖)."""
        products = [[(row @ c) / row.norm().clamp_min(1e-12) for c in w] for row in f]
        return torch.stack([torch.stack(row) for row in products]) / 0.5

    p = logits(target).softmax(-1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(terms["mme"], -0.7 * entropy)
    same(gradients(terms["mme"], model.head), gradients(entropy, model.head), -0.7)  # the head makes it large
    same(gradients(terms["mme"], model.backbone), gradients(entropy, model.backbone), 0.7 * losses.ramp(P))
    torch.testing.assert_close(terms["source"], F.cross_entropy(logits(source), batch.source.y))
    torch.testing.assert_close(terms["granted"], F.cross_entropy(logits(granted), batch.granted.y))


# All of them


@pytest.mark.parametrize("kind", [DANN, CDAN, BSP, MCD, MDD, ADDA, MME])
def test_rows_that_are_all_equal_give_finite_terms_and_gradients(kind):
    method = kind()
    model, _ = begun(method, "5" if kind is MME else "0")
    x, y = torch.zeros(6, 10), torch.zeros(6, dtype=torch.long)
    granted = Labelled(x, y) if kind is MME else None
    terms = method.terms(model, Batch(Labelled(x, y), x, granted), P)
    assert all(torch.isfinite(term) for term in terms.values())
    torch.stack([*terms.values()]).sum().backward()
    for parameter in (*model.parameters(), *method.parameters()):
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize(
    ("kind", "term"), [(DANN, "adversary"), (CDAN, "conditional_adversary"), (BSP, "bsp"), (MCD, "mcd"), (MDD, "mdd"),
                       (ADDA, "adversary"), (MME, "mme")],
)  # fmt: skip
def test_weight_scales_the_term(kind, term):
    values = []
    for weight in (1.0, 2.0):
        method = kind(weight=weight)
        model, batch = begun(method, "5" if kind is MME else "0")
        method.eval()
        model.head.eval()  # MDD's has dropout
        values.append(method.terms(model, batch, P)[term])
    torch.testing.assert_close(values[1], 2 * values[0])
    assert values[0] != 0
    with pytest.raises(UserError, match="weight must be at least 0"):
        kind(weight=-1.0)
