"""Which method, chosen by the run itself and without target labels: see `tl_runner.engine.auto_trials`."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from tl_runner import config
from tl_runner.core import Method, SourceLabels, Start, Stream
from tl_runner.errors import UserError, check_range

BASE = "source_only"  # no adaptation, which every other has to beat


class Auto:
    """Short trials of the candidates on the same data; the one that agrees best with all is trained in full.

    The score of a candidate is the share of unlabelled target rows on which it says what the mean prediction of all
    says (EnsV; Hu et al., NeurIPS 2024). `rungs` times the worse of them are dropped, 1/`reduction` kept, and the
    steps grow by `reduction`, to 1/`reduction` of a run's in the last trials. `source_only` is always tried, never
    dropped, and chosen unless another scores more than `margin` above it, or where the domains can't be told apart.
    """

    needs: Set[Stream] = frozenset({"source", "target"})
    start: Start = "backbone"
    source_labels: SourceLabels = "throughout"  # the method that takes its place says it for itself

    def __init__(
        self,
        candidates: Sequence[Any] = ("mmd", "coral", "dann", "cdan", "mcc", "bnm", "density_ratio"),
        margin: float = 0.02,
        rungs: int = 2,
        reduction: int = 2,
    ):
        check_range(0, 1, margin=margin)
        check_range(1, 6, rungs=rungs)
        check_range(2, reduction=reduction)
        names = [_name(each) for each in candidates]
        if len({*names}) < len(names) or not {*names} - {BASE}:
            raise UserError(f"candidates must be different methods, source_only aside one or more; got {[*candidates]}")
        self.said = {BASE: BASE, **dict(zip(names, candidates, strict=True))}
        self.margin, self.rungs, self.reduction = margin, rungs, reduction
        for name in self.said:
            self.built(name)

    def built(self, name: str) -> Method:
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


def _name(said: Any) -> str:
    """A name as tables have it: mmd, or mmd(weight=0.5)."""
    if not isinstance(said, Mapping) or not said:
        return str(said)
    name, options = next(iter(said.items()))
    if "_target_" in said:
        name, options = said["_target_"], {key: value for key, value in said.items() if key != "_target_"}
    listed = ", ".join(f"{key}={value}" for key, value in options.items()) if isinstance(options, Mapping) else ""
    return f"{name}({listed})" if listed else str(name)
