"""Low-rank adapters (LoRA) beside the linear maps of a backbone, by the library peft.

y = W x + b + SCALE · B A x, with W and b as they were, A (r, inputs) random and B (outputs, r) zeros at first, so that
at the start y is what it was. Merged, W + SCALE · B A takes the place of W, and the network is a plain one again. Hu et
al., ICLR 2022.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.errors import UserError

SCALE = 2.0  # peft's lora_alpha / r: the same at each rank, so that one learning rate serves all
NAME = "default"  # of the adapters, in peft
BASE, DOWN, UP = ".base_layer.", f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"


def add_adapters(model: Model, rank: int, stages: Sequence[str]) -> Model:
    """A copy of the model with an adapter of this rank beside each linear map in these stages of its backbone.

    Raises `UserError` where there is none, or without peft.
    """
    names = [
        f"{stage}.{name}" if name else stage
        for stage in stages
        for name, part in model.backbone.get_submodule(stage).named_modules()
        if type(part) is nn.Linear
    ]
    if not names:
        raise UserError(
            "method.lora_rank puts adapters beside linear maps, and the stages of this backbone that are trained have"
            " none: transformers have some, of texts (backbone=transformer) and of images (backbone=timm"
            " backbone.model=vit_tiny_patch16_224)"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f'method.lora_rank needs the package {error.name}: pip install "tl_runner[text]"') from error
    model = deepcopy(model)
    said: Any = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=names)  # pyright: ignore[reportArgumentType]
    inject_adapter_in_model(said, model.backbone, adapter_name=NAME)
    return model.to(model.device)


def list_adapters(part: nn.Module) -> list[nn.Parameter]:
    """The parameters A and B of the adapters in a part of a network."""
    return [parameter for name, parameter in part.named_parameters() if f".{name}".endswith((DOWN, UP))]


def merge_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the plain network, W + SCALE · B A in place of W; those of one without adapters as they are."""
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, is_base, key = name.partition(BASE)
        if is_base:
            down, up = state.get(owner + DOWN), state.get(owner + UP)
            change = None if key != "weight" or down is None or up is None else SCALE * (up @ down)
            plain[f"{owner}.{key}"] = tensor if change is None else tensor + change
        elif not name.endswith((DOWN, UP)):
            plain[name] = tensor
    return plain


def remove_adapters(model: Model) -> Model:
    """A copy of the model without its adapters, with the weights that are beside them; itself if it has none.

    `merge_adapters` gives the weights that it is to have.
    """
    if not list_adapters(model):
        return model
    model = deepcopy(model)
    adapted = [name for name, part in model.named_modules() if isinstance(getattr(part, "base_layer", None), nn.Linear)]
    for name in adapted:
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, getattr(model.get_submodule(name), "base_layer"))  # noqa: B009
    return model
