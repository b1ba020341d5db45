"""A finished run put to use: its model, what makes inputs of files, the names of its classes."""

import json
from pathlib import Path
from typing import NamedTuple, get_args

import torch

from tl_runner import config
from tl_runner.core import Model
from tl_runner.errors import UserError
from tl_runner.models.batchnorm import Side, unpack_statistics
from tl_runner.models.heads import Calibrated, InUnit, rebuild_head
from tl_runner.models.inputs import build_backbone
from tl_runner.models.tokenizers import rebuild_tokenizer
from tl_runner.models.tokens import Tokenizer
from tl_runner.preprocessing.batching import Preprocessing
from tl_runner.preprocessing.recorded import read_preprocessing
from tl_runner.storage.record import RunRecord, read_record
from tl_runner.tasks import Classification, Regression

TOLD = 10  # runs that a message lists


class Trained(NamedTuple):
    """What `load` gives: `model, preprocessing, classes = tl_runner.load(RUN)`.

    `model(preprocessing(input, …))` are the logits (n, C), whose columns `classes` names; `.softmax(-1)` are the
    probabilities that tl-predict prints. Where a run predicts a quantity there are no classes, and the model gives it
    (n, 1) in its own unit. `preprocessing` takes image files or Pillow images of a run on images; CSV files or rows
    {column: value} of one on tables; texts, or a Path of a file of them, of one on texts; sound files of one on sound.
    """

    model: Model
    preprocessing: Preprocessing
    classes: tuple[str, ...]


def load(run: str | Path, domain: Side = "target") -> Trained:
    """The selected checkpoint of the run in this folder, in evaluation mode on the CPU, ready for use.

    Its logits are calibrated, and adjusted to other class shares, as the record says and those in predictions.csv are.
    `domain` says whose rows the model is to meet: its BatchNorm layers have the target's statistics, or the source's.
    Nothing but the folder is needed, no dataset. Raises `UserError` where it holds no run, one that did not end well,
    or one whose weights were not kept.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if domain not in get_args(Side):
        raise UserError(f"domain takes target or source, got {domain!r}")
    folder = Path(run)
    record = read_finished(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(
            f"{folder} has no model.safetensors: the run is {record.status!r}, save={record.config.get('save')};"
            " rerun its tl-run command with save=true"
        )
    shape, tokenizer = tuple(record.data.shape), read_tokenizer(folder) if record.data.input == "text" else None
    part = config.build({**config.drop_weights(record.config["backbone"]), **record.training.backbone}, "backbone")
    backbone, width = build_backbone(part, shape, tokenizer, record.data.sound)
    quantity = record.data.quantity
    task = Regression(quantity.name) if quantity else Classification(tuple(record.data.classes))
    model = rebuild_head(Model(backbone, width, task), shape, record.training.model or {})
    try:
        model.load_state_dict(unpack_statistics(load_file(weights), domain))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{weights} can't be read into the run's network: {error}") from error
    training = record.training
    if quantity:
        model.head = InUnit(model.head, quantity.mean, quantity.sd)
    bias = torch.tensor(training.shares.bias) if training.shares and domain == "target" else None
    if training.temperature or bias is not None:
        model.head = Calibrated(model.head, training.temperature or 1.0, bias)
    preprocessing = read_preprocessing(record.data, record.config["dataset"], tokenizer)
    return Trained(model.eval(), preprocessing, model.classes)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run on texts, by the tokenizer.json that it keeps."""
    file = folder / "tokenizer.json"
    try:
        return rebuild_tokenizer(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{file}, by which the run reads texts, can't be read: {error}; rerun its tl-run command"
        ) from error


def read_finished(folder: Path) -> RunRecord:
    """The record of the run in this folder; raises `UserError` where there is none, or it did not end well."""
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} holds no run: {_instead(folder)}")
    try:
        record = read_record(folder / "run.json")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no run: {error}") from error
    if record.status != "ok":
        why = f" ({record.error})" if record.error else ""
        raise UserError(f"the run in {folder} is {record.status!r}{why}: it has no model")
    return record


def _instead(folder: Path) -> str:
    """What there is where a run was looked for."""
    if not folder.is_dir():
        return "there is no such folder" if not folder.exists() else "it is a file; name the run's folder"
    found = sorted(str(file.parent) for file in folder.rglob("run.json"))
    if not found:
        return "there is no run.json in it, nor below it"
    more = f" and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return f"{len(found)} below it, name one of them: {', '.join(found[:TOLD])}{more}"
