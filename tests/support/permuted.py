"""The default pair with other answers, the target's labels permuted, and what a run leaves on either."""

from pathlib import Path

import torch
from conftest import QUICK, made

from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import Drawn
from tl_runner.rng import Rng


def mislabelled(
    seed: int, samples: int = 300, size: int = 8, severity: None = None, target_shares: None = None
) -> Drawn:
    """The default pair with the target's labels permuted: same inputs, other answers."""
    drawn = digits(seed, samples=samples, size=size)
    order = torch.randperm(len(drawn.target.y), generator=Rng(seed).child("permutation").generator())
    return drawn._replace(target=drawn.target._replace(y=drawn.target.y[order]))


def honest(seed: int, samples: int = 300, size: int = 8, severity: None = None, target_shares: None = None) -> Drawn:
    return digits(seed, samples=samples, size=size)


def bytes_under(method: str, data: str, tmp_path: Path, diagnose: str = "none") -> tuple[dict[str, bytes], float]:
    words = [f"method={method}", f"dataset._target_=support.permuted.{data}", f"diagnose={diagnose}", *QUICK]
    words += [f"~dataset.{key}" for key in ("source", "target", "shift")]
    record = made(tmp_path / data, *words)
    assert record.scores is not None
    names = ("model.safetensors", "predictions.safetensors")
    found = {name: (record.folder / name).read_bytes() for name in names}
    return {**found, "estimated": repr(record.scores.estimated).encode()}, record.scores.target["accuracy"]
