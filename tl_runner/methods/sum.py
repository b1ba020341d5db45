"""The sum of several methods that add terms to a loss."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tl_runner import config
from tl_runner.core import Batch, Group, Method, Model, Phase, Resources, SourceLabels, Terms
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.models.learning_rates import with_rates

log = logging.getLogger(__name__)


class Sum(Method):
    """Σ over the parts' terms, those of equal name counted once, on features that are computed once per batch.

    A part is a method's name, with other options as {name: {key: value}}, or a node with a `_target_`. Each is prepared
    on what the one before left. Parts are refused that are no plain sums: without a phase or with several, with frozen
    stages or streams of their own, of another start, or which train the model at other rates.
    """

    def __init__(self, parts: Sequence[Any] = ("mcc", "bsp", "dann")):
        super().__init__()
        built: list[Method] = [config.build_named("method", part, f"method.parts[{i}]") for i, part in enumerate(parts)]
        kinds = [type(part).__name__ for part in built]
        if len(built) < 2 or len({*kinds}) < len(kinds):
            raise UserError(f"parts must be two different methods or more, as in method.parts=[mcc,bsp], got {kinds}")
        if alone := [type(part).__name__ for part in built if part.start in ("features", "scratch")]:
            raise UserError(
                f"method.parts: {alone[0]} can't be part of a sum: it computes features once, or starts from scratch"
            )
        self.parts = nn.ModuleList(built)
        self.needs = frozenset().union(*(part.needs for part in built))
        self.tasks = frozenset.intersection(*(frozenset(part.tasks) for part in built))
        self.start = "source" if any(part.start == "source" for part in built) else "backbone"
        self.uncounted: list[str] = []  # terms that another part had brought, as the log says

    @property
    def source_labels(self) -> SourceLabels:
        found = {part.source_labels for part in self.each()}
        return "throughout" if "throughout" in found else "start" if "start" in found else "unused"

    def each(self) -> Sequence[Method]:
        return [part for part in self.parts if isinstance(part, Method)]

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        for part in self.each():
            before = pair.weights
            model, pair = part.prepare(model, pair, resources)
            if before is not None and pair.weights is not before:
                raise UserError("method.parts: two of them weigh the source's rows")
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        own = {*model.parameters()}
        rates: dict[nn.Parameter, tuple[float | None, bool, bool]] = {}
        trained: list[tuple[str, set[nn.Parameter]]] = []
        refreshed: list[Callable[[Model, Pair], None]] = []
        for part in self.each():
            name, phases = type(part).__name__, part.phases(model)
            if len(phases) != 1 or phases[0].frozen or phases[0].streams or phases[0].episodes:
                raise UserError(f"method.parts: {name} is not a sum of terms: it has its own training procedure")
            mine: set[nn.Parameter] = set()
            refreshed += [phases[0].refresh] if phases[0].refresh else []
            for group in with_rates(phases[0].groups, model):
                for parameter in group.parameters:
                    rate = group.lr, group.of_backbone
                    *other, decay = rates.get(parameter, (*rate, group.decay))
                    if rate != (*other,):
                        raise UserError(
                            f"method.parts: {name} trains the backbone at another rate than {trained[0][0]}; 1 as its"
                            " own factor (lr_decay) is optimizer.lr_backbone, the rate of the others"
                        )
                    rates[parameter] = *rate, decay and group.decay
                    mine.add(parameter)
            trained.append((name, mine & own))
            if trained[0][1] != mine & own:
                raise UserError(f"method.parts: {name} does not train the same parts of the model as {trained[0][0]}")
        groups = [
            Group([parameter for parameter in rates if rates[parameter] == kind], lr, decay, of_backbone)
            for kind in dict.fromkeys(rates.values())
            for lr, of_backbone, decay in [kind]
        ]

        def refresh(model: Model, pair: Pair) -> None:
            for of_part in refreshed:
                of_part(model, pair)

        return [Phase("train", 1.0, groups, refresh=refresh)]

    def settle(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for part in self.each():
            weights = part.settle(weights)
        return weights

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        model = OncePerInput(model)
        terms, metrics, names = dict[str, Tensor](), dict[str, Tensor](), {*batch.labelled}
        for part in self.each():
            found = part.terms(model, batch.only({*part.needs, "granted"}), progress)
            for name in found.keys() & terms.keys() - names - {*self.uncounted}:
                kind = type(part).__name__
                log.warning("method=sum: the term %r of %s is another part's too, and counts once", name, kind)
                self.uncounted.append(name)
            terms = {**found, **terms}
            metrics |= found.metrics if isinstance(found, Terms) else {}
        return Terms(terms, metrics)


class OncePerInput(Model):
    """A view of a model that computes the maps of each tensor of inputs once, however many parts ask for them.

    It shares all modules and parameters with the model. A tensor is known by its identity, not by its values, so a view
    must not outlive the step for which it was made: nothing in it notices that the parameters have moved.
    """

    def __init__(self, model: Model):
        nn.Module.__init__(self)
        self.__dict__.update(model.__dict__)
        self._known: dict[Tensor, dict[str, Tensor]] = {}

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return self.maps(*xs)[self.stages[-1]]

    def maps(self, *xs: Tensor, at: Sequence[str] = ()) -> dict[str, tuple[Tensor, ...]]:
        for name in at:
            self.upto(name)
        if unknown := tuple(x for x in xs if x not in self._known):
            found = super().maps(*unknown, at=self.stages)
            self._known |= {x: {name: of[i] for name, of in found.items()} for i, x in enumerate(unknown)}
        wanted = [name for name in self.stages if name in at or name == self.stages[-1]]
        return {name: tuple(self._known[x][name] for x in xs) for name in wanted}
