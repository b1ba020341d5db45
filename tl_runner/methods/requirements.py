"""Checks that a method makes of its model in `prepare`; each raises a `UserError` that says what is missing."""

from copy import deepcopy

from torch import nn

from tl_runner.core import Model, Resources, SourceModel
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.models.learning_rates import new_stages


def source_model(resources: Resources) -> SourceModel:
    """The source model, whose head the method uses; raises `UserError` where there is none, or a part of it alone."""
    if resources.source_model is None:
        raise UserError(
            "this method keeps the source model's head, and there is no source model here: it needs a dataset"
            " with a source, and pretrain=default with pretrain.transfer=all"
        )
    return resources.source_model


def source_head(resources: Resources) -> nn.Module:
    """A copy of the source model's head, for the source's classes; raises `UserError` without a source model."""
    return deepcopy(source_model(resources).head)


def trained_features(model: Model, resources: Resources) -> None:
    """Raises `UserError` where the last stage is new and has learnt nothing yet: its features say nothing."""
    if new_stages(model) and resources.source_model is None:
        raise UserError(
            "this method compares features before anything is trained, and those of a new bottleneck are random without"
            " a source model: use pretrain=default with pretrain.transfer=all, or backbone.bottleneck=null"
        )


def predicting_start(model: Model, pair: Pair, resources: Resources, trains_head_first: bool) -> None:
    """Raises `UserError` where the model that fine-tuning starts from says nothing, by its head or its backbone."""
    why, remedy = "", "use a dataset with a source, and pretrain=default with pretrain.transfer=all"
    if trains_head_first and (model.untrained or not model.pretrained):
        why = "and this backbone has stages with random weights"
        remedy += ", or name backbone.weights"
    elif not trains_head_first and (resources.source_model is None or not pair.shared_labels):
        why = "whose head is new here"
        remedy = f"set method.lp_ft=true, which trains the head first; for the source's head, {remedy} and its classes"
    if why:
        raise UserError(f"method.wise interpolates from the model that fine-tuning starts from, {why}: {remedy}")


def trainable_backbone(model: Model) -> None:
    """Raises `UserError` where the backbone has no parameters, which are all that the method moves."""
    if next(model.backbone.parameters(), None) is None:
        raise UserError(
            "this method trains the backbone, and this backbone has no parameters: use backbone=linear or mlp, for"
            " texts embedding_gru"
        )
