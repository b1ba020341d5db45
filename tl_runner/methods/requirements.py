"""What a method may need of the model that it is given, and is refused without, in words."""

from copy import deepcopy

from torch import nn

from tl_runner.core import Model
from tl_runner.errors import Refused
from tl_runner.models.learning_rates import new_stages


def source_model(model: Model) -> None:
    """Raises `Refused` where there is no source model, whose head the method goes on with."""
    if not model.taught:
        raise Refused(
            "this method keeps the source model's head, and there is no source model here: it needs a dataset"
            " with a source, and pretrain=default"
        )


def source_head(model: Model) -> nn.Module:
    """A copy of the source model's head, for the source's classes; raises `Refused` where there is no source model."""
    source_model(model)
    return deepcopy(model.taught[0])


def trained_features(model: Model) -> None:
    """Raises `Refused` where the last stage is new and has learnt nothing yet: its features say nothing."""
    if new_stages(model) and not model.taught:
        raise Refused(
            "this method compares features before anything is trained, and those of a new bottleneck are random without"
            " a source model: use pretrain=default or backbone.bottleneck=null"
        )


def trainable_backbone(model: Model) -> None:
    """Raises `Refused` where the backbone has no parameters, which are all that the method moves."""
    if next(model.backbone.parameters(), None) is None:
        raise Refused(
            "this method trains the backbone, and this backbone has no parameters: use backbone=linear or mlp"
        )
