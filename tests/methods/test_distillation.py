"""Distillation: its loss by hand, and that a student learns what it is taught and not what the source says."""

import pytest
import torch
from torch import nn

from tl_runner.core import Batch, Model
from tl_runner.domains import Labelled
from tl_runner.errors import UserError
from tl_runner.methods.distillation import Distillation


def test_the_loss_is_the_cross_entropy_with_what_the_drawn_rows_are_taught():
    torch.manual_seed(0)
    model = Model(nn.Sequential(nn.Flatten()), 3, ("a", "b"))
    teacher = torch.rand(10, 2).softmax(-1)
    rows = torch.tensor([7, 2, 2])
    source = Labelled(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    batch = Batch(source, torch.randn(3, 3), rows={"target": rows})
    terms = Distillation(teacher, weight=2.0).terms(model, batch, 0.5)
    q = model(batch.target).softmax(-1).detach()
    by_hand = -sum(float(teacher[row, c] * q[i, c].log()) for i, row in enumerate([7, 2, 2]) for c in range(2)) / 3
    assert terms["taught"].item() == pytest.approx(2 * by_hand, rel=1e-5)
    assert terms["source"].item() == pytest.approx(nn.functional.cross_entropy(model(source.x), source.y).item())


def test_its_gradient_is_the_mean_difference_of_what_it_says_and_what_it_is_taught():
    torch.manual_seed(0)
    model, teacher = Model(nn.Sequential(nn.Flatten()), 3, ("a", "b")), torch.rand(6, 2).softmax(-1)
    batch = Batch(
        Labelled(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])), torch.randn(6, 3), rows={"target": torch.arange(6)}
    )
    Distillation(teacher, weight=3.0).terms(model, batch, 0.0)["taught"].backward()
    q = model(batch.target).softmax(-1)
    assert isinstance(model.head, nn.Linear) and model.head.bias.grad is not None
    assert torch.allclose(model.head.bias.grad, 3 * (q - teacher).mean(0), atol=1e-6)


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="weight"):
        Distillation(torch.ones(2, 2) / 2, weight=-1.0)
