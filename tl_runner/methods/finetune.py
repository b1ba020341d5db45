"""Parameter transfer: go on from the source's parameters with the granted target labels (fine-tuning, L2-SP)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tl_runner.core import Batch, Group, Method, Model, Phase
from tl_runner.domains import Pair
from tl_runner.errors import Refused, within
from tl_runner.functional import losses
from tl_runner.models.learning_rates import new_parameters, new_stages, old_parameters

PROBE = 0.5  # the share of the steps that lp_ft gives to the head alone


def frozen_stages(model: Model, freeze: str) -> tuple[str, ...]:
    """The stages that `freeze` names: none, head_only (all of the backbone) or upto:STAGE; never one that is new."""
    new = new_stages(model)
    if freeze == "none":
        return ()
    if freeze == "head_only":
        return tuple(name for name in model.stages if name not in new)
    kind, _, stage = freeze.partition(":")
    if kind != "upto" or not stage:
        raise Refused(
            f"method.freeze takes none, head_only or upto:STAGE, got {freeze!r} (stages: {', '.join(model.stages)})"
        )
    if stage in new:
        raise Refused(f"stage {stage!r} is new and trains along with the head: freeze=head_only freezes all below it")
    return model.upto(stage)


def trainable(model: Model) -> tuple[str, ...]:
    """The stages of the backbone that have parameters and are not new, first to last."""
    stages = [name for name, stage in model.backbone.named_children() if any(True for _ in stage.parameters())]
    return tuple(name for name in stages if name not in new_stages(model))


def fresh(model: Model, decay: bool = True) -> list[Group]:
    """What learns at the full rate: the head, and the new stages of the backbone."""
    parts = [*model.head.parameters()], new_parameters(model)
    return [Group(parameters, decay=decay) for parameters in parts if parameters]


def discriminative(model: Model, frozen: Sequence[str] = (), decay: bool = True, lr_decay: float = 1.0) -> list[Group]:
    """What is `fresh` at the full rate; of the backbone what is not frozen at the backbone's, each stage in a group.

    Its last stage is at that rate, and each stage before it at `lr_decay` times the next one's.
    """
    stages = trainable(model)
    body = [
        Group(model.backbone.get_submodule(name).parameters(), lr_decay**above, decay, of_backbone=True)
        for name, above in zip(stages, reversed(range(len(stages))), strict=True)
        if name not in frozen
    ]
    return [*fresh(model, decay), *body]


class Finetune(Method):
    """CE on the granted target labels, from the source model: CE(head(f(x_g)), y_g).

    `freeze` keeps stages of the backbone as they are, their BatchNorm statistics too. A new last stage of it
    (`backbone.bottleneck`) trains along with the head. `lp_ft` trains the head alone
    over the first half of the steps, on the unchanged features, then all (Kumar et al., ICLR 2022). `gradual` begins
    with the head alone too, and each of its phases, of equal length, unfreezes one more stage, from the last down;
    `lr_decay` gives each stage a rate of its own, that factor of the next one's: the two of ULMFiT (Howard & Ruder,
    ACL 2018), whose factor is 1/2.6.
    """

    needs = frozenset({"granted"})
    keeps_source_task = False
    start = "source"
    across_labels = True
    idle: ClassVar = {"lr_decay": ("freeze", {"head_only"})}

    def __init__(
        self,
        freeze: str = "none",
        lr_decay: float = 1.0,
        lp_ft: bool = False,
        gradual: bool = False,
    ):
        super().__init__()
        within(0, 1, lr_decay=lr_decay)
        if freeze == "head_only" and (lp_ft or gradual):
            name, after = ("lp_ft", "the whole network") if lp_ft else ("gradual", "one stage after the other")
            raise Refused(f"method.{name} trains {after} after the head: it has no effect with freeze=head_only")
        if lp_ft and gradual:
            raise Refused("method.gradual begins with the head alone, as method.lp_ft does: choose one of them")
        self.freeze, self.lr_decay, self.lp_ft, self.gradual = freeze, lr_decay, lp_ft, gradual

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        frozen = frozen_stages(model, self.freeze)  # a stage that does not exist is refused before anything is trained
        if self.gradual and not {*trainable(model)} - {*frozen}:
            raise Refused(
                "method.gradual unfreezes the backbone's stages, and there are none with parameters to unfreeze"
            )
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        frozen = frozen_stages(model, self.freeze)
        probe = Phase("probe", PROBE, fresh(model), frozen_stages(model, "head_only"))
        if not self.gradual:
            tune = self._tune(model, frozen)
            return [probe, tune._replace(share=1 - PROBE)] if self.lp_ft else [tune]
        firsts = [name for name in reversed(trainable(model)) if name not in frozen]
        below = [model.upto(name)[:-1] for name in firsts[:-1]]
        return [probe._replace(share=1.0), *(self._tune(model, stages) for stages in [*below, frozen])]

    def _tune(self, model: Model, frozen: Sequence[str]) -> Phase:
        return Phase("tune", 1.0, discriminative(model, frozen, lr_decay=self.lr_decay), frozen)

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return losses.supervised(model.head, batch.labelled, model.features(*batch.inputs))


class L2SP(Method):
    """CE(granted) + ½ · weight_backbone · ‖w − w⁰‖² + ½ · weight_head · ‖v‖², in place of weight decay.

    w are the backbone's parameters, w⁰ what they were in the source model, v the head's and a bottleneck's. Li,
    Grandvalet & Davoine, ICML 2018.
    """

    needs = frozenset({"granted"})
    keeps_source_task = False
    start = "source"
    across_labels = True

    def __init__(self, weight_backbone: float = 0.01, weight_head: float = 0.01):
        super().__init__()
        within(0, weight_backbone=weight_backbone, weight_head=weight_head)
        self.weight_backbone, self.weight_head = weight_backbone, weight_head

    def prepare(self, model: Model, pair: Pair, seed: int) -> tuple[Model, Pair]:
        start = [parameter.detach().clone() for parameter in old_parameters(model)]
        if not start:
            raise Refused("l2sp holds a backbone's parameters near the source's, and this backbone has none")
        for index, tensor in enumerate(start):
            self.register_buffer(f"start{index}", tensor)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        return [Phase("tune", 1.0, discriminative(model, decay=False))]

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        drift = torch.stack(
            [(now - then).square().sum() for now, then in zip(old_parameters(model), self.buffers(), strict=True)]
        ).sum()
        head = torch.stack([p.square().sum() for p in [*model.head.parameters(), *new_parameters(model)]]).sum()
        return {
            **losses.supervised(model.head, batch.labelled, model.features(*batch.inputs)),
            "l2sp": 0.5 * self.weight_backbone * drift,
            "l2_head": 0.5 * self.weight_head * head,
        }
