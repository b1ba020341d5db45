"""How the source model is trained, from which some methods start."""

from dataclasses import dataclass
from typing import Literal

from tl_runner.errors import UserError, check_range
from tl_runner.models.learning_rates import LrBackbone


@dataclass(frozen=True)
class Pretrain:
    """How the source model is trained: AdamW along half a cosine, the last checkpoint; `steps=0` trains none.

    `lr_backbone` is what `optimizer.lr_backbone` is to a method: a factor of `lr` for the backbone. `transfer` does not
    change the source model: it says which stages of it are copied, see `engine.pretrain.list_copied_stages`.
    """

    steps: int = 300
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"
    lr_backbone: LrBackbone = "auto"
    transfer: str = "all"

    def __post_init__(self) -> None:
        check_range(0, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        check_range(2, batch=self.batch)
        check_range(0, lr_backbone=1.0 if self.lr_backbone == "auto" else self.lr_backbone)
        kind, _, stage = self.transfer.partition(":")
        if self.transfer not in ("all", "none") and not (kind in ("upto", "from") and stage):
            raise UserError(f"transfer takes all, none, upto:STAGE or from:STAGE, got {self.transfer!r}")
