"""The method of a run, or the one that `auto` chooses by trials."""

import logging
from collections.abc import Generator
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from tl_runner.core import Method, Stream
from tl_runner.engine.preparation import check_task, prepare_training
from tl_runner.engine.pretrain import start_model, train_source_model
from tl_runner.engine.task import Task
from tl_runner.errors import DivergedError, UserError
from tl_runner.evaluation.scores import examine_split
from tl_runner.functional.divergence import separate_domains
from tl_runner.functional.label_free import agreement
from tl_runner.methods.auto import BASE, Auto
from tl_runner.models.batchnorm import by_domain_statistics, statistics
from tl_runner.storage.cache import keep_cached, load_cached
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.identity import identify
from tl_runner.storage.sections import AutoInfo
from tl_runner.training.loop import Cursor, Point, train

log = logging.getLogger(__name__)


def resolve_method(task: Task) -> Generator[Point, None, tuple[Method, AutoInfo | None]]:
    """The method to be trained, and what the record says of how `auto` chose it; yields the points of the trials."""
    method = task.parts.method
    if not isinstance(method, Auto):
        assert isinstance(method, Method)  # as `config.load_parts` has checked
        return method, None
    chosen, facts = yield from choose_method(method, Trials(method, task))
    return chosen, facts


def choose_method(method: Auto, trials: "Trials") -> Generator[Point, None, tuple[Method, AutoInfo]]:
    """What `auto` comes to: a fresh method, with what was tried and why it is that one."""
    if told := (yield from trials.alike()):
        return method.built(BASE), AutoInfo(BASE, told, trials.source_steps)
    alive, predicted, scores, tried = list(method.said), {}, {}, []
    for rung in range(method.rungs):
        steps = max(1, trials.steps // method.reduction ** (method.rungs - rung))
        for name in list(alive):
            found = yield from trials.trial(name, steps)
            if isinstance(found, Tensor):
                predicted[name] = found
            else:
                alive.remove(name)
                predicted.pop(name, None)  # of an earlier rung
                tried.append({"method": name, "steps": 0, "refused": found})
        if not alive:
            told = "; ".join(f"{each['method']}: {each['refused']}" for each in tried if "refused" in each)
            raise UserError(f"no candidate of method=auto completed its trial: {told}")
        scores = agreement(predicted)
        tried += [{"method": name, "steps": steps, "agreement": scores[name]} for name in alive]
        others = sorted((name for name in alive if name != BASE), key=lambda name: -scores[name])
        alive = [*([BASE] if BASE in alive else []), *others[: ceil(len(others) / method.reduction)]]
    best = max(alive, key=lambda name: scores[name])
    winner = BASE if BASE in alive and scores[best] <= scores[BASE] + method.margin else best
    why = (
        f"{winner} agrees with the mean of all {len(predicted)} candidates on {scores[winner]:.1%} of unlabelled target"
        f" rows, {BASE} {f'on {scores[BASE]:.1%}' if BASE in alive else 'did not complete its trial'}"
        if winner != BASE
        else f"no candidate agrees with the mean of all by {method.margin:.0%} more than {BASE} does"
    )
    log.info("auto: %s", why)
    fresh = method.built(winner)
    spent = sum(each["steps"] for each in tried) + (fresh.start not in ("source", "features")) * trials.source_steps
    return fresh, AutoInfo(winner, why, spent, tried)


@dataclass(frozen=True)
class Trials:
    """The trials of a run. Each is cached, so that an interrupted run resumes with the next one."""

    auto: Auto
    task: Task

    @property
    def steps(self) -> int:
        """Of the run's training, of which a trial has a part."""
        return self.task.parts.train.steps

    @property
    def source_steps(self) -> int:
        """What the source model cost, where it is not what the run itself starts from."""
        return self.task.parts.pretrain.steps

    def alike(self) -> Generator[Point, None, str]:
        """Why nothing need be adapted: the domains can't be told apart by features of the source model; else ""."""
        model, pair = deepcopy(self.task.model), self.task.pair
        yield from train_source_model(model, self.task)
        source, target = (examine_split(model, domain.val).features for domain in (pair.source, pair.target) if domain)
        apart = separate_domains(source, target)
        if apart is None or apart.a_distance.low > 0:
            return ""
        return (
            "the domains can't be told apart by the source model's features: proxy A-distance"
            f" {apart.a_distance.value:.2f} (0 to {apart.a_distance.high:.2f})"
        )

    def trial(self, name: str, steps: int) -> Generator[Point, None, Tensor | str]:
        """The candidate's probabilities on the target's validation split after so many steps; or why there are none."""
        file = self.task.cache / "trials" / f"{self._key(name, steps)}.safetensors"
        if kept := load_cached(file):
            return kept["predicted"]
        method, model, parts = self.auto.built(name), deepcopy(self.task.model), self.task.parts
        plan = replace(parts.train, steps=steps, evaluations=1, compile=False)  # which takes longer than a trial
        try:
            check_task(method, self.task.pair)
            resources, _ = yield from start_model(method, model, self.task)
            start, streams = statistics(model), frozenset[Stream]()
            method, model, pair = prepare_training(method, model, self.task.pair, plan, resources)
            optimizer, schedule, augment = parts.optimizer, parts.schedule, parts.augment
            for point in train(model, method, pair, plan, optimizer, schedule, augment, self.task.rng, Cursor()):
                streams = point.streams
                yield point._replace(phase=f"trying {name}")
        except (UserError, DivergedError) as error:
            return str(error)
        predicted = examine_split(by_domain_statistics(model, pair, streams, start).target, pair.target.val).predicted
        if not bool(torch.isfinite(predicted).all()):
            return "its predictions are not finite numbers"
        keep_cached(file, {"predicted": predicted})
        return predicted

    def _key(self, name: str, steps: int) -> str:
        """A hash of all that the trial depends on, as the identity of a run is one."""
        groups = ("dataset", "backbone", "pretrain", "optimizer", "schedule", "augment", "train", "seed", "granted")
        of_run = {group: self.task.config.get(group) for group in groups}
        of_run["dataset"] = drop_locations(of_run["dataset"])  # the fingerprint says what is in its files
        made = {"data": self.task.data.fingerprint, "machine": dict(self.task.machine)}
        known = {**of_run, **made, "method": self.auto.said[name], "steps": steps}
        return identify(known, Contents(self.task.cache.parent))
