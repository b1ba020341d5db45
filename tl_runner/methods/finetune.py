"""Parameter transfer: train the source model further on granted target labels (fine-tuning)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import Tensor

from tl_runner.core import Batch, Method, Model, Phase, Resources
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods import requirements
from tl_runner.methods.interpolation import Interpolation
from tl_runner.methods.stage_groups import (
    group_adapters,
    group_new_parameters,
    group_stages,
    list_adapted_stages,
    list_trained_stages,
)
from tl_runner.models.learning_rates import new_stages
from tl_runner.models.lora import add_adapters
from tl_runner.options import NoEffect
from tl_runner.tasks import EVERY_TASK

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
        raise UserError(
            f"method.freeze takes none, head_only or upto:STAGE, got {freeze!r} (stages: {', '.join(model.stages)})"
        )
    if stage in new:
        raise UserError(f"stage {stage!r} is new and trains along with the head: freeze=head_only freezes all below it")
    return model.upto(stage)


class Finetune(Method):
    """CE on the granted target labels, from the source model: CE(head(f(x_g)), y_g).

    `freeze` keeps stages of the backbone as they are, their BatchNorm statistics too. A new last stage of it
    (`backbone.bottleneck`) trains along with the head. `lp_ft` trains the head alone
    over the first half of the steps, on the unchanged features, then all (Kumar et al., ICLR 2022). `gradual` begins
    with the head alone too, and each of its phases, of equal length, unfreezes one more stage, from the last down;
    `lr_decay` gives each stage a rate of its own, that factor of the next one's: the two of ULMFiT (Howard & Ruder,
    ACL 2018), whose factor is 1/2.6.

    With a `lora_rank` the backbone's weights stay as they are, and each linear map of the trained stages gets a
    low-rank term of this rank that is trained in their place: see `models.lora`. It is new, so it learns at the full
    rate, as LoRA needs a higher one than full fine-tuning does (Hu et al., ICLR 2022). It is merged into the weights
    that are kept.

    `wise` α below 1 examines and saves (1−α)·w⁰ + α·w in place of the trained parameters w; w⁰ are those that
    fine-tuning started from: of the source model with its head, or after `lp_ft` and `gradual` trained the head alone
    (WiSE-FT; Wortsman et al., CVPR 2022, where w⁰ has a zero-shot head). BatchNorm has the statistics of the granted
    rows under the interpolated parameters, and of frozen stages the source's.
    """

    needs = frozenset({"granted"})
    tasks = EVERY_TASK
    start = "source"

    def __init__(
        self,
        freeze: str = "none",
        lr_decay: Annotated[float, NoEffect("freeze", "head_only")] = 1.0,
        lp_ft: bool = False,
        gradual: bool = False,
        lora_rank: int = 0,
        wise: float = 1.0,
    ):
        super().__init__()
        check_range(0, 1, lr_decay=lr_decay, wise=wise)
        check_range(0, lora_rank=lora_rank)
        if freeze == "head_only" and lora_rank:
            raise UserError("method.lora_rank adapts the backbone: it has no effect with freeze=head_only")
        if freeze == "head_only" and (lp_ft or gradual):
            name, after = ("lp_ft", "the whole network") if lp_ft else ("gradual", "one stage after the other")
            raise UserError(f"method.{name} trains {after} after the head: it has no effect with freeze=head_only")
        if lp_ft and gradual:
            raise UserError("method.gradual begins with the head alone, as method.lp_ft does: choose one of them")
        self.freeze, self.lr_decay, self.lp_ft, self.gradual = freeze, lr_decay, lp_ft, gradual
        self.lora_rank, self.wise = lora_rank, wise
        self.interpolation: Interpolation | None = None

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        frozen = frozen_stages(model, self.freeze)  # a stage that does not exist is refused before anything is trained
        if self.gradual and not {*list_trained_stages(model)} - {*frozen}:
            raise UserError(
                "method.gradual unfreezes the backbone's stages, and there are none with parameters to unfreeze"
            )
        if self.lora_rank:
            model = add_adapters(model, self.lora_rank, [n for n in list_trained_stages(model) if n not in frozen])
        if self.wise < 1:
            requirements.predicting_start(model, pair, resources, trains_head_first=self.lp_ft or self.gradual)
            self.interpolation = Interpolation(model, self.wise)
        return model, pair

    def phases(self, model: Model) -> Sequence[Phase]:
        frozen = frozen_stages(model, self.freeze)
        probe = Phase("probe", PROBE, group_new_parameters(model), frozen_stages(model, "head_only"))
        if not self.gradual:
            tune = self._tune(model, frozen)
            return [probe, tune._replace(share=1 - PROBE)] if self.lp_ft else [tune]
        trained = list_adapted_stages(model) if self.lora_rank else list_trained_stages(model)
        firsts = [name for name in reversed(trained) if name not in frozen]
        below = [model.upto(name)[:-1] for name in firsts[:-1]]
        return [probe._replace(share=1.0), *(self._tune(model, stages) for stages in [*below, frozen])]

    def _tune(self, model: Model, frozen: Sequence[str]) -> Phase:
        refresh = self._note_start if self.interpolation else None
        if self.lora_rank:
            still = [name for name in list_trained_stages(model) if name not in list_adapted_stages(model)]
            groups = group_adapters(model, frozen, self.lr_decay)
            return Phase("tune", 1.0, groups, [*frozen, *still], refresh=refresh)
        return Phase("tune", 1.0, group_stages(model, frozen, lr_decay=self.lr_decay), frozen, refresh=refresh)

    def _note_start(self, model: Model, pair: Pair) -> None:
        """Before the first step after the head's; later calls change nothing."""
        if self.interpolation:
            self.interpolation.begin(model)

    def settle(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.interpolation.apply_to(weights) if self.interpolation else weights

    def terms(self, model: Model, batch: Batch, progress: float) -> Mapping[str, Tensor]:
        return model.encode(batch).supervise()
