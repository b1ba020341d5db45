"""Recordings of the target's test split as spectrograms: which changed class between two settings."""

from collections.abc import Sequence
from pathlib import PurePath

from tl_runner.report.page.changed_rows import find_changed
from tl_runner.report.page.figure import Figure, Gallery, LabelledPicture
from tl_runner.report.page.pictures import RIGHT, shorten_names, uri
from tl_runner.report.page.run_files import RunFiles


def draw_sounds(name: str, title: str, runs: Sequence[RunFiles], names: Sequence[str]) -> Figure:
    """Of two runs the recordings whose class changes from the first to the second; of one those that it gets wrong."""
    images = runs[0].diagnosis("target_spectrograms")
    assert images is not None
    found = find_changed("recording", len(images), runs, names)
    if isinstance(found, str):
        return Figure(name, title, missing=found)
    files, short = runs[0].test_names, shorten_names(names)
    pictures = []
    for row, true, predicted in zip(found.rows, found.true, found.predicted, strict=True):
        called = PurePath(files[row]).name if row < len(files) else f"test row {row}"
        lines = [(f"{setting}: {said}", right) for setting, (said, right) in zip(short, predicted, strict=True)]
        words = "; ".join(f"{text}, {RIGHT[right]}" for text, right in lines)
        words = f"spectrogram of {called}, true class {true}. {words}"
        pictures.append(LabelledPicture(uri(images[row]), words, [(called, None), (true, None), *lines]))
    caption = (
        f"{found.caption} Below a spectrogram (time to the right, low tones below) stand the recording's name, its true"
        " class, and what each setting predicts."
    )
    told = [f"{each} is {setting}" for each, setting in zip(short, names, strict=True) if each != setting]
    caption += f" {', '.join(told)}." if told else ""
    galleries = [Gallery(found.heading, pictures)] if pictures else []
    return Figure(name, title, caption, galleries=galleries, missing="" if pictures else f"{found.heading}.")
