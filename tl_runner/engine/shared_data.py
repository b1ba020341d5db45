"""The data of a run, and what runs in one process that read the same data make once."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tl_runner import config
from tl_runner.config import Parts
from tl_runner.core import Model, Start
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Answers, Pair
from tl_runner.engine.device import claim_device
from tl_runner.engine.image_size import settle_size
from tl_runner.engine.texts import TextEncoding, add_tokenizer
from tl_runner.evaluation.diagnosis import Diagnose, Setup
from tl_runner.rng import Rng
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import DataInfo

T = TypeVar("T")
Said = list[logging.LogRecord]


class Data(NamedTuple):
    """The domains of a run, split, with the target's sealed answers; what the record says of them, and their texts."""

    pair: Pair
    answers: Answers
    info: DataInfo
    granted: str
    text: TextEncoding | None


class Shared:
    """What runs of one process read and measure alike, each kind by what it depends on."""

    def __init__(self) -> None:
        self._data: dict[str, tuple[Data, Said]] = {}
        self._setups: dict[str, tuple[Setup, Said]] = {}
        self._devices: dict[tuple[str, int | None], torch.device] = {}

    def claim_device(self, name: str, threads: int | None) -> torch.device:
        """See `device.claim_device`, which looks through all libraries that the process has loaded."""
        if (name, threads) not in self._devices:
            self._devices[name, threads] = claim_device(name, threads)
        return self._devices[name, threads]

    def read_data(self, record: RunRecord, parts: Parts, device: torch.device, needs_granted: bool) -> Data:
        """The domains as this run splits them. Its answers are sealed, whoever has opened those of another run."""
        named = {name: record.config[name] for name in ("dataset", "backbone", "seed", "granted")}
        key = json.dumps([named, str(device), needs_granted], sort_keys=True, default=str)
        found = _make_once(self._data, key, lambda: read_data(record, parts, device, needs_granted))
        return found._replace(answers=copy(found.answers))

    def measure_start(
        self, config: Mapping[str, Any], start: Start, model: Model, pair: Pair, diagnose: Diagnose, cache: Path
    ) -> Setup:
        """What the diagnosis says before anything is trained; called with the network as training finds it."""
        depends = ("dataset", "backbone", "seed", "granted", "pretrain", "augment", "train", "diagnose")
        named = {name: config[name] for name in depends}
        key = json.dumps([named, start, str(model.device)], sort_keys=True, default=str)
        found = _make_once(self._setups, key, lambda: diagnose.before(model, pair, start == "features", cache))
        return found._replace(pair=pair)


def _make_once(made: dict[str, tuple[T, Said]], key: str, make: Callable[[], T]) -> T:
    """What has been made under this key, or is made now. What was logged meanwhile is every run's to log."""
    logger = logging.getLogger("tl_runner")
    if key in made:
        found, said = made[key]
        for record in said:
            logger.handle(record)
        return found
    listener = BufferingHandler(sys.maxsize)
    logger.addHandler(listener)
    try:
        made[key] = make(), listener.buffer
    finally:
        logger.removeHandler(listener)
    return made[key][0]


def read_data(record: RunRecord, parts: Parts, device: torch.device, needs_granted: bool) -> Data:
    """Draw and split the data. `needs_granted`: the method learns from granted labels."""
    seed = parts.settings.seed
    budget = Budget.parse(parts.settings.granted).settle(needed=needs_granted)
    with Rng(seed).child("data").as_default():
        dataset, size = settle_size(parts.dataset, parts.backbone)
        drawn = config.call_with(dataset, seed=seed, cache=record.cache)
        drawn, text = add_tokenizer(drawn, parts.backbone)
        budget = budget.suit(drawn.target.quantity)
        pair, answers, data = split_domains(drawn, seed, budget, device)
    data = replace(data, files=record.data.files, read=record.data.read, size=size or data.size)
    return Data(pair, answers, data, budget.describe(data.granted, len(pair.classes)), text)
