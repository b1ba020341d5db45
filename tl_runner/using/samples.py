"""Inputs on which two forms of a model are compared."""

from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.errors import Refused
from tl_runner.restore import Trained
from tl_runner.store import RunRecord
from tl_runner.using.inputs import of_test


class Samples(NamedTuple):
    """Inputs x (n, …), of which the first `real` are rows of the target's test split; `why` there are not more."""

    x: Tensor
    real: int
    why: str


def samples(trained: Trained, record: RunRecord, n: int, seed: int = 0) -> Samples:
    """n inputs: up to half of them rows of the test split, where the run says which files they are; the others random.

    Random ones are uniform on the range of the training inputs, those of a table in the form of its encoding.
    """
    preprocessing, why = trained.preprocessing, ""
    real = torch.empty(0)
    try:
        portions = preprocessing.portions(of_test(record.folder, preprocessing), max(1, n // 2))
        real = next(iter(portions)).x[: n // 2]
    except Refused as error:
        why = str(error)
    generator = torch.Generator().manual_seed(seed)
    low, high = record.data.get("range", (0.0, 1.0))
    random = preprocessing.random(n - len(real), low, high, generator)
    return Samples(torch.cat([real, random]) if len(real) else random, len(real), why)
