"""What a run, a screening and the trials of `auto` begin with: the data of a configuration and a fresh network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tl_runner import config
from tl_runner.config import Parts
from tl_runner.core import Model
from tl_runner.domains import Answers, Pair
from tl_runner.engine.shared_data import Shared
from tl_runner.engine.texts import TextEncoding
from tl_runner.models.inputs import build_backbone
from tl_runner.models.tokens import Tokenizer
from tl_runner.rng import Rng
from tl_runner.storage.provenance import identify_maker
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import DataInfo


@dataclass(frozen=True)
class Assembly:
    """The parts of a configuration, its source and target, the target's sealed answers, and a network to train."""

    parts: Parts
    pair: Pair
    answers: Answers
    model: Model
    data: DataInfo
    granted: str  # the label budget, as the record names it
    config: Mapping[str, Any]
    machine: Mapping[str, Any]  # and code by which it is made: what is kept for other runs serves the same alone
    settled: Mapping[str, Any]  # what options of the backbone that are `auto` came to
    cache: Path  # what runs share
    features: Path  # in it, what frozen backbones of this configuration make of their inputs
    text: TextEncoding | None  # the texts of the training rows, and their tokenizer

    @property
    def rng(self) -> Rng:
        return Rng(self.parts.settings.seed)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of texts."""
        return self.text.tokenizer if self.text else None


def assemble(
    record: RunRecord, parts: Parts, device: torch.device, needs_granted: bool, shared: Shared | None = None
) -> Assembly:
    """Draw and split the data, unless that is `shared`, and build the network."""
    rng, cache = Rng(parts.settings.seed), record.cache
    pair, answers, data, granted, text = (Shared() if shared is None else shared).read_data(
        record, parts, device, needs_granted
    )
    tokenizer = text.tokenizer if text else None
    with rng.child("model").as_default():
        backbone, width = build_backbone(parts.backbone, pair.shape, tokenizer, data.sound)
        model = Model(backbone, width, pair.task, parts.train.batchnorm).to(device)
        model.pretrained = config.starts_trained(parts.backbone)
    return Assembly(
        parts,
        pair,
        answers,
        model,
        data,
        granted,
        record.config,
        identify_maker(record.environment),
        getattr(backbone, "settled", {}),
        cache,
        cache / record.features,
        text,
    )
