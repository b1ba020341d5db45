"""Inputs on which two forms of a model are compared."""

from typing import NamedTuple

import torch
from torch import Tensor

from tl_runner.errors import UserError
from tl_runner.inference.inputs import list_test_inputs
from tl_runner.inference.load import Trained
from tl_runner.preprocessing.batching import Preprocessing
from tl_runner.preprocessing.texts import Texts
from tl_runner.rng import Rng
from tl_runner.storage.record import RunRecord


class Samples(NamedTuple):
    """Inputs x (n, …), of which the first `real` are the run's own data; `why` there are none."""

    x: Tensor
    real: int
    why: str


def samples(trained: Trained, record: RunRecord, n: int, seed: int = 0) -> Samples:
    """n inputs: up to half of them real, the others random.

    Real ones are rows of the target's test split where the run says which files they are, else the images that it
    keeps for figures, if they are whole, or such texts. Random ones are uniform on the range of the training inputs,
    those of a table in the form of its encoding, those of texts token ids.
    """
    preprocessing, why = trained.preprocessing, ""
    try:
        portions = preprocessing.portions(list_test_inputs(record.folder, preprocessing), max(1, n // 2))
        real = next(iter(portions)).x
    except UserError as error:
        real, why = _read_stored_samples(record, preprocessing), str(error)
    generator = Rng(seed).generator()
    low, high = record.data.range
    real = real[: n // 2]
    random = preprocessing.random(n - len(real), low, high, generator)
    return Samples(torch.cat([real, random]) if len(real) else random, len(real), "" if len(real) else why)


def _read_stored_samples(record: RunRecord, preprocessing: Preprocessing) -> Tensor:
    """Inputs that the run's diagnosis stored: images (n, c, h, w) of both domains, or texts; (0,) where cut."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        held = load_file(record.folder / "diagnosis.safetensors")
    except (OSError, SafetensorError):
        return torch.empty(0)
    if isinstance(preprocessing, Texts) and "target_texts" in held:
        texts = [row.numpy().tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in held["target_texts"]]
        whole = [text for text in texts if text and not text.endswith("…")]
        return preprocessing(*whole) if whole else torch.empty(0)
    found = [held[name] for name in ("target_samples", "source_samples") if name in held]
    found = [images.float() / 255 for images in found if list(images.shape[1:]) == record.data.shape]
    return torch.cat(found) if found else torch.empty(0)
