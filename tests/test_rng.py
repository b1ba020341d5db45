"""Randomness by name."""

import torch

from tl_runner.rng import Rng, rows

STREAM = Rng(0).child("source")


def test_a_stream_is_one_however_it_is_asked_for():
    """The seeds are pinned: stored runs were made with them."""
    rng = Rng(3)
    assert rng.seed == 3 and rng.child("a", 1) == rng.child("a").child(1)
    assert rng.child("digits").seed == 1185787141732612655
    assert torch.equal(torch.rand(3, generator=rng.generator()), torch.rand(3, generator=rng.generator()))
    assert rng.child("a").numpy().random() == rng.child("a").numpy().random() != rng.child("b").numpy().random()


def test_rows_are_whole_epochs_in_a_new_order_each():
    drawn = [rows(STREAM, 10, 4, step) for step in range(10)]  # four epochs of ten, in batches of four
    assert all(len(batch) == 4 for batch in drawn)
    epochs = torch.cat(drawn).view(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_rows_are_a_function_of_their_arguments_alone():
    first = rows(STREAM, 100, 8, 57)
    assert torch.equal(first, rows(Rng(0).child("source"), 100, 8, 57))
    others = [(Rng(1).child("source"), 57), (Rng(0).child("target"), 57), (STREAM, 58)]
    assert all(not torch.equal(first, rows(rng, 100, 8, step)) for rng, step in others)


def test_a_stream_shorter_than_a_batch_is_drawn_whole():
    assert sorted(rows(STREAM, 5, 64, 3).tolist()) == list(range(5))


def test_seeds_differ_by_name_and_fit_torch():
    seeds = {Rng(seed).child(name).seed for seed in range(50) for name in ("model", "split", "critic")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_as_default_leaves_the_default_generator_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with Rng(0).child("x").as_default():
        first = torch.rand(3)
    with Rng(0).child("x").as_default():
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(torch.rand(3), expected)
