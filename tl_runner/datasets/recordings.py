"""Many sound files as waveforms of one rate and length, decoded once: see `decoded_once`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.decoded_once import Decoder, File, decode_once
from tl_runner.datasets.recording import Header, Met, has_known_rate, import_soundfile, measure_recording, try_recording
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun, pluralize

log = logging.getLogger(__name__)

VERSION = 3  # of what is stored: to be raised when the same files would give other bytes
UNLIKE = 2.0  # ratio of the domains' median lengths from which that is said
SHARE, LONGEST = 0.9, 4.0  # of the files, that `seconds=auto` keeps whole, and the seconds that it takes at most


class Recordings(NamedTuple):
    """x (n, 1, samples) int16, memory-mapped: the files that can be read, in the order given; why others can't be."""

    x: Tensor
    bad: dict[int, str]
    met: Met


class Cut(NamedTuple):
    """What is kept of each recording: its rate in Hz, and how many samples."""

    sample_rate: int
    samples: int


def choose_cut(
    files: Mapping[str, Sequence[Path]], sample_rate: int | Literal["auto"], seconds: float | Literal["auto"]
) -> Cut:
    """The rate and the length as they are said, else by the files' headers, of both domains together.

    The rate is the lowest of all, so that no domain has frequencies which another lacks; the length keeps nine of ten
    files whole, and is 4 s at most. Files whose header can't be read do not count.
    """
    if sample_rate != "auto" and seconds != "auto":
        return Cut(sample_rate, max(1, round(seconds * sample_rate)))
    headers = {role: [*_read_headers(paths)] for role, paths in files.items()}
    every = [header for each in headers.values() for header in each]
    if not every:
        first = next(path for paths in files.values() for path in paths)
        raise UserError(f"no header of a sound file can be read, such as that of {str(first)!r}")
    rate = min(header.sample_rate for header in every) if sample_rate == "auto" else sample_rate
    if seconds == "auto":
        _compare_lengths(headers)
        seconds = min(LONGEST, float(np.quantile([each.seconds for each in every], SHARE, method="higher")))
    told = "; ".join(f"the {role}'s: {_describe(each)}" for role, each in headers.items() if each)
    cut = Cut(rate, max(1, round(seconds * rate)))
    log.info("recordings are used as %d samples at %d Hz (%s)", cut.samples, cut.sample_rate, told)
    rates = {header.sample_rate for header in every}
    if len(rates) > 1 and sample_rate == "auto":
        log.warning(
            "the recordings have different rates (%s): all are resampled to the lowest, %d Hz; dataset.sample_rate says"
            " another",
            told, rate,
        )  # fmt: skip
    return cut


def _compare_lengths(headers: Mapping[str, Sequence[Header]]) -> None:
    """Warn where the recordings of one role are much shorter: the silence around them would tell the domains apart."""
    medians = {
        role: float(np.median([each.seconds for each in of_role])) for role, of_role in headers.items() if of_role
    }
    shortest, longest = (choose(medians, key=lambda role: medians[role]) for choose in (min, max))
    if medians[longest] > UNLIKE * medians[shortest]:
        log.warning(
            "the %s's recordings last %.2g s and the %s's %.2g s (medians): silence around the shorter ones tells the"
            " domains apart; dataset.seconds cuts the longer ones",
            shortest, medians[shortest], longest, medians[longest],
        )  # fmt: skip


def _read_headers(paths: Sequence[Path]) -> Iterator[Header]:
    for path in paths:
        try:
            header = measure_recording(path)
        except UserError:
            raise
        except Exception:  # whatever a damaged file makes libsndfile raise: decoding names it and says why
            continue
        if header.samples and has_known_rate(header):
            yield header


def _describe(headers: Sequence[Header]) -> str:
    rates = " and ".join(f"{rate} Hz" for rate in sorted({each.sample_rate for each in headers}))
    seconds = [each.seconds for each in headers]
    return f"{rates}, {min(seconds):.2g} to {max(seconds):.2g} s"


def decode_recordings(files: Sequence[File], cut: Cut, cache: Path, name: str) -> Recordings:
    """The files as waveforms, from the cache or by way of it; `name` is what to call them."""
    made_by = (VERSION, import_soundfile().__libsndfile_version__, version("scipy"), *cut)  # the latter resamples
    decoder = Decoder("recording", 2 * cut.samples, made_by, partial(_decode, cut=cut), Met(), Met.read,
                      "dataset.seconds or dataset.sample_rate")  # fmt: skip
    rows = decode_once(files, decoder, cache, name)
    return Recordings(rows.x.view(torch.int16)[:, None], rows.bad, rows.told)


def _decode(file: File, cut: Cut) -> tuple[bytes, Met] | str:
    found = try_recording(file.path, *cut)
    return found if isinstance(found, str) else (found[0].numpy().tobytes(), found[1])


def tell_doubts(where: str, met: Met, cut: Cut) -> None:
    """Log what a person must hear of recordings that may be something else than was meant."""
    length = f"{cut.samples / cut.sample_rate:g} s"
    for n, said in (
        (met.silent, "silent in the part that is used"),
        (met.clipped, "clipped: 1 % of the samples or more are at full scale"),
        (met.beyond, "louder than full scale, as files of floats may be: cut off there"),
        (met.raised, f"of a lower rate than {cut.sample_rate} Hz, and empty above half of it (dataset.sample_rate)"),
        (met.longer, f"longer than {length}: the middle is used (dataset.seconds)"),
    ):
        if n:
            log.warning("%s: %s %s %s", where, count_noun(n, "recording"), pluralize(n, "is"), said)
    for n, said in (
        (met.shorter, f"shorter than {length}: used in the middle of silence"),
        (met.mixed, "of several channels: their mean is used"),
        (met.resampled, f"resampled to {cut.sample_rate} Hz"),
    ):
        if n:
            log.info("%s: %s %s %s", where, count_noun(n, "recording"), pluralize(n, "is"), said)
