"""A device that is not there: the CPU computes for it, and what goes wrong or waits on a GPU shows.

A tensor that was left on the CPU beside those of the device raises, as on a GPU; where the host would wait is counted.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils.backend_registration as registration
from torch import Tensor, nn
from torch.library import Library, fallthrough_kernel
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

import tl_runner

NAME = "pretended"
MISSING = None  # why there is no such device here
if not hasattr(registration, "_setup_privateuseone_for_python_backend"):
    MISSING = f"torch {torch.__version__} has no _setup_privateuseone_for_python_backend, which is private"
HERE = Path(__file__)
PLACES = Path(tl_runner.__file__).parent, HERE.parents[1]  # the package and its tests
ATEN = torch.ops.aten
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}
WRITTEN_AT = {ATEN.index_put_.default, ATEN.index_put.default, ATEN._index_put_impl_.default}
DEPENDS = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}

# What autocast does on CUDA, of the operators that training meets: https://docs.pytorch.org/docs/stable/amp.html
LOWERED = "conv1d conv2d conv3d _convolution linear matmul mm addmm addmv mv bmm baddbmm scaled_dot_product_attention"
RAISED = (
    "exp log log1p expm1 pow reciprocal rsqrt softmax.int log_softmax.int layer_norm group_norm norm cosine_similarity"
    " kl_div nll_loss nll_loss2d l1_loss smooth_l1_loss huber_loss mse_loss binary_cross_entropy_with_logits cdist"
    " logsumexp prod sum cumsum"
)


class Held(Tensor):
    """A tensor of the device, which says so; `numbers` are on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Held":
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            numbers.stride(),
            numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(NAME, 0),
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `PretendedDevice`")

    def __repr__(self, **said: Any) -> str:
        return f"Held({self.numbers!r})"

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)


class PretendedDevice(TorchDispatchMode):
    """Within, tensors can live on the device `NAME`. `waits` counts, by file of ours, where the host waits for it.

    It waits where numbers come from the device (`.cpu()`, `.item()`, `.tolist()`), where a shape depends on them
    (a mask as an index, `unique`), and where a copy to it does not say `non_blocking`: on CUDA that ends when all that
    was queued before is done. A CPU index of its tensors is such a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = Counter[str]()

    def __enter__(self) -> "PretendedDevice":
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) is one on the CPU, then a copy
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        goes_to = kwargs.get("device")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(isinstance(x, Held) for x in tensors) and (goes_to is None or goes_to.type != NAME):
            return func(*args, **kwargs)
        _refuse_other_devices(func, args, kwargs, tensors)
        if _waits(func, args, goes_to, bool(kwargs.get("non_blocking"))):
            self.waits[_find_caller()] += 1
        here = dict(kwargs)
        if func is ATEN._to_copy.default:
            here["non_blocking"] = False  # between CPU and CPU it has no meaning
        if goes_to is not None:
            here["device"] = torch.device("cpu")
        found = func(*tree_map(_open, args), **tree_map(_open, here))
        if func is ATEN.copy_.default:
            return args[0]
        if goes_to is not None and goes_to.type != NAME:
            return found
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_close, found))


def _refuse_other_devices(func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    """A number of the CPU may stand beside tensors of the device, as in PyTorch, and so may an index and a copy."""
    if isinstance(generator := kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device.type}'")
    others = [x for x in tensors if not isinstance(x, Held) and x.ndim]
    at = _find_indices(func, args)
    if func not in COPIES and any(all(x is not index for index in at) for x in others):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some of the CPU")


def _waits(func: Any, args: Any, goes_to: torch.device | None, non_blocking: bool) -> bool:
    """Whether the host waits for the device in this call."""
    if func is ATEN.copy_.default:
        into, of, *rest = args
        return not isinstance(into, Held) or not (isinstance(of, Held) or non_blocking or rest == [True])
    if func is ATEN._to_copy.default:
        leaves = goes_to is not None and goes_to.type != NAME
        return leaves or not (isinstance(args[0], Held) or non_blocking)
    if at := _find_indices(func, args):
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in at)
        filled = func in WRITTEN_AT and args[2].numel() == 1  # then it is `masked_fill_`
        return (masks and not filled) or not all(isinstance(index, Held) for index in at)
    return not DEPENDS.isdisjoint(func.tags)


def _find_indices(func: Any, args: Any) -> list[Tensor]:
    indexes = func is ATEN.index.Tensor or func in WRITTEN_AT
    return [index for index in args[1] if isinstance(index, Tensor)] if indexes else []


def _find_caller() -> str:
    """The innermost file of ours that led here."""
    frame = sys._getframe(2)
    while frame:
        file = Path(frame.f_code.co_filename)
        if file != HERE and (found := [place for place in PLACES if file.is_relative_to(place)]):
            return file.relative_to(found[0].parent).as_posix()
        frame = frame.f_back
    return "elsewhere"


def _open(value: Any) -> Any:
    return value.numbers if isinstance(value, Held) else value


def _close(value: Any) -> Any:
    return Held(value) if isinstance(value, Tensor) else value


def pretend() -> None:
    """Register the device, for all of this process: before its first backward pass, which counts the devices."""

    class Backend(registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    registration._setup_privateuseone_for_python_backend(rename=NAME, backend_module=Backend())
    _register_autocast()
    plain = nn.Module.to

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        goes_to, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if goes_to is None or goes_to.type != NAME or dtype is not None or layout is not None:
            return plain(module, *args, **kwargs)
        for part in module.modules():
            for parameter in part._parameters.values():
                if parameter is not None and parameter.device.type != NAME:
                    _move(parameter)
            part._buffers.update({name: b if b is None else b.to(goes_to) for name, b in part._buffers.items()})
        return module

    nn.Module.to = to  # pyright: ignore[reportAttributeAccessIssue]


def _move(parameter: nn.Parameter) -> None:
    """Where `Module.to` gives a parameter other data, a held one has to take its place; it stays the same object."""
    moved = Held(parameter.detach()).requires_grad_(parameter.requires_grad)
    moved._is_param = True  # pyright: ignore[reportAttributeAccessIssue]
    torch.utils.swap_tensors(parameter, moved)


_libraries: list[Library] = []  # what is registered lives as long as they do


def _register_autocast() -> None:
    """Autocast on this device, as on CUDA: PyTorch leaves it to each backend."""
    every, aten = Library("_", "IMPL"), Library("aten", "IMPL")
    _libraries.extend((every, aten))
    every.fallback(fallthrough_kernel, "AutocastPrivateUse1")
    for names, dtype in ((LOWERED, torch.bfloat16), (RAISED, torch.float32)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            found = getattr(ATEN, packet)
            for each in [overload] if overload else found.overloads():
                operator = getattr(found, each)
                if "out" not in each and not operator._schema.is_mutable:
                    aten.impl(operator, _cast(operator, dtype), "AutocastPrivateUse1")


def _cast(operator: Any, dtype: torch.dtype) -> Callable[..., Any]:
    key = torch._C.DispatchKeySet(torch._C._dispatch_key_parse("AutocastPrivateUse1"))

    def cast(x: Any) -> Any:
        eligible = isinstance(x, Tensor) and x.is_floating_point() and x.device.type == NAME
        return x.to(dtype) if eligible and x.dtype != torch.float64 else x

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(key):
            args, kwargs = tree_map(cast, (args, kwargs))
            return operator(*args, **kwargs)

    return call
