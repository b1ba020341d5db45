"""Between the task and the first step: whether the method suits it, what the method prepares, what the record says."""

import logging
from collections.abc import Callable
from typing import Any

from tl_runner import config
from tl_runner.config import MethodPart
from tl_runner.core import Method, Model, Resources
from tl_runner.domains import Pair
from tl_runner.engine.device import apply_kernels
from tl_runner.errors import UserError
from tl_runner.models.heads import blueprint
from tl_runner.models.learning_rates import lr_factor, new_stages, old_parameters, resolve_backbone_rates, with_rates
from tl_runner.tasks import Classification
from tl_runner.training.loop import Train

log = logging.getLogger(__name__)

OTHERS = (
    "use source_only, target_only, finetune, feature_extract, mmd, coral, dann, dare_gram, tradaboost, a method that"
    " weighs source rows, or one that aligns features in closed form (docs/methods.md lists all; a method of your own"
    " says in `tasks` what it predicts)"
)


def check_task(method: Method | MethodPart, pair: Pair) -> None:
    """Refuse, in words, a method that can't serve this task."""
    name = type(method).__name__
    if pair.task.name not in method.tasks:
        of_classes = f"{name} predicts classes, and {getattr(pair.task, 'quantity', None)!r} is a quantity: {OTHERS}"
        of_quantities = f"{name} predicts a quantity, and this dataset has classes: any other method serves"
        raise UserError(of_quantities if isinstance(pair.task, Classification) else of_classes)
    if pair.source is None and "source" in method.needs:
        raise UserError(
            f"this task has no source domain, its source is in the backbone's weights; {name} learns from source"
            " rows. Use method=finetune, l2sp, feature_extract or target_only, or name a dataset.source"
        )
    if pair.source is not None and not pair.shared_labels and method.source_labels != "unused":
        raise UserError(
            f"the source has the classes {', '.join(pair.source.classes)}, the target {', '.join(pair.classes)}:"
            f" {name} needs the same on both sides. Parameter and feature transfer and meta-learning do not (finetune,"
            " l2sp, feature_extract, target_only, …); where a dataset has it, dataset.labels=shared keeps the rows of"
            " shared classes"
        )


def prepare_training(
    method: Method, model: Model, pair: Pair, plan: Train, resources: Resources
) -> tuple[Method, Model, Pair]:
    """What the method makes of the network and the pair before its first step; chance is as training begins with it."""
    device = model.device
    if method.start == "features" and new_stages(model):
        raise UserError(config.BOTTLENECK_MESSAGE)
    with resources.rng.child("prepare").as_default():
        model, pair = method.prepare(model, pair, resources)
    warn_of_missing_floor(method, pair)
    warn_of_idle_options(method, model, plan)
    resources.rng.start_training()
    return method.to(device), apply_kernels(model.to(device), plan), pair


def describe_training(method: Method, model: Model, optimizer: Callable[..., Any]) -> dict[str, Any]:
    """What the record says of the network that is trained, and at which rates."""
    return {
        "start": method.start,
        "input": str(model.backbone[0]),
        "model": blueprint(model),
        "lr_backbone": list_backbone_rates(method, model, optimizer),
        "trainable": count_trained(method, model),
    }


def count_trained(method: Method, model: Model) -> int:
    """How many parameters some phase of the method trains."""
    trained = {parameter for phase in method.phases(model) for group in phase.groups for parameter in group.parameters}
    return sum(parameter.numel() for parameter in trained)


def list_backbone_rates(method: Method, model: Model, optimizer: Callable[..., Any]) -> dict[str, list[float]]:
    """The factors of the learning rate at which the backbone learns, by phase, for the record.

    Warns where a number was set that no phase uses.
    """
    of_model, said = {*old_parameters(model)}, getattr(optimizer, "keywords", {}).get("lr_backbone", "auto")
    found: dict[str, list[float]] = {}
    used = False
    for phase in method.phases(model):
        groups = resolve_backbone_rates(optimizer, with_rates(phase.groups, model, phase.pretrained))
        inside = [group for group in groups if not of_model.isdisjoint(group.parameters)]
        found[phase.name] = sorted({round(lr_factor(group, said), 6) for group in inside})
        used = used or any(group.of_backbone for group in groups)
    if said != "auto" and not used:
        log.warning(
            "optimizer.lr_backbone=%s has no effect: this method does not train the backbone, or has its own rate",
            said,
        )
    return found


def warn_of_idle_options(method: Method, model: Model, plan: Train) -> None:
    """Warn of what `train` says of steps, and of the rows that they draw, where the method takes none."""
    if method.phases(model):
        return
    name = type(method).__name__
    if plan.average != "none":
        log.warning(
            "train.average=%s has no effect: %s fits what it needs at once and takes no steps to average over",
            plan.average, name,
        )  # fmt: skip
    said = [f"train.balance={plan.balance}"] * (plan.balance != "none")
    said += [f"train.domains={plan.domains}"] * (plan.domains != "balanced")
    if said:
        log.warning("%s: no effect, since %s fits what it needs at once and draws no batches", " ".join(said), name)


def warn_of_missing_floor(method: Method, pair: Pair) -> None:
    """Warn where source rows are weighed, and accuracy on the source is no floor because of that."""
    if pair.weights is None or pair.granted is not None or method.source_labels != "throughout":
        return
    name = type(method).__name__
    if pair.val_weights is None:
        log.warning(
            "%s weighs the source's training rows and not its validation rows, so accuracy on these is no floor for"
            " select=source_val or objective=floor: pair.weighted(weights, val) takes their weights too", name,
        )  # fmt: skip
    elif not pair.val_weights.any():
        log.warning(
            "%s: all source validation rows have weight 0, so there is no floor for select=source_val or"
            " objective=floor",
            name,
        )
