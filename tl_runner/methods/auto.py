"""Which method, found by the run itself and without target labels: see `tl_runner.engine.auto_trials`."""

from collections.abc import Mapping, Sequence, Set
from math import ceil
from typing import Any

from tl_runner import config
from tl_runner.core import Method, SourceLabels, Start, Stream
from tl_runner.errors import UserError, check_range
from tl_runner.tasks import TaskName

BASE = "source_only"  # no adaptation, which every other has to beat
ENSEMBLE = "ensemble"  # one model that is taught the mean prediction of several candidates


class Auto:
    """Trials of the candidates on the same data; then one model is taught what the better half of them say.

    The score of a candidate is the share of unlabelled target rows on which it says what the mean prediction of all
    says (EnsV; Hu et al., NeurIPS 2024). `source_only` is always tried. It is what the run comes to where its features
    can't tell the domains apart, and unless the highest score is above its own by `margin` standard errors. Else the
    mean prediction of the better half is distilled, or with `ensemble=False` the best candidate is trained once more.

    The last trials have all steps of a run. With more than one of `rungs` those before have 1/`reduction` of the steps
    of the next, to which 1/`reduction` of the candidates go on, `source_only` always among them.
    """

    needs: Set[Stream] = frozenset({"source", "target"})
    start: Start = "backbone"
    tasks: Set[TaskName] = frozenset({"classification"})
    source_labels: SourceLabels = "throughout"  # the method that takes its place says it for itself

    def __init__(
        self,
        candidates: Sequence[Any] = ("jmmd", "lmmd", "cdan", "bnm", "deepjdot", "fixmatch"),
        ensemble: bool = True,
        margin: float = 2.0,
        rungs: int = 1,
        reduction: int = 2,
    ):
        check_range(0, margin=margin)
        check_range(1, 6, rungs=rungs)
        check_range(2, reduction=reduction)
        names = [_name(each) for each in candidates]
        if len({*names}) < len(names) or not {*names} - {BASE}:
            raise UserError(f"candidates must be different methods, source_only aside one or more; got {[*candidates]}")
        self.said = {BASE: BASE, **dict(zip(names, candidates, strict=True))}
        self.ensemble, self.margin, self.rungs, self.reduction = ensemble, margin, rungs, reduction
        for name in self.said:
            self.build(name)

    def build(self, name: str) -> Method:
        """A fresh candidate."""
        found: Method = config.build_named("method", self.said[name], f"method.candidates: {name}")
        if isinstance(found, Auto):
            raise UserError("method.candidates: auto can't be a candidate of its own")
        if "granted" in found.needs:
            raise UserError(
                f"method.candidates: {name} learns from granted target labels, which can judge it too: compare such"
                " methods on some of those that are held out, as hydra/sweeper=tl_optuna does"
            )
        return found

    def list_rungs(self, steps: int) -> list[int]:
        """The steps of the trials, rung by rung, where a run has so many."""
        return [max(1, steps // self.reduction**later) for later in reversed(range(self.rungs))]

    def keep_better(self, ranked: Sequence[str]) -> list[str]:
        """Of names in the order of their scores those that go on to the next rung."""
        others = [name for name in ranked if name != BASE]
        return [*([BASE] if BASE in ranked else []), *others[: ceil(len(others) / self.reduction)]]


def _name(said: Any) -> str:
    """A name as tables have it: mmd, or mmd(weight=0.5)."""
    if not isinstance(said, Mapping) or not said:
        return str(said)
    name, options = next(iter(said.items()))
    if "_target_" in said:
        name, options = said["_target_"], {key: value for key, value in said.items() if key != "_target_"}
    listed = ", ".join(f"{key}={value}" for key, value in options.items()) if isinstance(options, Mapping) else ""
    return f"{name}({listed})" if listed else str(name)
