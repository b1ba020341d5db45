"""What training starts from: the source model that runs share.

A method with `start = "source"` begins where the backbone has been trained on the labelled source. That training
is a configuration node of its own (`pretrain`): whatever else a sweep varies, it is done once per source, backbone,
seed and machine, and kept under its hash in outputs/cache/source_models. One key of the node is no part of that hash:
`transfer`, which says what stages of the source model are copied.
"""

import json
import logging
from collections.abc import Generator
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tl_runner.core import Method, Model, Resources, SourceModel
from tl_runner.domains import Pair
from tl_runner.engine.assembly import Assembly
from tl_runner.engine.progress import restore_progress
from tl_runner.errors import UserError
from tl_runner.evaluation.scores import headline, predict
from tl_runner.methods.source_only import SourceOnly
from tl_runner.models.batchnorm import by_domain_statistics, pack_statistics
from tl_runner.models.tokens import list_ids
from tl_runner.option_names import is_ours
from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.cache import keep_cached, load_cached
from tl_runner.storage.checkpoint import Checkpoint
from tl_runner.storage.contents import Contents
from tl_runner.storage.identity import identify
from tl_runner.storage.lock import hold_lock
from tl_runner.storage.sections import SourceModelInfo
from tl_runner.training.loop import SOURCE_MODEL, Point, Train, train
from tl_runner.training.optimizers import adamw, cosine

log = logging.getLogger(__name__)


def start_model(
    method: Method, model: Model, assembled: Assembly
) -> Generator[Point, None, tuple[Resources, SourceModelInfo | None]]:
    """Bring the model to the method's start, in place; what `prepare` may use then, and what the record says."""
    tokens = list_ids(assembled.tokenizer) if assembled.tokenizer else None
    if method.start not in ("source", "features"):
        return Resources(assembled.rng, None, assembled.features, tokens), None
    source_model, facts = (yield from train_source_model(model, assembled)) or (None, None)
    return Resources(assembled.rng, source_model, assembled.features, tokens), facts


def identify_source(assembled: Assembly) -> dict[str, Any]:
    """All that tells the source model of this task from those of others, but how it is trained."""
    of_data = {name: getattr(assembled.data, name) for name in ("shape", "fingerprint", "domains", "rows")}
    of_source = {name: value.get("source") if isinstance(value, dict) else value for name, value in of_data.items()}
    parts = {name: assembled.config[name] for name in ("backbone", "augment")}
    if assembled.tokenizer:  # which may know words of the target's texts
        parts["tokenizer"] = blake2b(json.dumps(assembled.tokenizer.state()).encode(), digest_size=8).hexdigest()
    if assembled.data.sound:
        parts["sound"] = asdict(assembled.data.sound)
    return {**of_source, **parts, "machine": dict(assembled.machine)}


def list_copied_stages(model: Model, transfer: str) -> tuple[str, ...]:
    """The stages that are copied from the source model: all, none, upto:STAGE or from:STAGE, both with that stage.

    Yosinski et al., NeurIPS 2014. Raises `UserError` where there is no stage of that name.
    """
    kind, _, stage = transfer.partition(":")
    if not stage:
        return model.stages if kind == "all" else ()
    try:
        upto = model.upto(stage)
    except UserError as error:
        raise UserError(f"pretrain.transfer={transfer}: {error}") from error
    return upto if kind == "upto" else model.stages[len(upto) - 1 :]


def train_source_model(
    model: Model, assembled: Assembly
) -> Generator[Point, None, tuple[SourceModel | None, SourceModelInfo] | None]:
    """Train the model's backbone on the labelled source, in place, or take it from the cache where that was done.

    The head is trained along where the source has the target's classes; else the model keeps its fresh one. Stages that
    `pretrain.transfer` does not copy keep the values that they had, and with upto:STAGE the head does too. Yields the
    points of the training, and returns the source model (None where a part of it alone was copied) and what the record
    says of it; None where the task has no source domain, the plan no steps, or nothing is copied.
    """
    pair, plan = assembled.pair, assembled.parts.pretrain
    copied = list_copied_stages(model, plan.transfer)  # an unknown stage is refused before anything is trained
    if pair.source is None or not plan.steps or not copied:
        _warn_of_no_source_model(assembled)
        return None
    with_head = not plan.transfer.startswith("upto:")
    whole = with_head and copied == model.stages
    before = {} if whole else {name: value.clone() for name, value in model.state_dict().items()}
    source, labels = pair.labelled_source
    with assembled.rng.child("source head").as_default():
        learner = Model(model.backbone, model.width, source.task).to(labels.train.device)
    if pair.shared_labels:
        learner.head = model.head
    learner.pretrained, model.pretrained = model.pretrained, True
    facts = replace((yield from _train_learner(learner, assembled)), transfer=plan.transfer)
    if whole:
        return SourceModel(learner.head, source.classes), facts
    of_source = (*(f"backbone.{name}." for name in copied), *(["head."] if with_head else []))
    model.load_state_dict({n: value for n, value in before.items() if not n.startswith(of_source)}, strict=False)
    if not learner.pretrained:
        model.untrained = tuple(name for name in model.stages if name not in copied)
    return None, facts


def _warn_of_no_source_model(assembled: Assembly) -> None:
    """Warn where features are untrained for want of a source model, and where there is none to copy stages from."""
    backbone, transfer = assembled.config["backbone"], assembled.parts.pretrain.transfer
    if is_ours(backbone["_target_"]) and backbone.get("weights") is None:
        why = "pretrain.transfer=none copies nothing" if transfer == "none" else "there is no source model"
        log.warning("%s and the backbone has random weights: its features are untrained", why)
    if transfer not in ("all", "none"):
        log.warning("pretrain.transfer=%s has no effect: there is no source model to copy stages from", transfer)


def _train_learner(learner: Model, assembled: Assembly) -> Generator[Point, None, SourceModelInfo]:
    """Train the learner on the labelled source, in place, or load what an earlier run has kept of that.

    Of processes that want the same source model at the same time one trains it, and the others wait for it.
    """
    pair, parts = assembled.pair, assembled.parts
    plan, said = parts.pretrain, parts.settings
    source, labels = pair.labelled_source
    trained = {name: value for name, value in asdict(plan).items() if name != "transfer"}  # one serves all its values
    how = {"pretrain": trained, "seed": said.seed, "with_head": pair.shared_labels}
    drawn = {"balance": parts.train.balance, "domains": parts.train.domains}
    if drawn != {"balance": "none", "domains": "balanced"}:  # as source models were drawn before there was a choice
        how["drawn"] = drawn
    key = identify({**identify_source(assembled), **how}, Contents(assembled.cache.parent))
    weights = assembled.cache / "source_models" / f"{key}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(weights):
        if kept := _load_source_model(learner, weights):  # by an earlier run, or the process that was waited for
            return kept
        checkpoint = Checkpoint(weights.with_suffix(".pt"), said.checkpoint_every)
        method, source_task = SourceOnly(), Pair(source, pair.target)
        assembled.rng.child("pretrain").start_training()
        progress = restore_progress(checkpoint.load(), learner, method, {})
        settings = Train(
            steps=plan.steps,
            batch=plan.batch,
            evaluations=1,
            precision=plan.precision,
            balance=parts.train.balance,
            domains=parts.train.domains,
        )
        optimizer = partial(adamw, lr=plan.lr, weight_decay=plan.weight_decay, lr_backbone=plan.lr_backbone)
        for point in train(
            learner,
            method,
            source_task,
            settings,
            optimizer,
            cosine,
            parts.augment,
            assembled.rng,
            cursor := progress.cursor,
        ):
            with checkpoint.around(lambda: progress.state(learner, method, {})):
                yield point._replace(seconds=progress.elapsed, phase=SOURCE_MODEL)
        learner.load_state_dict(pack_statistics(by_domain_statistics(learner, source_task, {"source"}, {})))
        source_val = headline(predict(learner, source.val), labels.val, source.task)
        facts = SourceModelInfo(key, plan.steps, cursor.rows, round(progress.elapsed, 3), source_val)
        if keep_cached(weights, learner.state_dict()):
            write_atomically(weights.with_suffix(".json"), json.dumps(asdict(facts), indent=2).encode())
        checkpoint.remove()
    return facts


def _load_source_model(learner: Model, weights: Path) -> SourceModelInfo | None:
    """The facts of the kept source model, once its weights are in the learner; None where there is none to use."""
    facts = weights.with_suffix(".json")  # written last: without it the weights are not believed
    if not facts.is_file() or (kept := load_cached(weights)) is None:
        return None
    try:
        known = replace(SourceModelInfo(**json.loads(facts.read_text())), shared=True)
        learner.load_state_dict(kept)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        log.warning("the source model in %s can't be used, training it again: %s", weights, error)
        return None
    return known
