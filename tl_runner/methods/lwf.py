"""Fine-tuning that keeps the source model's predictions for the source's classes (learning without forgetting)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import check_range
from tl_runner.methods import requirements
from tl_runner.methods.frozen_copy import FrozenCopy
from tl_runner.methods.stage_groups import group_stages
from tl_runner.options import NoEffect


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """mean_i KL(p_i ‖ q_i), p and q the softmax of logits / temperature; (…, n, C) twice -> (…), float32.

    Without the factor temperature² that Hinton et al. 2015 multiply it with: a weight says that.
    """
    with torch.autocast(student.device.type, enabled=False):
        p, q = ((logits.float() / temperature).log_softmax(-1) for logits in (teacher, student))
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean(-1)


class LwF(Method):
    """CE(granted) + weight · D(teacher(x_g), student(x_g)), both of them the logits of the source's classes.

    The teacher is the source model as it was, with its running BatchNorm statistics; the student is the backbone in
    training under a copy of the source model's head, which trains along at the backbone's rate. `form` of D: `kl`,
    KL(softmax(teacher/T) ‖ softmax(student/T)), T the `temperature` – Li & Hoiem, ECCV 2016, whose cross-entropy
    differs from it by the teacher's entropy –; `outputs`, ‖teacher − student‖², a distance of functions.
    """

    needs = frozenset({"granted"})
    start = "source"

    def __init__(
        self,
        weight: float = 1.0,
        form: Literal["kl", "outputs"] = "kl",
        temperature: Annotated[float, NoEffect("form", "outputs")] = 2.0,
    ):
        super().__init__()
        check_range(0, weight=weight)
        check_range(1e-3, temperature=temperature)
        self.weight, self.temperature = weight, temperature
        self.form: Literal["kl", "outputs"] = form

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        self.source_head = requirements.source_head(resources)
        self.teacher = FrozenCopy(torch.nn.Sequential(model.backbone, self.source_head))
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        head = Group(self.source_head.parameters(), 1.0, of_backbone=True)
        return [Phase("tune", 1.0, [*group_stages(model), head])]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        seen = model.encode(batch)
        with torch.no_grad():
            teacher = self.teacher.net(batch.granted.x)
        student = self.source_head(seen.granted)
        if self.form == "kl":
            gap = distillation(student, teacher, self.temperature)
        else:
            gap = (student.float() - teacher.float()).square().sum(-1).mean()
        return {**seen.supervise(), "lwf": self.weight * gap}
