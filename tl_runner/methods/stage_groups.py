"""The parameters that fine-tuning trains, in groups by stage: new ones at the full rate, the backbone's at its own."""

from collections.abc import Sequence

from tl_runner.core import Group, Model
from tl_runner.models.learning_rates import new_parameters, new_stages
from tl_runner.models.lora import list_adapters


def list_trained_stages(model: Model) -> tuple[str, ...]:
    """The stages of the backbone that have parameters and are not new, first to last."""
    stages = [name for name, stage in model.backbone.named_children() if any(True for _ in stage.parameters())]
    return tuple(name for name in stages if name not in new_stages(model))


def list_adapted_stages(model: Model) -> tuple[str, ...]:
    """The stages of the backbone that have adapters, first to last."""
    return tuple(name for name, stage in model.backbone.named_children() if list_adapters(stage))


def group_new_parameters(model: Model, decay: bool = True) -> list[Group]:
    """What learns at the full rate: the head, and the new stages of the backbone."""
    parts = [*model.head.parameters()], new_parameters(model)
    return [Group(parameters, decay=decay) for parameters in parts if parameters]


def group_stages(model: Model, frozen: Sequence[str] = (), decay: bool = True, lr_decay: float = 1.0) -> list[Group]:
    """What is new at the full rate; of the backbone what is not frozen at the backbone's, each stage in a group.

    Its last stage is at that rate, and each stage before it at `lr_decay` times the next one's.
    """
    stages = list_trained_stages(model)
    body = [
        Group(model.backbone.get_submodule(name).parameters(), lr_decay**above, decay, of_backbone=True)
        for name, above in zip(stages, reversed(range(len(stages))), strict=True)
        if name not in frozen
    ]
    return [*group_new_parameters(model, decay), *body]


def group_adapters(model: Model, frozen: Sequence[str] = (), lr_decay: float = 1.0) -> list[Group]:
    """What is new, and the adapters of the stages that are not frozen, at the full rate: adapters are new, too.

    Those of a stage are at `lr_decay` times the rate of the next one's.
    """
    stages = list_adapted_stages(model)
    body = [
        Group(list_adapters(model.backbone.get_submodule(name)), lr_decay**above)
        for name, above in zip(stages, reversed(range(len(stages))), strict=True)
        if name not in frozen
    ]
    return [*group_new_parameters(model), *body]
