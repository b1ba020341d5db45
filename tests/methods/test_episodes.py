"""Small tasks of source rows: how `rng.episodes` draws them."""

import pytest
import torch

from tl_runner.rng import Rng, episodes

LABELS = torch.tensor([3, 0, 1, 0, 3, 1, 0, 7, 3, 1, 0, 7, 7, 0, 1, 3])  # 0: 5 rows, 1: 4, 3: 4, 7: 3
SHAPE = (6, 3, 2, 1)  # tasks, ways, shots, queries


def drawn(step: int = 0, seed: int = 0, shape=SHAPE, stream: str = "source") -> torch.Tensor:
    return episodes(Rng(seed).child(stream), LABELS, shape, step)


def test_rows_are_in_the_order_task_class_row():
    for step in range(5):
        rows = drawn(step)
        assert rows.shape == (6 * 3 * 3,) and rows.dtype == torch.long
        for task in LABELS[rows].view(6, 3, 3):
            assert (task == task[:, :1]).all()  # the rows of a class together
            assert len(task[:, 0].unique()) == 3  # classes of a task differ
        for of_class in rows.view(18, 3):
            assert len(of_class.unique()) == 3  # so do rows: of queries none is a shot


def test_every_class_and_row_is_drawn_at_some_time_in_any_place():
    tasks = torch.stack([LABELS[drawn(step)].view(6, 3, 3)[:, :, 0] for step in range(20)]).flatten(0, 1)
    assert all(set(column.tolist()) == {0, 1, 3, 7} for column in tasks.T)
    assert len(torch.cat([drawn(step) for step in range(20)]).unique()) == len(LABELS)


def test_of_a_class_with_too_few_rows_they_come_again_but_none_is_left_out():
    rows = drawn(shape=(4, 4, 4, 3)).view(4, 4, 7)  # seven, of classes that have 3 to 5
    for of_class in rows.flatten(0, 1):
        members = torch.isin(LABELS, LABELS[of_class[0]]).nonzero().squeeze(1)
        counts = torch.tensor([(of_class == row).sum() for row in members])
        assert counts.sum() == 7 and counts.min() >= 1 and counts.max() <= -(-7 // len(members))


def test_they_are_a_function_of_seed_stream_and_step():
    first = drawn()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(first, drawn())
    assert torch.equal(state, torch.get_rng_state())  # the default generator is left alone
    others = [drawn(step=1), drawn(seed=1), drawn(stream="other")]
    assert all(not torch.equal(first, other) for other in others)


def test_fewer_classes_than_ways_raise():
    with pytest.raises(ValueError, match="tasks of 5 classes can't be drawn from 4"):
        drawn(shape=(1, 5, 1, 1))
