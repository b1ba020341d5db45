"""The state of a run's training: with the weights, all that an interrupted run needs to resume."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tl_runner import rng
from tl_runner.core import INTERNAL
from tl_runner.evaluation.class_shares import TrackedShares
from tl_runner.models.batchnorm import DomainModels, pack_statistics
from tl_runner.training.checkpoint_selection import Evidence
from tl_runner.training.loop import Cursor

LooseTensors = list[tuple[Tensor, int]]  # alone or in a list, each with how often it was written to

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """The cursor of the training, what was seen at each evaluation, and the checkpoint chosen so far."""

    cursor: Cursor = field(default_factory=Cursor)
    history: list[Evidence] = field(default_factory=list)
    predictions: dict[int, Tensor] = field(default_factory=dict)  # on the target's test split, by step
    chosen: int = 0  # the step of the chosen checkpoint
    weights: dict[str, Tensor] = field(default_factory=dict)  # of it, on the CPU
    shares: dict[str, Tensor] = field(default_factory=dict)  # what it estimated them to be, and the bias that follows
    seconds: float = 0.0  # that earlier processes trained
    started: float = field(default_factory=time.monotonic)
    loose: dict[str, LooseTensors] = field(default_factory=dict)  # of the method, as it was prepared
    told: set[str] = field(default_factory=set)  # attributes of the method of which the run has warned

    @property
    def elapsed(self) -> float:
        """Seconds of training, those of earlier processes among them."""
        return self.seconds + time.monotonic() - self.started

    @property
    def evidence(self) -> Evidence:
        """What is known, without target labels, of the chosen checkpoint."""
        return next(seen for seen in self.history if seen.step == self.chosen)

    def consider(
        self,
        evidence: Evidence,
        predicted: Tensor,
        rule: Callable[[Sequence[Evidence]], int],
        sides: DomainModels,
        shares: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take in an evaluation; keep the weights of both sides if the rule now prefers this checkpoint."""
        self.history.append(evidence)
        self.predictions[evidence.step] = predicted
        if rule(self.history) == len(self.history) - 1:
            self.chosen = evidence.step
            self.shares = dict(shares or {})
            self.weights = {name: w.detach().to("cpu", copy=True) for name, w in pack_statistics(sides).items()}

    def state(
        self,
        model: nn.Module,
        method: nn.Module,
        made: Mapping[str, Any],
        engine: str | None = None,
        shares: TrackedShares | None = None,
    ) -> dict[str, Any]:
        """All of it with the model's and the method's parameters and the generators, in plain types and tensors.

        `made` says by what it is made: code, machine and data. `engine`: see `Environment`.
        """
        self._warn_of_loose_tensors(method)
        return {
            "cursor": self.cursor.state(),
            "history": [evidence._asdict() for evidence in self.history],
            "predictions": self.predictions,
            "chosen": self.chosen,
            "weights": self.weights,
            "shares": self.shares,
            "seconds": self.elapsed,
            "model": model.state_dict(),
            "method": method.state_dict(),
            "attributes": _attributes(method),
            "class_shares": shares.state() if shares else None,
            "chance": rng.get_state(),
            "made": dict(made),
            "engine": engine,
        }

    def _warn_of_loose_tensors(self, method: nn.Module) -> None:
        """Warn, once each, of tensors that training changes and that no checkpoint holds, as they are no buffers."""
        for name, tensors in _loose_tensors(method).items():
            before = self.loose.get(name, [])
            same = [now[0] is then[0] and now[1] == then[1] for now, then in zip(tensors, before, strict=False)]
            if name not in self.told and not (all(same) and len(tensors) == len(before)):
                self.told.add(name)
                log.warning(
                    "%s.%s is a tensor that training changes, and no checkpoint holds it: an interrupted run would"
                    " resume without it. Register it in __init__: self.register_buffer(%r, …)",
                    type(method).__name__, name, name,
                )  # fmt: skip


def _loose_tensors(method: nn.Module) -> dict[str, LooseTensors]:
    """The tensors that a method keeps as plain attributes, by attribute."""
    found: dict[str, LooseTensors] = {}
    for name, value in vars(method).items():
        held = value if isinstance(value, list | tuple) else [value]
        if name not in INTERNAL and (tensors := [each for each in held if isinstance(each, Tensor)]):
            found[name] = [(tensor, tensor._version) for tensor in tensors]
    return found


def _attributes(method: nn.Module) -> dict[str, Any]:
    """What a method keeps as plain values: a counter, a schedule's state. Tensors are to be buffers."""
    return {name: value for name, value in vars(method).items() if name not in INTERNAL and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return type(value) in (bool, int, float, str, type(None))


def restore_progress(
    state: Mapping[str, Any] | None,
    model: nn.Module,
    method: nn.Module,
    made: Mapping[str, Any],
    shares: TrackedShares | None = None,
) -> Progress:
    """The progress that a kept state tells, its parameters and generators set; a new one where there is none to use.

    A run is made by one version of the code, on one kind of machine, on the same data: a state of others is left.
    """
    loose = _loose_tensors(method)
    if state is None:
        return Progress(loose=loose)
    if changed := [name for name, value in made.items() if state["made"].get(name) != value]:
        log.warning("%s changed since the run was interrupted: starting over", ", ".join(changed))
        return Progress(loose=loose)
    model.load_state_dict(state["model"])
    method.load_state_dict(state["method"])
    for name, value in state["attributes"].items():
        setattr(method, name, value)
    if shares:
        shares.restore(state["class_shares"])
    rng.restore_state(state["chance"])
    history = [Evidence(**values) for values in state["history"]]
    kept = {name: state[name] for name in ("predictions", "chosen", "weights", "shares", "seconds")}
    log.info("resuming after step %d", state["cursor"]["step"])
    return Progress(Cursor(**state["cursor"]), history, **kept, loose=loose)
