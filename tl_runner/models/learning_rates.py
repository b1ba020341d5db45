"""At which learning rate each parameter learns: new ones at the optimiser's, the backbone's at a factor of it.

The factor is `optimizer.lr_backbone`. `auto` is a tenth where the backbone's parameters were trained before, by weights
or on the source, and 1 where they are random, as in stages that `pretrain.transfer` leaves out. It is the same key for
all methods. A group with an `lr` of its own is not multiplied with it, unless it asks for it by `of_backbone`.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import groupby
from typing import Any, Literal

from torch import nn

from tl_runner.core import Group, Model
from tl_runner.models.backbones import Bottleneck

LrBackbone = float | Literal["auto"]
PRETRAINED = 0.1  # the field's factor for parameters that need little change


def new_stages(model: Model) -> tuple[str, ...]:
    """The stages of the backbone that no pre-trained network has, a bottleneck: they train along with the head."""
    return tuple(name for name, stage in model.backbone.named_children() if isinstance(stage, Bottleneck))


def new_parameters(model: Model) -> list[nn.Parameter]:
    """The parameters of `new_stages`."""
    return [parameter for name in new_stages(model) for parameter in model.backbone.get_submodule(name).parameters()]


def old_parameters(model: Model) -> list[nn.Parameter]:
    """The backbone's parameters but those of `new_stages`."""
    new = {*new_parameters(model)}
    return [parameter for parameter in model.backbone.parameters() if parameter not in new]


def with_rates(groups: Iterable[Group], model: Model, pretrained: bool = False) -> list[Group]:
    """The groups with a number for each `lr`, their parameters listed, in the same order.

    A group without an `lr` is split into what belongs to the model's backbone and what does not, or is new in it.
    """
    of_model, untrained = {*old_parameters(model)}, () if pretrained else model.untrained
    pretrained = pretrained or model.pretrained
    found: list[Group] = []
    for group in groups:
        if group.lr is not None:
            found.append(group._replace(parameters=[*group.parameters], pretrained=pretrained))
            continue
        for inside, parameters in groupby(group.parameters, of_model.__contains__):
            found.append(Group([*parameters], 1.0, group.decay, inside, pretrained))
    if not untrained:
        return found
    stages = [stage for name, stage in model.backbone.named_children() if name in untrained]
    random = {parameter for stage in stages for parameter in stage.parameters()}
    return [part for group in found for part in _split_pretrained(group, random)]


def _split_pretrained(group: Group, random: Set[nn.Parameter]) -> Iterator[Group]:
    """The group in parts, in the same order: these random parameters of it were not trained before."""
    for inside, parameters in groupby(group.parameters, random.__contains__):
        yield group._replace(parameters=[*parameters], pretrained=group.pretrained and not inside)


def lr_factor(group: Group, lr_backbone: LrBackbone = "auto") -> float:
    """The factor of the optimiser's rate at which a group learns."""
    lr = 1.0 if group.lr is None else group.lr
    if not group.of_backbone:
        return lr
    if lr_backbone == "auto":
        return lr * (PRETRAINED if group.pretrained else 1.0)
    return lr * lr_backbone


def resolve_backbone_rates(optimizer: Callable[..., Any], groups: Iterable[Group]) -> list[Group]:
    """The groups for this optimiser: where it takes no `lr_backbone`, each `lr` is the factor that `auto` gives."""
    if "lr_backbone" in inspect.signature(optimizer).parameters:
        return [*groups]
    return [group._replace(lr=lr_factor(group), of_backbone=False) for group in groups]
