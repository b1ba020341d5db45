"""From a run's record to the way its inputs are made of files."""

from collections.abc import Mapping
from typing import Any

from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.pixel_format import PixelFormat
from tl_runner.models.tokens import Tokenizer
from tl_runner.preprocessing.batching import Preprocessing, Unknown
from tl_runner.preprocessing.images import RGB, Images
from tl_runner.preprocessing.sounds import Sounds
from tl_runner.preprocessing.tables import Columns
from tl_runner.preprocessing.texts import Texts
from tl_runner.storage.sections import DataInfo

IMAGE = 3  # dimensions of an input: channels, height, width


def read_preprocessing(data: DataInfo, dataset: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> Preprocessing:
    """The preprocessing of a run, by its record's `data` and the `dataset` node of its configuration; pure.

    Texts where the run kept a tokenizer of them, sound where the record says how a model reads it, images where an
    input has three dimensions, a table where the record holds the encoding of its columns.
    """
    shape = tuple(data.shape)
    target = dataset.get("_target_", "?")
    if tokenizer is not None:
        return Texts(tokenizer, dataset.get("text", Texts.column), _dialect(dataset))
    if data.sound is not None:
        return Sounds(data.sound.sample_rate, shape[-1], dataset.get("shift", Sounds.shift))
    if len(shape) == IMAGE:
        return _images(shape, data, target)
    if not data.encoding or "columns" not in data.encoding:
        return Unknown(f"the rows of this run come from {target}, not from files", shape)
    named = (dataset.get(key) for key in ("label", "domain", "split", "group", "time"))
    known = frozenset({*filter(None, named), *dataset.get("drop", ())})
    literal = frozenset(dataset.get("categorical", ()))
    return Columns(data.encoding, _dialect(dataset), known, literal)


def _dialect(dataset: Mapping[str, Any]) -> Dialect:
    """How the run's files were written; a record from before an option has what was the only way then."""
    return Dialect.parse(**{name: dataset[name] for name in Dialect.__dataclass_fields__ if name in dataset})


def _images(shape: tuple[int, ...], data: DataInfo, target: str) -> Images | Unknown:
    channels, height, width = shape
    resize, (low, high) = data.resize, data.range
    if resize not in ("pillow", "torch"):
        return Unknown("this run's record does not say how its images were resized; rerun it", shape)
    pixel_format = PixelFormat(**(data.pixel_format or {}))
    if channels not in (1, RGB, pixel_format.bands):
        return Unknown(f"the images of {target} have {channels} channels, and those of a file 1 or 3", shape)
    if low < 0 or high > 1:
        return Unknown(f"the pixels of {target} go from {low:g} to {high:g}, and those of a file from 0 to 1", shape)
    return Images(channels, height, width, resize, pixel_format)
