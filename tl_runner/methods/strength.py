"""The weight of a loss term over the course of training."""

from tl_runner.errors import check_range
from tl_runner.functional import losses


class Strength:
    """weight · schedule(p), p the fraction of training done: see `losses.scheduled`."""

    def __init__(self, weight: float, schedule: losses.Schedule):
        check_range(0, weight=weight)
        self.weight = weight
        self.schedule: losses.Schedule = schedule

    def __call__(self, progress: float) -> float:
        return self.weight * losses.scheduled(self.schedule, progress)
