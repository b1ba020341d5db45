"""The optimisers that run on a CPU are those of PyTorch, to the last bit."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from tl_runner.core import Group
from tl_runner.training.optimizers import adamw, sgd
from tl_runner.training.plain_optimizers import PlainOptimizer

Make = Callable[[list[Group]], PlainOptimizer]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))


def groups_of(net: nn.Module) -> list[Group]:
    body, head = [*net.parameters()][:4], [*net.parameters()][4:]
    return [Group(body, lr=0.3), Group(head, lr=1.0, decay=False)]


def descend(net: nn.Module, optimizer: object, steps: range) -> None:
    """Some steps on noise, at a rate that changes; the last layer has no gradient in some of them."""
    for step in steps:
        x = torch.randn(16, 7, generator=torch.Generator().manual_seed(step))
        loss: Tensor = net(x).square().mean() if step % 3 else net[0](x).square().mean()  # pyright: ignore
        for group in optimizer.param_groups:  # pyright: ignore
            group["lr"] *= 0.97
        optimizer.zero_grad()  # pyright: ignore
        loss.backward()
        optimizer.step()  # pyright: ignore


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_pytorchs_to_the_last_bit(momentum, nesterov, decay):
    ours, theirs = network(), network()
    listed = [
        {"params": g.parameters, "lr": 0.1 * (g.lr or 1), "weight_decay": decay * g.decay} for g in groups_of(theirs)
    ]
    plain = sgd(groups_of(ours), lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    assert isinstance(plain, PlainOptimizer)
    descend(ours, plain, range(12))
    descend(theirs, SGD(listed, lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0), range(12))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.9, 0.99), (0.0, 0.9)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_pytorchs_to_the_last_bit(betas, decay):
    ours, theirs = network(), network()
    listed = [
        {"params": g.parameters, "lr": 0.01 * (g.lr or 1), "weight_decay": decay * g.decay} for g in groups_of(theirs)
    ]
    plain = adamw(groups_of(ours), lr=0.01, beta1=betas[0], beta2=betas[1], weight_decay=decay)
    assert isinstance(plain, PlainOptimizer)
    descend(ours, plain, range(12))
    descend(theirs, AdamW(listed, lr=0.01, betas=betas), range(12))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("make", [sgd, adamw])
def test_a_kept_state_goes_on_as_if_nothing_had_been(make: Make, tmp_path):
    whole, cut = network(), network()
    descend(whole, first := make(groups_of(whole)), range(12))
    descend(cut, half := make(groups_of(cut)), range(5))
    torch.save({"optimizer": half.state_dict(), "model": cut.state_dict()}, tmp_path / "state.pt")
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    again = deepcopy(cut)
    again.load_state_dict(kept["model"])
    second = make(groups_of(again))
    for group, before in zip(second.param_groups, half.param_groups, strict=True):
        group["lr"] = before["lr"]
    second.load_state_dict(kept["optimizer"])
    descend(again, second, range(5, 12))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert first.state_dict()["state"].keys() == second.state_dict()["state"].keys()
