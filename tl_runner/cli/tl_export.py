"""tl-export: a run's model as a file for other programs."""

import argparse
import logging
from pathlib import Path

from tl_runner.cli.process import ensure_streams, extend_path, find_config_dir, run_command

log = logging.getLogger(__name__)

DESCRIPTION = """\
Write the model of a finished run as one file that runs without tl_runner, and check that it computes the same.
It takes inputs as the run's dataset gave them (images: pixels from 0 to 1; its normalisation is in the file. Texts:
token ids of any length up to the run's; the tokenizer is in the file's metadata. Sound: waveforms from -1 to 1, at the
run's rate and of its length; the spectrogram is made in the file), any number of rows a call, as `input`, and gives the
softmax `probabilities` of the classes."""
NOTES = """\
formats:
  onnx         for ONNX Runtime and others; needs pip install "tl_runner[export]"
  pt2          for PyTorch: torch.export.load(FILE).module()
  torchscript  for older PyTorch and its C++ library: torch.jit.load(FILE); PyTorch calls it deprecated

The class names and how inputs are made of files stand in the file too: as metadata of an ONNX model, else as its
extra file tl_runner.json. The file is compared with the model on samples, half of them of the run's test split where
its files can be found, or images that the run keeps for figures; the others are random. If a probability is off by
more than 1e-4, no file is left.

examples:
  tl-export outputs/runs/digits/mmd-small-s0-0123456789 --to onnx
  tl-export RUN --to pt2 --out classifier.pt2
"""


def main() -> None:
    """The command `tl-export`."""
    ensure_streams()
    parser = argparse.ArgumentParser(
        prog="tl-export", description=DESCRIPTION, epilog=NOTES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run, which holds run.json")
    parser.add_argument("--to", choices=["onnx", "torchscript", "pt2"], required=True, help="the format")
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: model.onnx, … in the run's folder")
    parser.add_argument("--samples", metavar="N", type=int, default=256, help="number of samples to check it on (256)")
    parser.add_argument(
        "--domain",
        choices=["target", "source"],
        default="target",
        help="whose BatchNorm statistics normalise the inputs",
    )
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="where the code of the run's backbone lies")
    asked = parser.parse_args()
    run_command(lambda: _export(asked))


def _export(asked: argparse.Namespace) -> None:
    extend_path(find_config_dir(asked.config_dir))
    import torch

    from tl_runner.errors import UserError, check_range
    from tl_runner.inference.export import SUFFIXES, export, name_output
    from tl_runner.inference.load import load, read_finished
    from tl_runner.inference.samples import samples
    from tl_runner.storage.sheet import writable

    check_range(3, 10**6, samples=asked.samples)
    trained, record = load(asked.run, asked.domain), read_finished(asked.run)
    out = writable(
        asked.out or asked.run / f"model{SUFFIXES[asked.to]}", lambda file: file.suffix == SUFFIXES[asked.to]
    )
    if other := [to for to, suffix in SUFFIXES.items() if out.suffix == suffix and to != asked.to]:
        raise UserError(f"--out {out} is named as --to {other[0]} writes it, and this is --to {asked.to}")
    tried = samples(trained, record, asked.samples)
    if tried.why:
        log.info("checked on random inputs alone: %s", tried.why)
    facts = {
        "run": record.id,
        **record.choices,
        "domain": asked.domain,
        "tl_runner": record.environment.versions["tl_runner"],
    }
    file, difference = export(trained, tried.x, asked.to, out, facts)
    text = tried.x.dtype == torch.int64
    shape = f"1 to {tried.x.shape[1]}) int64" if text else f"{', '.join(map(str, tried.x.shape[1:]))}) float32"
    print(
        f"{file}: {file.stat().st_size / 1e6:.1f} MB, input (n, {shape} -> {name_output(trained.model)} (n,"
        f" {trained.model.task.outputs}); on {len(tried.x)} samples ({tried.real} of the run's data,"
        f" {len(tried.x) - tried.real} random) they differ from the model's by at most {difference:.1e}"
    )
