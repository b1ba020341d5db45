"""A network that shares another's tensors, but for some that take the place of its own."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import chain

from torch import Tensor, nn

from tl_runner.core import Model


def substitute_tensors(model: Model, tensors: Mapping[str, Tensor]) -> Model:
    """The same network with these tensors in place of its parameters and buffers of those names; nothing is copied.

    It has modules of its own, so that a mode which is set in one does not reach the other.
    """
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    held: dict[int, Tensor] = {id(tensor): tensor for tensor in chain(parameters.values(), buffers.values())}
    for name, tensor in tensors.items():
        own = parameters.get(name)
        held[id(buffers[name] if own is None else own)] = (
            tensor if own is None else nn.Parameter(tensor.detach(), own.requires_grad)
        )
    return deepcopy(model, held)
