"""Files of weights: read without running code in them, and loaded only where they fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from tl_runner.errors import Refused


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file or a torch file that holds tensors only."""
    if not path.is_file():
        raise Refused(f"backbone.weights={path}: there is no such file (possible: null, imagenet or a file)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has its own errors for a file that is not what it says
        code = isinstance(error, UnpicklingError) and "global" in str(error).lower()
        hint = ". It names code, as a whole model does: save model.state_dict() instead" if code else ""
        raise Refused(
            f"backbone.weights={path} can't be read as a file of weights: {type(error).__name__}{hint}"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise Refused(f"backbone.weights={path} holds no state dict: names and tensors are expected")
    return state


def fill(net: nn.Module, state: Mapping[str, Tensor], origin: str, classifier: Sequence[str] = ("fc",)) -> None:
    """Load all but the classifier, which belongs to the classes of the weights; anything else must match.

    `origin` is what to call the weights, `classifier` the names of the modules that are left out.
    """
    without = tuple(f"{name}." for name in classifier)
    own = {key: value for key, value in net.state_dict().items() if not key.startswith(without)}
    state = {key: value for key, value in state.items() if not key.startswith(without)}
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in own.keys() & state.keys()
            if state[key].shape != own[key].shape
        ),
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:8])}{' …' * (len(keys) > 8)}"
            for kind, keys in faults.items()
            if keys
        )
        wrapped = all(key.startswith("module.") for key in state)
        hint = " (names that begin with 'module.' are those of DataParallel: save model.module's)" if wrapped else ""
        raise Refused(f"backbone.weights={origin} does not fit this network – {listed}{hint}")
    net.load_state_dict(state, strict=False)
