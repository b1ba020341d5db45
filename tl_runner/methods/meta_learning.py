"""Meta-learning: small tasks of source classes first, then the granted target rows (MAML, ANIL, Reptile).

A step's tasks are drawn anew: each is `ways` classes of the source (or as many as it has). They are distinguished by a
head for tasks, whose initial weights are learnt along with the backbone's, over the share `meta` of the steps. The rest
is fine-tuning: CE(x_g) of the backbone and the model's own head, which is fresh. The inner descent has rate `lr_inner`;
the outer one is the run's optimiser. BatchNorm normalises each set of rows by its own statistics while training.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tl_runner.core import Batch, Episodes, Group, Method, Model, Phase, Resources, SourceLabels, Terms
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods import requirements
from tl_runner.methods.stage_groups import group_stages

Weights = Mapping[str, Tensor]


class MetaLearning(Method, ABC):
    """Tasks of source classes, then CE(granted); a subclass says what a task's loss is."""

    needs = frozenset({"source", "granted"})

    def __init__(self, episodes: Episodes, steps: int, lr_inner: float, meta: float):
        super().__init__()
        check_range(1, tasks=episodes.tasks, shots=episodes.shots, steps=steps)
        check_range(2, ways=episodes.ways)
        check_range(0, lr_inner=lr_inner)
        check_range(0.01, 0.99, meta=meta)
        self.episodes, self.steps, self.lr_inner, self.meta = episodes, steps, lr_inner, meta

    @property
    def source_labels(self) -> SourceLabels:
        return "unused"  # tasks of source classes have a head of their own, and end before the fine-tuning

    @abstractmethod
    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Terms:
        """The scalar `tasks` to descend on, of the rows (ways, shots + queries, …) of each task; see `classes_of`."""

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        _, labels = pair.labelled_source
        if (rows := self.episodes.shots + self.episodes.queries) > len(labels.train):
            raise UserError(f"a task takes {rows:,} rows of each class, and the source has {len(labels.train):,}")
        self.episodes = self.episodes._replace(ways=min(self.episodes.ways, len(labels.train.unique())))
        with resources.rng.child("task head").as_default():
            self.task_head = nn.Linear(model.width, self.episodes.ways)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        learner = [Group([*model.backbone.parameters(), *self.task_head.parameters()])]
        return [
            Phase("meta", self.meta, learner, streams=frozenset({"source"}), episodes=self.episodes),
            Phase("adapt", 1 - self.meta, group_stages(model), streams=frozenset({"granted"}), pretrained=True),
        ]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        if "source" in batch.labelled:
            shape = (self.episodes.tasks, self.episodes.ways, -1)
            return self.over_tasks(model, [*batch.source.x.unflatten(0, shape)])
        return model.encode(batch).supervise()


def descend(
    net: nn.Module, weights: Weights, x: Tensor, y: Tensor, lr: float, first_order: bool
) -> tuple[Weights, Tensor]:
    """The weights after a step of gradient descent on CE(net(x), y) at these, and that loss.

    With `first_order` the gradient that was descended is a constant.
    """
    loss = F.cross_entropy(functional_call(net, {**weights}, (x,)), y)
    gradients = torch.autograd.grad(loss, [*weights.values()], create_graph=not first_order, retain_graph=True)
    return {name: w - lr * g for (name, w), g in zip(weights.items(), gradients, strict=True)}, loss


def classes_of(rows: Tensor) -> Tensor:
    """The labels of a task's rows (ways, n, …) within it: 0, …, 0, 1, …."""
    return torch.arange(rows.shape[0], device=rows.device).repeat_interleave(rows.shape[1])
