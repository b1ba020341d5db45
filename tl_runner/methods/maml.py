"""Meta-learning: weights from which a few steps of descent learn a small task (MAML)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tl_runner.core import Episodes, Model, Terms
from tl_runner.errors import check_range
from tl_runner.methods.meta_learning import MetaLearning, Weights, classes_of, descend


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
        check_range(1, queries=queries)
        super().__init__(Episodes(tasks, ways, shots, queries), steps, lr_inner, meta)
        self.first_order = first_order

    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Terms:
        body, net = self.split_network(model)
        shots = self.episodes.shots
        found = [
            query_loss(body, net, task[:, :shots], task[:, shots:], self.steps, self.lr_inner, self.first_order)
            for task in tasks
        ]
        loss, accuracy = (torch.stack([*values]).mean() for values in zip(*found, strict=True))
        return Terms({"tasks": loss}, metrics={"task_accuracy": accuracy})

    def split_network(self, model: Model) -> tuple[nn.Module, nn.Module]:
        """What is the same for shots and queries, and what descends on the shots."""
        return nn.Identity(), nn.Sequential(model.backbone, self.task_head)


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
