"""What a run is computed on: device, threads, kernels."""

from typing import Any

import torch
from threadpoolctl import threadpool_limits

from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.training.loop import Train


def claim_device(name: str, threads: int | None) -> torch.device:
    """Set the CPU's threads, if a number is given, and return the device: `auto` is CUDA where there is one."""
    if threads is not None:
        torch.set_num_threads(threads)
        threadpool_limits(threads)  # those of NumPy, SciPy and scikit-learn
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: PyTorch finds {torch.cuda.device_count()} CUDA devices here; use device=cpu or auto"
        )
    return device


def apply_kernels(model: Model, plan: Train) -> Model:
    """The model in the memory layout and with the kernels of the plan; its parameters keep their names."""
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if plan.compile:
        model.backbone.compile()
    return model


def describe_device(device: torch.device, plan: Train) -> dict[str, Any]:
    """What the record's `environment` says of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device) + (f" ({name})" if name else ""),
        "threads": torch.get_num_threads(),
        "engine": "compiled" if plan.compile else "eager",
    }
