"""Runs made side by side in one process: what they read alike is read once, and they train as one program.

Each is made by `engine.run` as ever, with its own folder, record, curve and checkpoint. They take turns, a point each.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from tl_runner.engine.job import Job, Outcome, collect_warnings, follow_job
from tl_runner.engine.run import run
from tl_runner.engine.shared_data import Shared
from tl_runner.storage.sections import FUSED
from tl_runner.training.loop import Point
from tl_runner.training.stack import Seat, Stack


def run_group(jobs: Sequence[Job], should_stop: Callable[[Job], bool], full_error: bool = False) -> Iterator[Outcome]:
    """Make the jobs' runs, and yield the outcome of each as soon as it is known. An error in one ends that one only."""
    stack, shared = Stack(), Shared()
    seats = {Seat(stack): job for job in jobs}
    at_work: dict[Seat, Iterator[Outcome | None]] = {}
    for seat, job in seats.items():
        make = partial(run, train=seat.train, shared=shared)
        turns = _split_into_turns(follow_job(job, partial(should_stop, job), full_error, make))
        outcome = None
        while not (seat.ready or outcome):  # up to where its training waits for the others
            outcome = next(turns)
        if outcome:
            seat.leave()
            yield outcome
        else:
            at_work[seat] = turns
    stack.begin()
    own = {seat: seats[seat].record.environment.engine for seat in at_work}
    while at_work:
        for seat, turns in [*at_work.items()]:
            seats[seat].record.environment.engine = own[seat] if seat.alone else FUSED
            if outcome := next(turns):
                seat.leave()
                del at_work[seat]
                yield outcome._replace(alone=seat.alone)


def _split_into_turns(points: Generator[Point, None, Outcome]) -> Iterator[Outcome | None]:
    """None for each point of a run, then its outcome. Its folder, threads and warnings are those of its turns alone."""
    home, threads, warnings = Path.cwd(), torch.get_num_threads(), list[str]()
    while True:
        torch.set_num_threads(threads)
        try:
            with collect_warnings(warnings):
                next(points)
        except StopIteration as end:
            yield end.value._replace(warnings=tuple(dict.fromkeys(warnings)))
            return
        finally:
            os.chdir(home)
        threads = torch.get_num_threads()
        yield None
