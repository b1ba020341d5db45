"""What training starts from: whether the method suits the task, and the source model that runs share.

A method with `start = "source"` begins where the backbone has been trained on the labelled source. That training
is a configuration node of its own (`pretrain`): whatever else a sweep varies, it is done once per source, backbone,
seed and machine, and kept under its hash in outputs/cache/source_models.
"""

import json
import logging
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tl_runner import config
from tl_runner.core import Method, Model, Resources, SourceModel
from tl_runner.domains import Pair
from tl_runner.engine.device import apply_kernels
from tl_runner.engine.progress import restore_progress
from tl_runner.engine.task import Task
from tl_runner.errors import Refused, within
from tl_runner.evaluation.scores import accuracy, predict
from tl_runner.methods.auto import Auto
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.batchnorm import by_domain_statistics, pack_statistics
from tl_runner.models.heads import blueprint
from tl_runner.models.learning_rates import LrBackbone, by_rate, factor, new_stages, old_parameters, served
from tl_runner.option_names import is_ours
from tl_runner.rng import chance_of, derive, seed_generators
from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.cache import keep_cached, load_cached
from tl_runner.storage.checkpoint import Checkpoint
from tl_runner.storage.contents import Contents
from tl_runner.storage.identity import identify
from tl_runner.storage.lock import hold_lock
from tl_runner.training.loop import Point, Train, train
from tl_runner.training.optimizers import adamw, cosine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrain:
    """How the source model is trained: AdamW along half a cosine, the last checkpoint; `steps=0` trains none.

    `lr_backbone` is what `optimizer.lr_backbone` is to a method: a factor of `lr` for the backbone.
    """

    steps: int = 300
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"
    lr_backbone: LrBackbone = "auto"

    def __post_init__(self) -> None:
        within(0, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        within(2, batch=self.batch)
        within(0, lr_backbone=1.0 if self.lr_backbone == "auto" else self.lr_backbone)


def check_task(method: Method | Auto, pair: Pair) -> None:
    """Refuse, in words, a method that can't serve this task."""
    name = type(method).__name__
    if pair.source is None and "source" in method.needs:
        raise Refused(
            f"this task has no source domain, its source is in the backbone's weights; {name} learns from source"
            " rows. Use method=finetune, l2sp, feature_extract or target_only, or name a dataset.source"
        )
    if pair.source is not None and not pair.shared_labels and method.source_labels != "unused":
        raise Refused(
            f"the source has the classes {', '.join(pair.source.classes)}, the target {', '.join(pair.classes)}:"
            f" {name} needs the same on both sides. Parameter and feature transfer and meta-learning do not (finetune,"
            " l2sp, feature_extract, target_only, …); where a dataset has it, dataset.labels=shared keeps the rows of"
            " shared classes"
        )


def start_model(method: Method, model: Model, task: Task) -> Generator[Point, None, tuple[Resources, dict[str, Any]]]:
    """Bring the model to the method's start, in place; what `prepare` may use then, and what the record says."""
    if method.start not in ("source", "features"):
        return Resources(task.seed, None, task.features), {}
    source_model, facts = (yield from train_source_model(model, task)) or (None, None)
    return Resources(task.seed, source_model, task.features), {"source_model": facts}


def prepare_training(
    method: Method, model: Model, pair: Pair, plan: Train, resources: Resources
) -> tuple[Method, Model, Pair]:
    """What the method makes of the network and the pair before its first step; chance is as training begins with it."""
    device = model.device
    if method.start == "features" and new_stages(model):
        raise Refused(config.NARROWED)
    with chance_of(resources.seed, "prepare"):
        model, pair = method.prepare(model, pair, resources)
    warn_of_missing_floor(method, pair)
    seed_generators(resources.seed)
    return method.to(device), apply_kernels(model.to(device), plan), pair


def describe_training(method: Method, model: Model, optimizer: Callable[..., Any]) -> dict[str, Any]:
    """What the record says of the network that is trained, and at which rates."""
    return {
        "input": str(model.backbone[0]),
        "model": blueprint(model),
        "lr_backbone": list_backbone_rates(method, model, optimizer),
    }


def list_backbone_rates(method: Method, model: Model, optimizer: Callable[..., Any]) -> dict[str, list[float]]:
    """The factors of the learning rate at which the backbone learns, by phase, for the record.

    Warns where a number was set that no phase uses.
    """
    of_model, said = {*old_parameters(model)}, getattr(optimizer, "keywords", {}).get("lr_backbone", "auto")
    found: dict[str, list[float]] = {}
    used = False
    for phase in method.phases(model):
        groups = served(optimizer, by_rate(phase.groups, model, phase.pretrained))
        inside = [group for group in groups if not of_model.isdisjoint(group.parameters)]
        found[phase.name] = sorted({round(factor(group, said), 6) for group in inside})
        used = used or any(group.of_backbone for group in groups)
    if said != "auto" and not used:
        log.warning(
            "optimizer.lr_backbone=%s has no effect: this method does not train the backbone, or has its own rate",
            said,
        )
    return found


def warn_of_missing_floor(method: Method, pair: Pair) -> None:
    """Warn where source rows are weighed, and accuracy on the source is no floor because of that."""
    if pair.weights is None or pair.granted is not None or method.source_labels != "kept":
        return
    name = type(method).__name__
    if pair.val_weights is None:
        log.warning(
            "%s weighs the source's training rows and not its validation rows, so accuracy on these is not a valid"
            " floor for selecting a checkpoint: pair.weighted(weights, val) takes their weights too", name,
        )  # fmt: skip
    elif not pair.val_weights.any():
        log.warning(
            "%s: all source validation rows have weight 0, so there is no floor for selecting a checkpoint", name
        )


def identify_source(task: Task) -> dict[str, Any]:
    """All that tells the source model of this task from those of others, but how it is trained."""
    of_data = {name: task.data[name] for name in ("shape", "fingerprint", "domains", "rows")}
    of_source = {name: value.get("source") if isinstance(value, dict) else value for name, value in of_data.items()}
    parts = {name: task.config[name] for name in ("backbone", "augment")}
    return {**of_source, **parts, "machine": dict(task.machine)}


def train_source_model(model: Model, task: Task) -> Generator[Point, None, tuple[SourceModel, dict[str, Any]] | None]:
    """Train the model's backbone on the labelled source, in place, or take it from the cache where that was done.

    Of processes that want the same source model at the same time one trains it, and the others wait for it.

    The head is trained along where the source has the target's classes; else the model keeps its fresh one. Yields the
    points of the training, and returns the source model and what the record says of it; None where the task has no
    source domain or the plan no steps.
    """
    pair, parts = task.pair, task.parts
    plan, said = parts.pretrain, parts.settings
    if pair.source is None or not plan.steps:
        backbone = task.config["backbone"]
        if is_ours(backbone["_target_"]) and backbone.get("weights") is None:
            log.warning("there is no source model and the backbone has random weights: its features are untrained")
        return None
    source, labels = pair.labelled_source
    with chance_of(said.seed, "source head"):
        learner = Model(model.backbone, model.width, source.classes).to(labels.train.device)
    if pair.shared_labels:
        learner.head = model.head
    learner.pretrained, model.pretrained = model.pretrained, True
    how = {"pretrain": asdict(plan), "seed": said.seed, "with_head": pair.shared_labels}
    key = identify({**identify_source(task), **how}, Contents(task.cache.parent))
    weights = task.cache / "source_models" / f"{key}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(weights):
        if kept := _kept(learner, weights):  # by an earlier run, or the process that was waited for
            return SourceModel(learner.head, source.classes), {**kept, "shared": True}
        checkpoint = Checkpoint(weights.with_suffix(".pt"), said.checkpoint_every)
        method, source_task = SourceOnly(), Pair(source, pair.target)
        seed_generators(derive(said.seed, "pretrain"))
        progress = restore_progress(checkpoint.load(), learner, method, {})
        settings = Train(steps=plan.steps, batch=plan.batch, evaluations=1, precision=plan.precision)
        optimizer = partial(adamw, lr=plan.lr, weight_decay=plan.weight_decay, lr_backbone=plan.lr_backbone)
        for point in train(
            learner,
            method,
            source_task,
            settings,
            optimizer,
            cosine,
            parts.augment,
            said.seed,
            cursor := progress.cursor,
        ):
            with checkpoint.around(lambda: progress.state(learner, method, {})):
                yield point._replace(seconds=progress.elapsed, phase="source model")
        learner.load_state_dict(pack_statistics(by_domain_statistics(learner, source_task, {"source"}, {})))
        source_val = accuracy(predict(learner, source.val), labels.val)
        told = {"id": key, "steps": plan.steps, "rows": cursor.rows, "source_val": source_val}
        told["seconds"] = round(progress.elapsed, 3)
        if keep_cached(weights, learner.state_dict()):
            write_atomically(weights.with_suffix(".json"), json.dumps(told, indent=2).encode())
        checkpoint.remove()
    return SourceModel(learner.head, source.classes), {**told, "shared": False}


def _kept(learner: Model, weights: Path) -> dict[str, Any] | None:
    """The facts of the kept source model, once its weights are in the learner; None where there is none to use."""
    facts = weights.with_suffix(".json")  # written last: without it the weights are not believed
    if not facts.is_file() or (kept := load_cached(weights)) is None:
        return None
    try:
        told = json.loads(facts.read_text())
        learner.load_state_dict(kept)
    except (OSError, ValueError, RuntimeError) as error:
        log.warning("the source model in %s can't be used, training it again: %s", weights, error)
        return None
    return told
