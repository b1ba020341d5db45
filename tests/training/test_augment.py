"""Views of images: seeded, whole, and refused where there is no image."""

import numpy as np
import pytest
import torch

from tl_runner.errors import UserError
from tl_runner.training.augment import none, shift, strong, weak


def images(n: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, 16, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("view", [shift, weak, strong])
def test_a_view_is_a_function_of_its_seed_and_leaves_its_input(view):
    x = images()
    before = x.clone()
    assert torch.equal(view(x, 7), view(x, 7)) and not torch.equal(view(x, 7), view(x, 8))
    assert torch.equal(x, before) and view(x, 7).shape == x.shape
    assert view(x, 7).min() >= 0 and view(x, 7).max() <= 1


def test_none_is_the_rows_themselves():
    x = images()
    assert none(x, 3) is x


def test_a_weak_view_is_the_image_padded_by_its_mirror_moved_and_perhaps_flipped():
    """Each result is one of all the moves of at most 2 by 2 pixels of the padded image, flipped or not."""
    x = images(20)
    seen = set()
    for image, view in zip(x.numpy(), weak(x, 1, shift=0.125).numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        moves = {
            (down, right, flip): padded[:, down : down + 16, right : right + 12][:, :, :: -1 if flip else 1]
            for down in range(5)
            for right in range(5)
            for flip in (False, True)
        }
        matching = [move for move, moved in moves.items() if np.array_equal(moved, view)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) > 10 and {flip for *_, flip in seen} == {False, True}


def test_what_is_switched_off_does_nothing():
    x = images()
    assert torch.equal(weak(x, 1, shift=0.0, flip=False), x)
    assert torch.equal(shift(x, 1), weak(x, 1, flip=False)) and torch.equal(shift(x, 1, shift=0.0), x)
    flipped = weak(x, 1, shift=0.0)
    same = [torch.equal(a, b) for a, b in zip(flipped, x, strict=True)]
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, x, strict=True)]
    assert all(a != b for a, b in zip(same, turned, strict=True)) and 10 < sum(same) < 30
    torch.testing.assert_close(strong(x, 1, shift=0.0, flip=False, magnitude=0.0), x, atol=1e-5, rtol=0)


def test_a_strong_view_changes_more_the_larger_its_magnitude():
    x = images()
    change = [(strong(x, 1, 0.0, False, m) - x).abs().mean().item() for m in (0.1, 0.5, 1.0)]
    assert change == sorted(change) and change[0] > 0


@pytest.mark.parametrize("view", [shift, weak, strong])
def test_a_table_has_no_views(view):
    with pytest.raises(UserError, match="augment=none"):
        view(torch.rand(5, 7), 0)
