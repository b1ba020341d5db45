"""What training starts from: whether the method suits the task, and the source model that runs share.

A method with `start = "source"` begins where the backbone has been trained on the labelled source. That training
is a configuration node of its own (`pretrain`): whatever else a sweep varies, it is done once per source, backbone,
seed and machine, and kept under its hash in outputs/cache/source_models.
"""

import json
import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from tl_runner.atomic import write
from tl_runner.chance import chance_of, derive
from tl_runner.core import Method, Model
from tl_runner.domains import Pair
from tl_runner.errors import Refused, within
from tl_runner.evaluate import accuracy, predict
from tl_runner.identity import identify
from tl_runner.methods.source_only import SourceOnly
from tl_runner.optimizers import adamw, cosine
from tl_runner.store import RunRecord
from tl_runner.train import Augment, Point, Train, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrain:
    """How the source model is trained: AdamW along half a cosine, the last checkpoint; `steps=0` trains none."""

    steps: int = 300
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        within(0, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        within(2, batch=self.batch)


def admit(method: Method, pair: Pair) -> None:
    """Refuse, in words, a method that can't serve this task."""
    name = type(method).__name__
    if pair.source is None and "source" in method.needs:
        raise Refused(
            f"this task has no source domain, its source is in the backbone's weights; {name} learns from source"
            " rows. Use method=finetune, l2sp, feature_extract or target_only, or name a dataset.source"
        )
    if pair.source is not None and not pair.shared_labels and not method.across_labels:
        raise Refused(
            f"the source has the classes {', '.join(pair.source.classes)}, the target {', '.join(pair.classes)}:"
            f" {name} needs the same on both sides. Use method=finetune, l2sp, feature_extract or target_only"
        )


def source_names(record: RunRecord) -> dict[str, Any]:
    """All that tells the source model of this run from those of others, but how it is trained."""
    of_data = {name: record.data[name] for name in ("shape", "fingerprint", "domains", "rows")}
    of_source = {name: value.get("source") if isinstance(value, dict) else value for name, value in of_data.items()}
    machine = [record.where["versions"]["torch"], record.where["device"], record.where["threads"]]
    parts = {name: record.config[name] for name in ("backbone", "augment")}
    return {**of_source, **parts, "machine": machine}


def source_model(
    model: Model, pair: Pair, plan: Pretrain, augment: Augment, seed: int, names: Mapping[str, Any], folder: Path
) -> Generator[Point, None, dict[str, Any] | None]:
    """Train the model's backbone on the labelled source, in place, or take it from `folder` where that was done.

    The head is trained along where the source has the target's classes; else the model keeps its fresh one. `names`
    are `source_names`. Yields the points of the training, and returns what the record says of it; None where the task
    has no source domain or the plan no steps.
    """
    if pair.source is None or not plan.steps:
        backbone = names["backbone"]
        if backbone["_target_"].startswith("tl_runner.") and backbone.get("weights") is None:
            log.warning("nothing is transferred: there is no source model, and the backbone has random weights")
        return None
    source, labels = pair.labelled_source
    with chance_of(seed, "source head"):
        learner = Model(model.backbone, model.width, source.classes).to(labels.train.device)
    if pair.shared_labels:
        learner.head = model.head
    key = identify({**names, "pretrain": asdict(plan), "seed": seed, "with_head": pair.shared_labels})
    weights, facts = folder / f"{key}.safetensors", folder / f"{key}.json"
    if kept := _kept(learner, weights, facts):
        return {**kept, "shared": True}
    torch.manual_seed(derive(seed, "pretrain"))  # for what training itself draws
    started, point = time.monotonic(), None
    settings = Train(steps=plan.steps, batch=plan.batch, evaluations=1, precision=plan.precision)
    optimizer = partial(adamw, lr=plan.lr, weight_decay=plan.weight_decay)
    for point in train(learner, SourceOnly(), Pair(source, pair.target), settings, optimizer, cosine, augment, seed):
        yield point._replace(seconds=time.monotonic() - started, phase="source model")
    source_val = accuracy(predict(learner, source.val), labels.val)
    told = {"id": key, "steps": plan.steps, "rows": point.rows if point else 0, "source_val": source_val}
    told["seconds"] = round(time.monotonic() - started, 3)
    _keep(learner, weights, facts, told)
    return {**told, "shared": False}


def _kept(learner: Model, weights: Path, facts: Path) -> dict[str, Any] | None:
    """The facts of the kept source model, once its weights are in the learner; None where there is none to use."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not facts.is_file():  # written last: without it the weights are not believed
        return None
    try:
        told = json.loads(facts.read_text())
        learner.load_state_dict(load_file(weights))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        log.warning("the source model in %s can't be used and is trained again: %s", weights, error)
        return None
    return told


def _keep(learner: Model, weights: Path, facts: Path, told: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    weights.parent.mkdir(parents=True, exist_ok=True)
    write(weights, save({name: tensor.contiguous() for name, tensor in learner.state_dict().items()}))
    write(facts, json.dumps(told, indent=2).encode())
