"""A sweep on this machine: jobs in, outcomes out, as many at a time as there are slots."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from tempfile import TemporaryDirectory

from tl_runner.engine.job import Job, Outcome, find_skippable
from tl_runner.plurals import count_noun
from tl_runner.sweep.slots import Slot
from tl_runner.sweep.workers import Taken, Worker

log = logging.getLogger(__name__)

TICK = 0.2  # seconds between looks at whether the sweep shall stop
DIED = "the process that trained it in a stack died"


def run_locally(
    groups: Iterator[Sequence[Job]],
    places: Sequence[Slot],
    asked: Callable[[], bool],
    full_error: bool,
    under_way: Callable[[Sequence[Job]], None] = lambda running: None,
    unpromising: Callable[[Job], bool] = lambda job: False,
) -> Iterator[Outcome]:
    """Make the jobs, those of a group by one process, side by side; yield what became of each as soon as it is known.

    A group is drawn when a slot is free and the outcomes before have been taken, so that who draws it may learn from
    those. If the process of a group dies, each of its jobs is made by itself, so that the one that killed it fails
    alone. `under_way` is told what runs now, every TICK; a run that is `unpromising` then is stopped. When the sweep is
    `asked` to stop, running jobs leave a checkpoint and end, and the groups that are left are waiting. A worker that
    is still at work when this generator is closed is killed.
    """
    free = list(places)
    workers: list[Worker] = []
    idle: list[Worker] = []
    busy: dict[Future[list[Outcome]], Worker] = {}
    stopping: set[Path] = set()
    again: list[Sequence[Job]] = []
    killed: set[Path] = set()  # runs that are made again
    scratch = TemporaryDirectory(prefix="tl-run-", ignore_cleanup_errors=True)
    try:
        more = True
        while more or busy or again:
            while (more or again) and (idle or free):
                group = again.pop(0) if again else next(groups, None)
                if group is None:
                    more = False
                    break
                known = [_find_outcome(job, asked()) for job in group]
                yield from filter(None, known)
                if left := [job for job, outcome in zip(group, known, strict=True) if outcome is None]:
                    if not idle:
                        workers.append(Worker(free.pop(0), Path(scratch.name), full_error))
                        idle.append(workers[-1])
                    worker = idle.pop()
                    busy[worker.give(left)] = worker
            under_way([job for worker in busy.values() for job in worker.jobs])
            for future in _over(busy):
                worker = busy.pop(future)
                idle.append(worker)
                taken = worker.take()
                again += _split_up(taken)
                killed |= {job.record.folder for job in taken.again}
                yield from (
                    each._replace(alone=DIED) if each.record.folder in killed else each for each in taken.outcomes
                )
            for worker in busy.values():
                for job in worker.jobs:
                    if job.record.folder not in stopping and (asked() or unpromising(job)):
                        stopping.add(job.record.folder)
                        worker.stop(job)
    finally:
        for worker in workers:
            worker.close()
        scratch.cleanup()


def _split_up(taken: Taken) -> list[Sequence[Job]]:
    """The jobs of a group whose process died, each by itself."""
    if taken.again:
        those = count_noun(len(taken.again), "run")
        log.warning("the process of %s side by side %s; each is made by itself now", those, taken.error)
    return [[job] for job in taken.again]


def _over(busy: Mapping[Future[list[Outcome]], Worker]) -> set[Future[list[Outcome]]]:
    """What workers are through with, or have left; waits a TICK for it."""
    done, _ = wait(busy, timeout=TICK, return_when=FIRST_COMPLETED)
    return done | {future for future, worker in busy.items() if worker.gone}


def _find_outcome(job: Job, stopping: bool) -> Outcome | None:
    """What becomes of a job without being made; None where it is to be made."""
    if stopping:
        return Outcome(job.record, job.variant, "queued")
    try:
        earlier = find_skippable(job.record)
    except Exception:  # the worker meets it too, as an error of this run alone
        return None
    return Outcome(earlier, job.variant, "skipped", earlier.error or "") if earlier else None
