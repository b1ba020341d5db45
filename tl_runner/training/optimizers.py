"""Optimisers `name(groups, **options)` and schedules `name(progress, **options) -> factor` of the learning rate."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from tl_runner.core import Group
from tl_runner.errors import UserError, check_range
from tl_runner.models.learning_rates import LrBackbone, lr_factor
from tl_runner.training.plain_optimizers import PlainAdamW, PlainOptimizer, PlainSGD


def sgd(
    groups: Sequence[Group],
    lr: float = 0.01,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 5e-4,
    lr_backbone: LrBackbone = "auto",
) -> Optimizer | PlainOptimizer:
    """Stochastic gradient descent with (Nesterov's) momentum."""
    check_range(0, lr=lr, weight_decay=weight_decay)
    check_range(0, 1, momentum=momentum)
    listed, nesterov = _list_groups(groups, lr, weight_decay, lr_backbone), nesterov and momentum > 0
    if _are_on_cpu(listed):
        return PlainSGD(listed, momentum, nesterov)
    return SGD(listed, lr=lr, momentum=momentum, nesterov=nesterov)


def adamw(
    groups: Sequence[Group],
    lr: float = 3e-3,
    beta1: float = 0.5,
    beta2: float = 0.999,
    weight_decay: float = 0.01,
    lr_backbone: LrBackbone = "auto",
) -> Optimizer | PlainOptimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    check_range(0, lr=lr, weight_decay=weight_decay)
    check_range(0, 0.999999, beta1=beta1, beta2=beta2)
    listed = _list_groups(groups, lr, weight_decay, lr_backbone)
    return PlainAdamW(listed, (beta1, beta2)) if _are_on_cpu(listed) else AdamW(listed, lr=lr, betas=(beta1, beta2))


def _are_on_cpu(groups: Sequence[Mapping[str, Any]]) -> bool:
    return all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])


def _list_groups(
    groups: Sequence[Group], lr: float, weight_decay: float, lr_backbone: LrBackbone
) -> list[dict[str, Any]]:
    check_range(0, lr_backbone=1.0 if lr_backbone == "auto" else lr_backbone)
    listed: list[tuple[list[nn.Parameter], Group]] = [(list(group.parameters), group) for group in groups]
    if not any(parameters for parameters, _ in listed):
        raise UserError(
            "there are no parameters to train: a backbone without any (identity) serves methods that train a head, and"
            " in a method of your own no phase may have empty groups, such as an iterator that another phase has used"
        )
    return [
        {"params": parameters, "lr": lr * lr_factor(group, lr_backbone), "weight_decay": weight_decay * group.decay}
        for parameters, group in listed
        if parameters
    ]


def cosine(progress: float, warmup: float = 0.0, final: float = 0.0) -> float:
    """Half a cosine from 1 to `final`, after a linear warm-up over that share of training."""
    check_range(0, 1, warmup=warmup, final=final)
    rest = max(0.0, progress - warmup) / max(1.0 - warmup, 1e-12)
    return _warm(progress, warmup) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * rest)))


def inverse_decay(progress: float, warmup: float = 0.0, alpha: float = 10.0, power: float = 0.75) -> float:
    """(1 + alpha·p)^−power, the schedule of Ganin et al. 2016, times a linear warm-up."""
    check_range(0, 1, warmup=warmup)
    check_range(0, alpha=alpha, power=power)
    return _warm(progress, warmup) * (1 + alpha * progress) ** -power


def warmup(progress: float, warmup: float = 0.1, final: float = 0.0) -> float:
    """A straight line from 0 to 1 over the share `warmup` of training, and one to `final` over the rest.

    As BERT is fine-tuned: Devlin et al., NAACL 2019.
    """
    check_range(0, 1, warmup=warmup, final=final)
    rest = max(0.0, progress - warmup) / max(1.0 - warmup, 1e-12)
    return _warm(progress, warmup) * (1 + (final - 1) * rest)


def constant(progress: float, warmup: float = 0.0) -> float:
    """1, after a linear warm-up."""
    check_range(0, 1, warmup=warmup)
    return _warm(progress, warmup)


def _warm(progress: float, warmup: float) -> float:
    return min(1.0, progress / warmup) if warmup > 0 else 1.0
