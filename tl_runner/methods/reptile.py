"""Meta-learning: weights that lie near those after some steps on each small task (Reptile)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tl_runner.core import Episodes, Model, Terms
from tl_runner.errors import check_range
from tl_runner.methods.meta_learning import MetaLearning, Weights, classes_of, descend


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
        check_range(1, shots=shots, steps=steps)  # before they are multiplied
        super().__init__(Episodes(tasks, ways, shots * steps, 0), steps, lr_inner, meta)

    def over_tasks(self, model: Model, tasks: Sequence[Tensor]) -> Terms:
        learner = nn.Sequential(model.backbone, self.task_head)
        found = [reptile(learner, task.chunk(self.steps, dim=1), self.lr_inner) for task in tasks]
        return Terms({"tasks": torch.stack(found).mean()})


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
