"""Results that are remembered by content."""

import torch
from torch import Tensor

from tl_runner.functional.remembered import MOST, remember_results


def counted():
    calls: list[int] = []

    @remember_results
    def add_up(x: Tensor, power: int = 1) -> float:
        calls.append(1)
        return float((x**power).sum())

    return add_up, calls


def test_equal_tensors_are_asked_once_and_any_other_argument_again():
    add_up, calls = counted()
    x = torch.arange(6.0)
    for same in (x, x.clone(), torch.arange(12.0).view(6, 2)[:, 0] / 2):
        assert add_up(same) == 15
    assert len(calls) == 1
    for other in (x.view(2, 3), x.double(), torch.nextafter(x, x + 1), x.flip(0)):
        add_up(other)
    assert len(calls) == 5
    assert add_up(x, 2) == 55 == add_up(x, power=2)
    assert len(calls) == 7


def test_the_results_that_were_asked_for_last_stay():
    add_up, calls = counted()
    for n in range(MOST):
        add_up(torch.full((1,), float(n)))
    add_up(torch.zeros(1))
    add_up(torch.full((1,), -1.0))  # in place of 1, not of 0
    assert len(calls) == MOST + 1
    add_up(torch.zeros(1))
    assert len(calls) == MOST + 1
    add_up(torch.ones(1))
    assert len(calls) == MOST + 2


def test_other_threads_compute_other_bits():
    add_up, calls = counted()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            add_up(torch.ones(3))
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 2
