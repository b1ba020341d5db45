"""The method of a run, or the one that `auto` comes to by trials."""

import logging
from collections.abc import Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil, isnan, nan
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tl_runner.core import Method, Stream
from tl_runner.domains import Pair
from tl_runner.engine.assembly import Assembly
from tl_runner.engine.preparation import check_task, prepare_training
from tl_runner.engine.pretrain import start_model
from tl_runner.errors import DivergedError, UserError
from tl_runner.evaluation.scores import examine_source, examine_split, predict
from tl_runner.functional.divergence import Estimate, separate_domains
from tl_runner.functional.estimated_accuracy import estimate_accuracy, fit_temperature
from tl_runner.functional.label_free import agreement, compare_agreement
from tl_runner.methods.auto import BASE, ENSEMBLE, Auto
from tl_runner.methods.distillation import Distillation
from tl_runner.models.batchnorm import DomainModels, by_domain_statistics, statistics
from tl_runner.models.heads import gives_probabilities
from tl_runner.storage.cache import keep_cached, load_cached
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import drop_locations
from tl_runner.storage.identity import identify
from tl_runner.storage.sections import AutoInfo
from tl_runner.training.averaging import settle_weights
from tl_runner.training.loop import Cursor, Point, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """What a trained candidate says of unlabelled target rows: probabilities on the train (n, C) and val split (m, C).

    `separation` is the A-distance of the domains in its features, `estimated` its accuracy as it is estimated without
    target labels; None where they can't be had.
    """

    train: Tensor
    val: Tensor
    separation: Estimate | None = None
    estimated: float | None = None

    @property
    def rows(self) -> Tensor:
        """All of these rows, (n + m, C)."""
        return torch.cat([self.train, self.val])

    @property
    def alike(self) -> str:
        """In words, that its features do not tell the domains apart; "" where they do."""
        if self.separation is None or self.separation.low > 0:
            return ""
        value, high = self.separation.value, self.separation.high
        return f"its features can't tell the domains apart: proxy A-distance {value:.2f} (0 to {high:.2f})"

    def pack(self) -> dict[str, Tensor]:
        """As tensors, for the cache."""
        numbers = [*(self.separation or (nan,) * 3), nan if self.estimated is None else self.estimated]
        return {"train": self.train, "val": self.val, "numbers": torch.tensor(numbers, dtype=torch.double)}

    @classmethod
    def unpack(cls, kept: Mapping[str, Tensor]) -> "Trial":
        *separation, estimated = kept["numbers"].tolist()
        apart = None if isnan(separation[0]) else Estimate(*separation)
        return cls(kept["train"], kept["val"], apart, None if isnan(estimated) else estimated)


def resolve_method(assembled: Assembly) -> Generator[Point, None, tuple[Method, AutoInfo | None]]:
    """The method to be trained, and what the record says of how `auto` came to it; yields the points of the trials."""
    method = assembled.parts.method
    if not isinstance(method, Auto):
        assert isinstance(method, Method)  # as `config.load_parts` has checked
        return method, None
    chosen, facts = yield from choose_method(method, Trials(method, assembled))
    return chosen, facts


def choose_method(auto: Auto, trials: "Trials") -> Generator[Point, None, tuple[Method, AutoInfo]]:
    """What `auto` comes to: a fresh method, with what was tried and why it is that one."""
    found: dict[str, Trial] = {}
    tried: list[dict[str, Any]] = []
    ranked = [*auto.said]
    for rung, steps in enumerate(auto.list_rungs(trials.steps)):
        made = auto.keep_better(ranked) if rung else ranked
        for name in made:
            trial = yield from trials.run(name, steps)
            if isinstance(trial, str):
                found.pop(name, None)  # of an earlier rung
                tried.append({"method": name, "steps": 0, "refused": trial})
                continue
            found[name] = trial
            if name == BASE and trial.alike:
                tried.append({"method": name, "steps": steps})
                return trials.conclude(auto.build(BASE), BASE, trial.alike, tried)
        if not found:
            told = "; ".join(f"{each['method']}: {each['refused']}" for each in tried if "refused" in each)
            raise UserError(f"no candidate of method=auto completed its trial: {told}")
        scores = agreement({name: trial.rows for name, trial in found.items()})
        ended = [name for name in made if name in found]
        tried += [{"method": name, "steps": steps, **judge_trial(found[name], scores[name])} for name in ended]
        ranked = sorted(ended, key=lambda name: -scores[name])
    return trials.conclude(*decide(auto, found, ranked), tried)


def judge_trial(trial: Trial, agreed: float) -> dict[str, float]:
    """For the record: its agreement with all, and its estimated accuracy, which is at most that."""
    estimated = {} if trial.estimated is None else {"estimated": min(agreed, trial.estimated)}
    return {"agreement": agreed, **estimated}


def decide(auto: Auto, found: Mapping[str, Trial], ranked: Sequence[str]) -> tuple[Method, str, str]:
    """The method to be trained, its name, and why; `ranked` are the candidates of the last rung, the best first."""
    rows = {name: trial.rows for name, trial in found.items()}
    scores, best = agreement(rows), ranked[0]
    rival = next((name for name in ranked if name != BASE), BASE)
    if BASE in found:
        gain, error = compare_agreement(rows, best, BASE)
        if gain <= auto.margin * error:
            why = f"the best candidate does not agree with the mean of all on clearly more rows than {BASE}"
            shown = ", ".join(f"{name} on {scores[name]:.1%}" for name in ranked if name in (BASE, rival))
            return auto.build(BASE), BASE, f"{why}: {shown}"
    of_base = f"on {scores[BASE]:.1%}" if BASE in found else "did not complete its trial"
    why = f"{best} agrees with the mean of all {len(found)} candidates on {scores[best]:.1%} of unlabelled target rows"
    why += f", {BASE} {of_base}"
    members = ranked[: ceil(len(ranked) / 2)]
    if not auto.ensemble or len(members) < 2:
        return auto.build(best), best, why
    taught = torch.stack([found[name].train for name in members]).mean(0)
    return Distillation(taught), ENSEMBLE, f"one model learns the mean prediction of {', '.join(members)}; {why}"


@dataclass(frozen=True)
class Trials:
    """The trials of a run. Each is cached, so that an interrupted run resumes with the next one."""

    auto: Auto
    assembled: Assembly

    @property
    def steps(self) -> int:
        """Of the run's training, of which a trial has all or a part."""
        return self.assembled.parts.train.steps

    def conclude(self, method: Method, name: str, why: str, tried: list[dict[str, Any]]) -> tuple[Method, AutoInfo]:
        """The method, and what the record says of it: of its steps those that the run itself does not take."""
        log.info("auto: %s: %s", name, why)
        of_source_model = ("source", "features")
        starts = {self.auto.build(each["method"]).start for each in tried}
        spent = sum(each["steps"] for each in tried)
        if starts.intersection(of_source_model) and method.start not in of_source_model:
            spent += self.assembled.parts.pretrain.steps
        return method, AutoInfo(name, why, spent, tried)

    def run(self, name: str, steps: int) -> Generator[Point, None, Trial | str]:
        """The candidate after so many steps; or why there is none."""
        file = self.assembled.cache / "trials" / f"{self._key(name, steps)}.safetensors"
        if kept := load_cached(file):
            return Trial.unpack(kept)
        method, model, parts = self.auto.build(name), deepcopy(self.assembled.model), self.assembled.parts
        plan = replace(parts.train, steps=steps, evaluations=1, compile=False)  # once for each candidate
        try:
            check_task(method, self.assembled.pair)
            resources, _ = yield from start_model(method, model, self.assembled)
            start, streams = statistics(model), frozenset[Stream]()
            method, model, pair = prepare_training(method, model, self.assembled.pair, plan, resources)
            optimizer, schedule, augment = parts.optimizer, parts.schedule, parts.augment
            cursor = Cursor()
            for point in train(model, method, pair, plan, optimizer, schedule, augment, self.assembled.rng, cursor):
                streams = point.streams
                yield point._replace(phase=f"trying {name}")
        except (UserError, DivergedError) as error:
            return str(error)
        examined = settle_weights(model, method, cursor.average)
        trial = examine_trial(by_domain_statistics(examined, pair, streams, start, own=examined is model), pair)
        if not bool(torch.isfinite(trial.rows).all()):
            return "its predictions are not finite numbers"
        keep_cached(file, trial.pack())
        return trial

    def _key(self, name: str, steps: int) -> str:
        """A hash of all that the trial depends on, as the identity of a run is one."""
        groups = ("dataset", "backbone", "pretrain", "optimizer", "schedule", "augment", "train", "seed", "granted")
        of_run = {group: self.assembled.config.get(group) for group in groups}
        of_run["dataset"] = drop_locations(of_run["dataset"])  # the fingerprint says what is in its files
        made = {"data": self.assembled.data.fingerprint, "machine": dict(self.assembled.machine)}
        known = {**of_run, **made, "method": self.auto.said[name], "steps": steps}
        return identify(known, Contents(self.assembled.cache.parent))


def examine_trial(sides: DomainModels, pair: Pair) -> Trial:
    """What is to be known of a candidate that has been trained."""
    val = examine_split(sides.target, pair.target.val)
    train = predict(sides.target, pair.target.train)
    if pair.source is None:
        return Trial(train, val.predicted)
    source = examine_source(sides, pair.source, "val")
    apart, estimated = separate_domains(source.features, val.features), None
    if pair.shared_labels and gives_probabilities(sides.source.head):
        labels = pair.labelled_source[1].val.cpu()
        temperature = fit_temperature(source.predicted, labels)
        estimated = median(estimate_accuracy(val.predicted, source.predicted, labels, temperature).values())
    return Trial(train, val.predicted, apart and apart.a_distance, estimated)
