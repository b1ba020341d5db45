"""tl-screen: rank sources, backbones and stages before any method is trained."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_runner import options
from tl_runner.cli.process import INTERRUPTED, ensure_streams, extend_path, find_config_dir
from tl_runner.errors import DivergedError, UserError, nearest
from tl_runner.plurals import count_noun

if TYPE_CHECKING:
    from rich.console import Console

    from tl_runner.engine.job import Job
    from tl_runner.engine.screen import Distance, Screened

USED = (
    "dataset", "backbone", "pretrain", "augment", "seed", "granted", "device", "threads", "outputs",
    "checkpoint_every", "stage", "distance", "vectors",
)  # fmt: skip
OWN = ("stage", "distance", "vectors")  # which tl-run has not
BY = ("leep", "nce", "logme", "h_score", "bound", "estimated", "a_distance", "mmd", "words")
EXAMPLES = """examples:
  tl-screen dataset=digits backbone=small,resnet18             which backbone, by how far apart the domains lie in it
  tl-screen dataset=digits granted=5 stage=all                 which stage, by 5 target labels a class
  tl-screen dataset=image_folder dataset.root=photos dataset.source=studio,web,sketch dataset.target=phone granted=5
  tl-screen backbone=resnet18 backbone.weights=null,imagenet pretrain=none dataset.size=32
  tl-screen stage=all granted=10 --format csv > stages.csv
  tl-screen dataset=reviews backbone=bag_of_embeddings distance=word2vec [vectors=FILE]      and how alike words are

Keys and options are those of tl-run (tl-run --help); several values are all combinations. Scores that need labels
(LEEP, NCE, LogME, H-score; LogME alone of a quantity) take the target's only from granted=, else the source's
validation labels, and say so.
What is trained is the source model, by pretrain= (none: the backbone as it is); it is kept and shared with tl-run.
"""


def main() -> None:
    """The command `tl-screen`."""
    ensure_streams()
    parser = argparse.ArgumentParser(
        prog="tl-screen",
        description="Rank sources, backbones and stages, before any method is trained on them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", metavar="KEY=VALUE", nargs="*", help=f"of {', '.join(USED)}: all, or names; by default the last"
    )
    parser.add_argument(
        "--by",
        choices=BY,
        help="sort by this (default: logme on granted labels, else bound or, of a quantity, a_distance)",
    )
    parser.add_argument("--runs", metavar="PATH", type=Path, action="append", help="runs to compare with (outputs)")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="a folder with options of your own")
    said = parser.parse_intermixed_args()
    try:
        sys.exit(_screen(said))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _screen(said: argparse.Namespace) -> int:
    """Screen what the words name, and print it in the format that was asked for; the exit code."""
    from tl_runner.cli.hydra_errors import reword_error
    from tl_runner.report.consoles import complain, consoles, show_warnings
    from tl_runner.storage.record import read_records

    console, errors = consoles()
    show_warnings(errors)
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    folders: list[Path] = []
    started = time.monotonic()
    try:
        folders = find_config_dir(said.config_dir)
        extend_path(folders)
        words, own = _take_own(said.words)
        stages, distance = _read_stages(own), _read_distance(own)
        from tl_runner.sweep.combinations import compose_combinations

        jobs = compose_combinations(words, folders, USED)
    except Exception as error:
        if full_error:
            raise
        complain(errors, reword_error(error, said.words, [options.conf(), *folders], several=True))
        return 1
    screened, failed = [], 0
    for number, job in enumerate(jobs, 1):
        if errors.is_terminal:
            errors.print(f"{number}/{len(jobs)} {_name(job)}", highlight=False, markup=False)
        try:
            found = _candidates(job, stages, distance, errors)
        except Exception as error:  # whatever a backbone of a user's raises: the others are screened all the same
            if full_error:
                raise
            known = isinstance(error, UserError | DivergedError)
            complain(errors, f"{_name(job)}: {error if known else f'{type(error).__name__}: {error}'}")
            failed += 1
        else:
            screened += [(candidate, job.variant) for candidate in found]
    if not screened:
        return 1
    missing = [f"{path} does not exist" for path in said.runs or () if not path.exists()]
    runs, faults = read_records(said.runs or [jobs[0].record.outputs])
    for fault in [*missing, *faults]:
        complain(errors, fault, "warning: ", "yellow")
    from tl_runner.report import screening

    groups = screening.group_by_target(screened, said.by, runs)
    if said.format == "table":
        console.print(*screening.tables(groups, console.width), sep="\n")
        ranked = sum(len(group.candidates) for group in groups)
        seconds = f"{count_noun(ranked, 'candidate')} in {time.monotonic() - started:.1f} s"
        console.print(seconds, style="dim", highlight=False)
    else:
        text = screening.as_csv(groups) if said.format == "csv" else screening.as_json(groups)
        console.file.write(text.rstrip("\n") + "\n")
    return int(failed > 0 or missing != [])


def _take_own(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words for Hydra, and the values of `OWN`; of several of a key the last one counts, as with any key."""
    own = {key: value for key, _, value in (word.partition("=") for word in words) if key in OWN}
    return [word for word in words if word.partition("=")[0] not in own], own


def _read_stages(own: Mapping[str, str]) -> tuple[str, ...]:
    stages = tuple(filter(None, own.get("stage", "").strip("[]").split(",")))
    if "stage" in own and not stages:
        raise UserError("stage takes all, or names of stages, as in stage=conv1,conv2")
    return stages


def _read_distance(own: Mapping[str, str]) -> "Distance | None":
    """What `distance=word2vec` and `vectors=FILE` ask for."""
    name, file = own.get("distance"), own.get("vectors")
    if name is None:
        if file is not None:
            raise UserError("vectors=FILE are vectors of words to compare by: it needs distance=word2vec")
        return None
    if name != "word2vec":
        raise UserError(f"distance={name}: possible: word2vec{nearest(name, ['word2vec'])}; the others are always had")
    if file == "":
        raise UserError("vectors takes a file of word2vec's format, as in vectors=words.txt")
    from tl_runner.engine.screen import Distance

    return Distance("word2vec", Path(file).expanduser() if file else None)


def _candidates(job: "Job", stages: Sequence[str], distance: "Distance | None", errors: "Console") -> "list[Screened]":
    """The candidates of an order; the training of its source model is shown, and said how long it took."""
    from tl_runner.engine.screen import screen
    from tl_runner.report.live import watch_training

    found = watch_training(screen(job.record, stages, distance), job.record, errors)
    told = [f"word vectors {found[0].words}"] if found[0].words else []
    if (source := job.record.training.source_model) and not source.shared:
        steps = count_noun(source.steps, "step")
        told.append(f"trained a source model of {steps} in {source.seconds:.1f} s (cached)")
    for text in told:
        errors.print(f"{_name(job)}: {text}", style="dim", highlight=False, markup=False, soft_wrap=True)
    return found


def _name(job: "Job") -> str:
    choices = job.record.choices
    return " ".join(filter(None, [choices["dataset"], choices["backbone"], job.variant, f"seed={job.record.seed}"]))
