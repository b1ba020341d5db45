"""How far the trials of a search agree on the target's unlabelled validation rows."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from tl_runner.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def compute_agreements(trials: Sequence[Sequence[str]]) -> list[float]:
    """For each trial the share of rows on which it says what the mean prediction of all trials says.

    A trial is given as the folders of its runs, one for each seed, in the same order of seeds: runs are compared with
    those of their own seed, which have the same rows, and the shares are averaged. A run of several trials counts once.
    The order of the trials does not matter.
    """
    from tl_runner.functional.label_free import agreement

    by_seed = [agreement({run: read_validation(run) for run in sorted({*runs})}) for runs in zip(*trials, strict=True)]
    return [fmean(scores[run] for scores, run in zip(by_seed, runs, strict=True)) for runs in trials]


def read_validation(run: str) -> "Tensor":
    """The probabilities of the run's chosen checkpoint on the target's validation rows."""
    from safetensors.torch import load_file

    file = Path(run) / "validation.safetensors"
    if not file.is_file():
        raise UserError(
            f"{run} has no predictions to agree on (validation.safetensors): an earlier version made it, or they were"
            " deleted. Rerun with force=true, or choose another objective"
        )
    return load_file(file)["target"]
