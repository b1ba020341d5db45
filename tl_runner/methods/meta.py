"""Meta-learning: small tasks of source classes first, then the granted target rows (MAML, ANIL, Reptile).

A step's tasks are drawn anew: each is `ways` classes of the source (or as many as it has). They are told apart by a
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
from torch.nn.attention import SDPBackend, sdpa_kernel

from tl_runner.core import Batch, Episodes, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import Refused, within
from tl_runner.functional import losses
from tl_runner.methods import requirements
from tl_runner.methods.finetune import discriminative
from tl_runner.rng import chance_of

Weights = Mapping[str, Tensor]


class MetaLearning(Method, ABC):
    """Tasks of source classes, then CE(granted); a subclass says what a task's loss is."""

    needs = frozenset({"source", "granted"})
    keeps_source_task = False  # tasks of source classes have a head of their own, and end before the fine-tuning
    across_labels = True

    def __init__(self, episodes: Episodes, steps: int, lr_inner: float, meta: float):
        super().__init__()
        within(1, tasks=episodes.tasks, shots=episodes.shots, steps=steps)
        within(2, ways=episodes.ways)
        within(0, lr_inner=lr_inner)
        within(0.01, 0.99, meta=meta)
        self.episodes, self.steps, self.lr_inner, self.meta = episodes, steps, lr_inner, meta

    @abstractmethod
    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Tensor:
        """The scalar to descend on, of the rows (ways, shots + queries, …) of each task; see `classes_of`."""

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        requirements.trainable_backbone(model)
        _, labels = pair.labelled_source
        if (rows := self.episodes.shots + self.episodes.queries) > len(labels.train):
            raise Refused(f"a task takes {rows:,} rows of each class, and the source has {len(labels.train):,} in all")
        self.episodes = self.episodes._replace(ways=min(self.episodes.ways, len(labels.train.unique())))
        with chance_of(seed, "task head"):
            self.task_head = nn.Linear(model.width, self.episodes.ways)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        learner = [Group([*model.backbone.parameters(), *self.task_head.parameters()])]
        return [
            Phase("meta", self.meta, learner, streams=frozenset({"source"}), episodes=self.episodes),
            Phase("adapt", 1 - self.meta, discriminative(model), streams=frozenset({"granted"}), pretrained=True),
        ]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        if "source" in batch.labelled:
            shape = (self.episodes.tasks, self.episodes.ways, -1)
            return {"tasks": self.over_tasks(model, [*batch.source.x.unflatten(0, shape)])}
        self.notes = {}  # those of the tasks are past
        return losses.supervised(model.head, batch.labelled, model.features(*batch.inputs))


class MAML(MetaLearning):
    """Mean over tasks of CE(queries; θ'), θ' the weights after `steps` of descent on CE(shots) from θ; then CE(x_g).

    θ are the weights of backbone and task head. The gradient goes through the descent, and so is of second order;
    `first_order` takes the gradient at θ' for it (FOMAML). The curve notes the share of queries that is got right.
    Finn, Abbeel & Levine, ICML 2017.
    """

    def __init__(
        self,
        tasks: int = 2,
        ways: int = 5,
        shots: int = 5,
        queries: int = 5,
        steps: int = 3,
        lr_inner: float = 0.1,
        first_order: bool = False,
        meta: float = 0.5,
    ):
        within(1, queries=queries)
        super().__init__(Episodes(tasks, ways, shots, queries), steps, lr_inner, meta)
        self.first_order = first_order

    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Tensor:
        body, net = self.parted(model)
        shots = self.episodes.shots
        found = [
            query_loss(body, net, task[:, :shots], task[:, shots:], self.steps, self.lr_inner, self.first_order)
            for task in tasks
        ]
        self.notes["task_accuracy"] = torch.stack([right for _, right in found]).mean()
        return torch.stack([loss for loss, _ in found]).mean()

    def parted(self, model: Model) -> tuple[nn.Module, nn.Module]:
        """What is the same for shots and queries, and what descends on the shots."""
        return nn.Identity(), nn.Sequential(model.backbone, self.task_head)


class ANIL(MAML):
    """MAML whose inner descent moves the task head alone ("almost no inner loop"); then CE(x_g).

    The head's weights descend on the features of the shots; the gradient of CE(queries) trains the backbone, which is
    the same for shots and queries, and the head's initial weights. Raghu, Raghu, Bengio & Vinyals, ICLR 2020.
    """

    def parted(self, model: Model) -> tuple[nn.Module, nn.Module]:
        return model.backbone, self.task_head


class Reptile(MetaLearning):
    """The gradient θ − θ', mean over tasks, θ' the weights after `steps` of descent from θ on a task; then CE(x_g).

    θ are the weights of backbone and task head. Each inner step has rows of its own, `shots` of each class. With plain
    SGD of rate ε as the run's optimiser that is the paper's θ ← θ + ε(θ' − θ). The term's value is the mean loss of the
    inner steps. Nichol, Achiam & Schulman 2018.
    """

    def __init__(
        self,
        tasks: int = 2,
        ways: int = 5,
        shots: int = 5,
        steps: int = 5,
        lr_inner: float = 0.1,
        meta: float = 0.5,
    ):
        within(1, shots=shots, steps=steps)  # before they are multiplied
        super().__init__(Episodes(tasks, ways, shots * steps, 0), steps, lr_inner, meta)

    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Tensor:
        learner = nn.Sequential(model.backbone, self.task_head)
        return torch.stack([reptile(learner, task.chunk(self.steps, dim=1), self.lr_inner) for task in tasks]).mean()


def query_loss(
    body: nn.Module, net: nn.Module, shots: Tensor, queries: Tensor, steps: int, lr: float, first_order: bool
) -> tuple[Tensor, Tensor]:
    """CE of net(body(queries)) with weights that descended from the net's on the shots, and the queries' accuracy.

    shots (ways, s, …), queries (ways, q, …). The gradient reaches the parameters of both.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the only attention with a second derivative
        seen, asked = body(shots.flatten(0, 1)), body(queries.flatten(0, 1))
        y = classes_of(shots)
        weights: Weights = dict(net.named_parameters())
        for _ in range(steps):
            weights, _ = descend(net, weights, seen, y, lr, first_order)
        logits, y = functional_call(net, {**weights}, (asked,)), classes_of(queries)
    return F.cross_entropy(logits, y), (logits.argmax(-1) == y).float().mean()


def reptile(net: nn.Module, parts: Sequence[Tensor], lr: float) -> Tensor:
    """A scalar whose gradient is θ − θ', θ' after a step of descent from θ on each of the parts (ways, s, …) in turn.

    Its value is the mean loss of these steps.
    """
    start = dict(net.named_parameters())
    weights: Weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    seen: list[Tensor] = []
    for part in parts:
        weights, loss = descend(net, weights, part.flatten(0, 1), classes_of(part), lr, first_order=True)
        seen.append(loss.detach())
    pull = [((now - now.detach()) * (now - weights[name]).detach()).sum() for name, now in start.items()]
    return torch.stack(seen).mean() + torch.stack(pull).sum()


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
