"""What follows from a task: labels, heads, losses, predictions and scores, in one unit and in another."""

import pytest
import torch
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import nn

from tl_runner.core import Batch, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.domains import Labelled, has_label, kind_of_input
from tl_runner.engine.preparation import check_task
from tl_runner.errors import UserError
from tl_runner.functional import losses
from tl_runner.methods.mcc import MCC
from tl_runner.tasks import Classification, Regression

CPU = torch.device("cpu")


def drawn(scale: float = 1.0, offset: float = 0.0, unlabelled: int = 0) -> Drawn:
    """y = x₀ + 2x₁ in some unit; the target is moved, and some of its rows have no label."""

    def side(name: str, shift: float, without: int) -> Raw:
        x = torch.randn(100, 3, generator=torch.Generator().manual_seed(len(name))) + shift
        y = scale * (x[:, 0] + 2 * x[:, 1]).double() + offset
        y[:without] = float("nan")
        return Raw(name, x, y, (), quantity="price")

    return Drawn(side("source", 0.0, 0), side("target", 0.5, unlabelled), {}, fresh=True)


def test_labels_are_in_standard_units_of_the_sources_training_rows():
    made = drawn(scale=50, offset=1000)
    pair, answers, info = split_domains(made, 0, Budget.parse("0"), CPU)
    task = pair.task
    assert (
        isinstance(task, Regression) and task.quantity == "price" and pair.classes == () and info.task == "regression"
    )
    train = pair.labelled_source[1].train
    assert train.mean().item() == pytest.approx(0.0, abs=1e-6) and train.std(correction=0).item() == pytest.approx(1.0)
    unit, known = task.to_unit(train.double()), made.source.y
    assert (unit[:, None] - known).abs().min(1).values.max() < 1e-3  # each is a row's own, but for float32
    assert info.quantity and (info.quantity.mean, info.quantity.sd) == (task.mean, task.sd)
    assert answers.open().dtype == torch.float32


def test_another_unit_changes_nothing_that_is_learnt():
    """Labels in standard units, and so all of training, are the same for euros and cents; scores are in the unit."""
    pairs = [split_domains(drawn(scale, offset), 0, Budget.parse("0"), CPU)[0] for scale, offset in ((1, 0), (100, 7))]
    one, other = (pair.labelled_source[1].train for pair in pairs)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    outputs = torch.randn(60, 1)
    cents = pairs[1].task.score(pairs[1].task.predict(outputs), other)
    euros = pairs[0].task.score(pairs[0].task.predict(outputs), one)
    assert cents["rmse"] == pytest.approx(100 * euros["rmse"], rel=1e-4)
    assert cents["r2"] == pytest.approx(euros["r2"], rel=1e-4)


def test_scores_are_of_values_in_the_unit():
    task, y = Regression("price", 300.0, 40.0), torch.randn(50)
    predicted = task.predict(y[:, None] + 0.1)
    found = task.score(predicted, y)
    assert found["rmse"] == pytest.approx(4.0, rel=1e-4)
    assert found["r2"] == pytest.approx(r2_score(y, y + 0.1), rel=1e-4)
    constant = task.score_constant(y)
    assert constant["value"] == pytest.approx(300 + 40 * y.mean().item(), rel=1e-5) and constant["r2"] == 0.0
    expected = root_mean_squared_error(40 * y, (40 * y).mean().expand(50))
    assert constant["rmse"] == pytest.approx(expected, rel=1e-5)


def test_unlabelled_rows_are_known_by_nan_and_never_granted():
    pair, answers, info = split_domains(drawn(unlabelled=60), 1, Budget.parse("10"), CPU)
    assert info.labelled and sum(info.labelled) == 40 and pair.granted and pair.held_out
    assert len(pair.granted.y) == 8 and len(pair.held_out.y) == 2
    assert torch.isfinite(torch.cat([pair.granted.y, pair.held_out.y])).all()
    assert has_label(answers.open()).sum() == info.labelled[2]


def test_a_budget_counts_rows_where_there_are_no_classes():
    auto = Budget.parse("auto").settle(needed=True).suit("price")
    pair, _, info = split_domains(drawn(), 0, auto, CPU)
    assert info.granted == 50 and pair.granted and len(pair.granted.y) == 40
    with pytest.raises(UserError, match="granted=99 asks for 99 labels, but the train split of target has 60"):
        split_domains(drawn(), 0, Budget.parse("99"), CPU)


def test_a_quantity_that_does_not_vary_is_refused():
    with pytest.raises(UserError, match="price is 7 in every training row of source"):
        split_domains(drawn(scale=0.0, offset=7.0), 0, Budget.parse("0"), CPU)


def test_the_loss_is_that_of_the_labels_kind():
    outputs, w = torch.randn(6, 1, requires_grad=True), torch.arange(6.0) / 2.5
    y = torch.randn(6)
    head = nn.Identity()
    plain = losses.supervised(head, {"source": Labelled(y, y)}, [outputs])["source"]
    assert plain.item() == pytest.approx((outputs[:, 0] - y).square().mean().item())
    weighed = losses.supervised(head, {"source": Labelled(y, y, w)}, [outputs])["source"]
    assert weighed.item() == pytest.approx((w * (outputs[:, 0] - y).square()).mean().item())
    logits, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(losses.mean_loss(logits, classes), losses.row_losses(logits, classes).mean())


def test_a_model_has_a_head_for_its_task():
    net = nn.Sequential(nn.Linear(3, 4))
    model = Model(net, 4, Regression("price", 10.0, 2.0))
    assert model.head.out_features == 1 and model.classes == ()
    x = torch.randn(5, 3)
    terms = model.encode(Batch(source=Labelled(x, torch.zeros(5)))).supervise()
    assert terms["source"].item() == pytest.approx(model(x).square().mean().item())
    torch.testing.assert_close(model.task.predict(model(x)), model(x) * 2 + 10)
    assert Model(net, 4, ["a", "b"]).task == Classification(("a", "b"))


def test_a_method_of_classes_refuses_a_quantity_in_words():
    pair, _, _ = split_domains(drawn(), 0, Budget.parse("0"), CPU)
    with pytest.raises(UserError, match="MCC predicts classes, and 'price' is a quantity: use source_only"):
        check_task(MCC(), pair)


def test_token_ids_are_known_as_text():
    assert kind_of_input(torch.zeros(2, 7, dtype=torch.long)) == "text"
    assert kind_of_input(torch.zeros(2, 3, 8, 8)) == "images" and kind_of_input(torch.zeros(2, 5)) == "table"
