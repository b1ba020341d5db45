"""What stands before a backbone where rows are no pictures or numbers: a tokenizer, or the spectrogram of sound."""

from collections import OrderedDict
from typing import Any

from tl_runner.errors import UserError
from tl_runner.models.backbones import Backbone, Stages
from tl_runner.models.spectrogram import LogMel
from tl_runner.models.tokens import Tokenizer
from tl_runner.storage.sections import SoundInfo


def build_backbone(
    backbone: Any, shape: tuple[int, ...], tokenizer: Tokenizer | None = None, sound: SoundInfo | None = None
) -> Backbone:
    """A backbone for inputs of this shape, and its width.

    Of waveforms (1, samples) it sees log-mel spectrograms (1, mels, frames), which a first stage `spectrogram` makes.
    """
    if tokenizer is not None:
        return backbone(shape, tokenizer)
    if sound is None:
        return backbone(shape)
    spectrogram = LogMel(sound)
    columns = spectrogram.count_frames(shape[-1])
    try:
        behind, width = backbone((1, sound.mels, columns))
    except UserError as error:
        seen = f"{sound.mels} bands (dataset.mels) × {columns} columns (by dataset.hop)"
        raise UserError(f"{error}. Of sound it sees the spectrogram: {seen}") from error
    stages = Stages(OrderedDict([("spectrogram", spectrogram), *behind.named_children()]))
    stages.settled = getattr(behind, "settled", {})
    return stages, width
