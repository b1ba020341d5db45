"""Runs made side by side in one process: what they read alike is read once, and they train as one program.

Each is made by `engine.run` as ever, with its own folder, record, curve and checkpoint. They take turns, a point each.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

from tl_runner.engine.job import Job, Outcome, follow_job
from tl_runner.engine.run import run
from tl_runner.engine.shared_data import Shared
from tl_runner.storage.sections import FUSED
from tl_runner.training.loop import Point
from tl_runner.training.stack import Seat, Stack


def run_group(jobs: Sequence[Job], should_stop: Callable[[Job], bool], full_error: bool = False) -> Iterator[Outcome]:
    """Make the jobs' runs, and yield the outcome of each as soon as it is known. An error in one ends that one only."""
    stack, shared = Stack(), Shared()
    at_work: dict[Seat, Generator[Point, None, Outcome]] = {}
    for job in jobs:
        seat = Seat(stack)
        make = partial(run, train=seat.train, shared=shared)
        at_work[seat] = follow_job(job, partial(should_stop, job), full_error, make)
    records = dict(zip(at_work, (job.record for job in jobs), strict=True))
    for seat, points in [*at_work.items()]:  # up to where its training waits for the others
        while not seat.ready and seat in at_work:
            yield from _take_turn(seat, points, at_work)
    stack.begin()
    own = {seat: record.environment.engine for seat, record in records.items()}
    while at_work:
        for seat, points in [*at_work.items()]:
            records[seat].environment.engine = FUSED if seat.fused else own[seat]
            yield from _take_turn(seat, points, at_work)


def _take_turn(
    seat: Seat, points: Generator[Point, None, Outcome], at_work: dict[Seat, Generator[Point, None, Outcome]]
) -> Iterator[Outcome]:
    """Make the next point of a run; its outcome where there is none."""
    home = Path.cwd()
    try:
        next(points)
    except StopIteration as end:
        seat.leave()
        del at_work[seat]
        yield end.value
    finally:
        os.chdir(home)  # which a method may have left
