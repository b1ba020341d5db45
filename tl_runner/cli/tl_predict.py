"""tl-predict: what a run's model says of new images, rows, texts or sound."""

import argparse
import logging
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tl_runner.cli.process import ensure_streams, extend_path, find_config_dir, run_command
from tl_runner.plurals import count_noun, pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tl_runner.inference.load import Trained
    from tl_runner.preprocessing.batching import Input

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds after which progress is printed
DESCRIPTION = """\
Predict new images, table rows, texts or sound with the model of a finished run, prepared as the run's own were.
Prints CSV: path, predicted (class), probability (of that class), then the probability of every class; of a run that
predicts a quantity: path, predicted (value)."""
NOTES = """\
A run on images takes image files of any size, and folders: all images in them, at any depth, sorted. The central
part is resized to the size of the run's own images. A run on tables takes CSV files with the columns it learnt from,
in any order; its rows are named FILE:LINE, where the header is line 1, and none is left out. A run on texts takes
.txt files of a text each, CSV files and JSON lines with the column that it read (dataset.text), and folders of them.
A run on sound takes sound files of any rate and length, and folders: resampled, and cut or padded, as its own were.

examples:
  tl-predict outputs/runs/image_folder/mmd-small-s0-0123456789 photos/ one_more.jpg --out predictions.csv
  tl-predict outputs/runs/csv/mmd-mlp-s0-0123456789 clinic_c.csv
  tl-predict outputs/runs/text/mmd-embedding_gru-s0-0123456789 review.txt reviews.jsonl
  tl-predict RUN --test    # the rows that the run was scored on, and whether the predictions are those it stored
"""


def main() -> None:
    """The command `tl-predict`."""
    ensure_streams()
    parser = argparse.ArgumentParser(
        prog="tl-predict", description=DESCRIPTION, epilog=NOTES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run, which holds run.json")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        type=Path,
        help="files of images, tables, texts or sound, or folders",
    )
    parser.add_argument("--test", action="store_true", help="the target's test split, by the test.csv of the run")
    parser.add_argument(
        "--out", metavar="FILE.csv", type=Path, help="write the CSV to this file, atomically (default: print it)"
    )
    parser.add_argument(
        "--on-bad", choices=["error", "skip"], default="error", help="at an image, a text or a sound that can't be read"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA if available")
    parser.add_argument(
        "--domain", choices=["target", "source"], default="target", help="whose BatchNorm statistics normalise the rows"
    )
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="where the code of the run's backbone lies")
    asked = parser.parse_intermixed_args()  # options may stand between RUN and the inputs
    if asked.test == bool(asked.inputs):
        parser.error("name at least one INPUT, or --test" if not asked.test else "--test takes no INPUT")
    if asked.test and asked.domain == "source":
        parser.error("--test predicts the target's test split: it takes no --domain source")
    run_command(lambda: _predict(asked))


def _predict(asked: argparse.Namespace) -> None:
    extend_path(find_config_dir(asked.config_dir))
    from tl_runner.engine.device import claim_device
    from tl_runner.errors import UserError
    from tl_runner.inference.inputs import list_inputs, list_test_inputs
    from tl_runner.inference.load import load, read_finished
    from tl_runner.inference.predict import OTHER, compare_with_stored
    from tl_runner.report.tables import format_percent
    from tl_runner.storage.sheet import is_sheet, open_sheet, writable

    device = claim_device(asked.device, None)
    trained = load(asked.run, asked.domain)
    chosen = (
        list_test_inputs(asked.run, trained.preprocessing)
        if asked.test
        else list_inputs(asked.inputs, trained.preprocessing)
    )
    out: Path | None = asked.out and writable(asked.out, is_sheet)
    trained.model.to(device)
    with open_sheet(out) as stream:
        found = _write_predictions(trained, chosen, stream, asked.on_bad)
    if out:
        log.info("wrote %s to %s", count_noun(len(found), "prediction"), out)
    if asked.test:
        record = read_finished(asked.run)
        rows, same, largest = compare_with_stored(found, record)
        told = (
            f"{same} of {count_noun(rows, 'row')} {pluralize(same, 'has')} the class of the run's stored predictions;"
            f" probabilities differ by at most {largest:.1e}"
        )
        if record.data.quantity:
            told = (
                f"{same} of {count_noun(rows, 'prediction')} {pluralize(same, 'is')} the run's stored one within"
                f" {OTHER} standard deviations; they differ by at most {largest:.1e}"
            )
        if largest > OTHER:
            raise UserError(f"{told}: these are not the rows that the run was scored on, or not in their order")
        log.log(logging.INFO if same == rows else logging.WARNING, told)
        if same == rows and record.headline is not None:
            score = "R²" if record.data.quantity else "accuracy"
            log.info("so their %s is the run's target %s, %s", score, score, format_percent(record.headline))


def _write_predictions(trained: "Trained", chosen: "Sequence[Input]", stream: IO[str], on_bad: str) -> "Tensor":
    """Write a line for each row; the predictions."""
    import torch

    from tl_runner.errors import UserError
    from tl_runner.inference.predict import predictions
    from tl_runner.storage.sheet import Sheet

    kept, done, skipped, told = [], 0, 0, time.monotonic()
    sheet = Sheet(stream, trained.classes)
    for predicted in predictions(trained, chosen):
        for name, why in predicted.bad.items():
            if on_bad == "error":
                raise UserError(f"{name}: {why}; --on-bad skip leaves such files out")
            log.warning("skipped: %s: %s", name, why)
        if predicted.names:
            sheet.add(predicted.names, predicted.predicted.numpy())
        kept.append(predicted.predicted)
        done, skipped = done + len(predicted.names), skipped + len(predicted.bad)
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            log.info("predicted %s%s", count_noun(done, "row"), f" of {len(chosen)} files" if len(chosen) > 1 else "")
    if skipped:
        log.warning("%d of %s could not be read", skipped, count_noun(len(chosen), "file"))
    if not done:
        raise UserError("no input could be predicted")
    return torch.cat(kept)
