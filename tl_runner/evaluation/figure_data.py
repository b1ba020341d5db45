"""What the figures of a report need of a run, as a handful of small tensors: below half a megabyte a run."""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.domains import InMemory, Pair, Split
from tl_runner.evaluation.scores import Reading
from tl_runner.models.spectrogram import LogMel
from tl_runner.storage.sections import SoundInfo
from tl_runner.tasks import Task

POINTS, WIDTH = 200, 32  # rows of a side that are drawn as points, and numbers of each
SAMPLES, SIDE = 24, 40  # images of a side, and pixels of their longer side
HEARD = 16  # recordings that become pictures at one time: those of seconds are large in between
LETTERS = 200  # of a text; the rest is left out
EXTREMES = 8  # source rows that weigh most, and least


class Side(NamedTuple):
    """A domain's test rows, or the first of them: as the model reads them, and their labels."""

    reading: Reading
    labels: Tensor


def collect_figure_data(
    raw: Pair, pair: Pair, source: Side | None, target: Side, sound: SoundInfo | None = None
) -> dict[str, Tensor]:
    """Points, samples and extremes by name; `raw` is the pair of inputs, `pair` what the method made of it.

    `sound` says how waveforms become pictures.
    """
    sides = {"source": source, "target": target} if source else {"target": target}
    found: dict[str, Tensor] = {}
    scores = components(*(side.reading.features[:POINTS] for side in sides.values()))
    for (name, side), points in zip(sides.items(), scores, strict=True):
        found[f"{name}_features"] = points
        found[f"{name}_labels"] = pack_labels(side.labels[:POINTS], raw.task)
        predicted = side.reading.predicted[:POINTS]
        found[f"{name}_predicted"] = predicted.argmax(-1).to(torch.int16) if raw.classes else predicted[:, 0]
        domain = raw.source if name == "source" else raw.target
        if domain and raw.input == "images":
            found[f"{name}_samples"] = thumbnails(domain.test, torch.arange(min(SAMPLES, len(domain.test))))
    if raw.input == "text":
        found["target_texts"] = pack_texts(raw.target.test, torch.arange(min(POINTS, len(raw.target.test))))
    if sound:
        found["target_spectrograms"] = draw_spectrograms(
            raw.target.test, torch.arange(min(POINTS, len(raw.target.test))), sound
        )
    if pair.weights is not None and raw.source and len(pair.weights) == len(raw.source.train):
        order = pair.weights.cpu().argsort(descending=True, stable=True)
        for name, rows in (("heaviest", order[:EXTREMES]), ("lightest", order.flip(0)[:EXTREMES])):
            train = raw.source.train
            found[name] = _show(raw, train, rows, sound)
            found[f"{name}_weights"] = pair.weights.cpu()[rows]
    return {name: tensor.contiguous() for name, tensor in found.items()}


def pack_labels(labels: Tensor, task: Task) -> Tensor:
    """Class numbers as int16; a quantity as float32 in its unit."""
    return labels.to(torch.int16) if task.classes else task.to_unit(labels.double()).float()


def _show(raw: Pair, split: Split, rows: Tensor, sound: SoundInfo | None) -> Tensor:
    """These rows as a figure shows them: thumbnails, spectrograms, texts or the numbers of a table."""
    if raw.input == "text":
        return pack_texts(split, rows)
    if sound:
        return draw_spectrograms(split, rows, sound)
    return thumbnails(split, rows) if raw.input == "images" else split.take(rows).float().cpu()


def pack_texts(split: Split, rows: Tensor) -> Tensor:
    """The beginning of these texts as bytes (n, longest) of UTF-8, zeros behind the shorter ones."""
    assert isinstance(split, InMemory) and split.texts is not None
    texts = [" ".join(split.texts[int(row)].split()) for row in rows]
    held = [f"{text[: LETTERS - 1]}…" if len(text) > LETTERS else text for text in texts]
    encoded = [text.replace("\0", "").encode("utf-8", "replace") for text in held]
    longest = max(map(len, encoded), default=0)
    packed = b"".join(text.ljust(longest, b"\0") for text in encoded)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8).view(len(encoded), longest)


def components(*sides: Tensor) -> list[Tensor]:
    """The leading principal components of all rows together, at most 32, split back by side: (n, k) float32.

    The sign of a component is that of its largest loading, so that the same rows give the same points.
    """
    rows = torch.cat(sides).double()
    rows = rows - rows.mean(0)
    _, _, loadings = torch.linalg.svd(rows, full_matrices=False)
    loadings = loadings[:WIDTH]
    largest = loadings.gather(1, loadings.abs().argmax(1, keepdim=True))
    points = (rows @ (loadings * largest.sign()).T).float()
    return list(points.split([len(side) for side in sides]))


def thumbnails(split: Split, rows: Tensor) -> Tensor:
    """These images as bytes (n, c, h, w), their longer side at most 40 pixels."""
    return shrink(split.take(rows).float().cpu())


def draw_spectrograms(split: Split, rows: Tensor, sound: SoundInfo) -> Tensor:
    """These waveforms as pictures of bytes (n, 1, h, w), low tones below, whose longer side has at most 40 pixels.

    Each is normalised by itself, however a model reads it.
    """
    front = LogMel(replace(sound, normalise="utterance"))
    return torch.cat([shrink(front(split.take(part).float().cpu()).flip(2)) for part in rows.split(HEARD)])


def shrink(x: Tensor) -> Tensor:
    """Images (n, c, h, w) in [0, 1] as bytes, their longer side at most 40 pixels."""
    scale = SIDE / max(x.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in x.shape[-2:]]
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    return (x * 255).round().clamp(0, 255).to(torch.uint8)
