"""Data: seeded, disjoint, and shifted as the name of the shift says."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tl_runner.datasets import shifts
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits, glyphs, handwritten, through_8x8
from tl_runner.datasets.split import Drawn, Raw, fingerprint, split_domains
from tl_runner.datasets.synthetic import STRENGTHS, blobs, synthetic
from tl_runner.errors import UserError
from tl_runner.rng import Rng
from tl_runner.storage.sections import SeedInfo

CPU = torch.device("cpu")
NOTHING = Budget("count", 0)


def source_of(drawn: Drawn) -> Raw:
    assert drawn.source is not None
    return drawn.source


def rows_of(x: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in x.contiguous().numpy()}


@pytest.mark.parametrize("load", [synthetic, blobs, digits])
def test_splits_are_disjoint_whole_and_a_function_of_the_seed(load):
    drawn = load(0, samples=200)
    pair, answers, data = split_domains(drawn, 0, NOTHING, CPU)
    source, labels = pair.labelled_source
    for role, domain, raw in (("source", source, source_of(drawn)), ("target", pair.target, drawn.target)):
        parts = [rows_of(split.take(torch.arange(len(split)))) for split in (domain.train, domain.val, domain.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(rows_of(raw.x))
        assert [len(domain.train), len(domain.val), len(domain.test)] == data.rows[role]
    assert len(labels.train) == len(source.train) and pair.target.labels is None
    assert len(answers.open()) == len(pair.target.test)
    again, _, same = split_domains(load(0, samples=200), 0, NOTHING, CPU)
    assert torch.equal(again.target.train.take(torch.arange(5)), pair.target.train.take(torch.arange(5)))
    assert same.fingerprint == data.fingerprint
    assert fingerprint(source_of(load(1, samples=200))) != data.fingerprint["source"]


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (synthetic, SeedInfo("independent", 40, None)),
        (blobs, SeedInfo("independent", 40, None)),
        (digits, SeedInfo("resplit", 360, 1797)),
        (partial(digits, source="handwritten"), SeedInfo("resplit", 181, 1797)),
    ],
)
def test_the_record_says_how_seeds_differ(load, told):
    """The handwritten digits are one pool, whichever half of them a seed makes the target."""
    assert split_domains(load(0, samples=200), 0, NOTHING, CPU)[2].seeds == told


def test_a_users_own_rows_are_taken_to_be_the_same_at_every_seed():
    """Re-split where the seed cuts the test split, fixed where it is given: the cautious reading of any function."""
    x, y = torch.arange(100, dtype=torch.float32)[:, None], torch.arange(100) % 2
    own = Raw("t", x, y, ("a", "b"))
    given = own._replace(part=torch.tensor([0] * 60 + [1] * 10 + [2] * 30))
    no_test = own._replace(part=torch.tensor([0] * 80 + [1] * 20))
    for raw, told in (
        (own, SeedInfo("resplit", 20, 100)),
        (given, SeedInfo("fixed", 30, 30)),
        (no_test, SeedInfo("resplit", 16, 80)),
    ):
        assert split_domains(Drawn(None, raw, {}), 0, NOTHING, CPU)[2].seeds == told
    assert split_domains(Drawn(None, own, {}, fresh=True), 0, NOTHING, CPU)[2].seeds.kind == "independent"
    assert split_domains(Drawn(None, own, {}, drawn_from=(500, 0, 0)), 0, NOTHING, CPU)[2].seeds.pool == 500


def test_a_given_test_split_has_the_same_order_at_every_seed():
    part = torch.tensor([0] * 60 + [2] * 40)
    x, y = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 2
    pairs = [
        split_domains(Drawn(None, Raw("t", x, y, ("a", "b"), part), {}), seed, NOTHING, CPU)[:2] for seed in (0, 1)
    ]
    (one, answers), (other, others) = pairs
    rows = torch.arange(40)
    assert torch.equal(one.target.test.take(rows), other.target.test.take(rows))
    assert torch.equal(answers.open(), others.open())
    assert not torch.equal(one.target.train.take(rows), other.target.train.take(rows))
    assert rows_of(one.target.test.take(rows)) == rows_of(x[60:])


def test_no_row_is_in_both_domains():
    for load in (synthetic, blobs):
        drawn = load(0, shift="none")
        assert not rows_of(source_of(drawn).x) & rows_of(drawn.target.x)
    halves = digits(0, source="handwritten")
    assert not rows_of(source_of(halves).x) & rows_of(halves.target.x)
    assert len(source_of(halves).x) + len(halves.target.x) == len(handwritten()[0])


def test_the_handwritten_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    x, y = handwritten()
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    assert torch.equal(x.flatten(1), torch.from_numpy(images / 16).float()) and y.tolist() == labels.tolist()


def test_labels_decide_nothing_about_where_a_row_goes():
    drawn = synthetic(0)
    permuted = drawn._replace(target=drawn.target._replace(y=drawn.target.y.flip(0)))
    first, second = (split_domains(d, 0, NOTHING, CPU)[0].target for d in (drawn, permuted))
    for part in ("train", "val", "test"):
        a, b = getattr(first, part), getattr(second, part)
        assert torch.equal(a.x, b.x)


def test_a_row_keeps_its_label():
    x = torch.arange(60, dtype=torch.float32)[:, None]
    abc, labels = ("a", "b", "c"), x[:, 0].long() % 3
    drawn = Drawn(Raw("s", x, labels, abc), Raw("t", x + 0.5, labels, abc), {})
    pair, answers, _ = split_domains(drawn, 0, Budget("count", 5), CPU)
    source, known = pair.labelled_source
    assert pair.granted is not None and pair.held_out is not None
    for part, labels in zip(("train", "val", "test"), known, strict=True):
        assert torch.equal(getattr(source, part).x[:, 0].long() % 3, labels)
    assert torch.equal((pair.target.test.take(torch.arange(12))[:, 0]).long() % 3, answers.open())
    assert torch.equal(pair.granted.x.take(torch.arange(12))[:, 0].long() % 3, pair.granted.y)


@pytest.mark.parametrize(
    ("granted", "per_class", "held_out"),
    [("0", 0, 0), ("1", 1, 0), (5, 4, 1), ("10", 8, 2), ("all", None, None), ("50%", None, None)],
)
def test_a_label_budget_is_kept_and_a_fifth_of_it_held_out(granted, per_class, held_out):
    drawn = blobs(0, classes=3)
    pair, _, data = split_domains(drawn, 0, Budget.parse(granted).settle(needed=False), CPU)
    if per_class is None:
        share = {"all": 1.0, "50%": 0.5}[granted]
        assert data.granted == pytest.approx(share * len(pair.target.train), abs=3)
        assert pair.held_out is not None and len(pair.held_out.y) == pytest.approx(data.granted / 5, abs=3)
        return
    counts = [0] * 3 if pair.granted is None else torch.bincount(pair.granted.y, minlength=3).tolist()
    kept = [0] * 3 if pair.held_out is None else torch.bincount(pair.held_out.y, minlength=3).tolist()
    assert (counts, kept) == ([per_class] * 3, [held_out] * 3)


def test_a_share_is_of_each_class_and_not_rounded_up_by_a_float():
    labels = torch.arange(300) % 3
    train, held_out = Budget.parse("7%").choose(labels, ("a", "b", "c"), "t")
    assert len(train) + len(held_out) == 21


def test_domains_of_one_name_are_told_apart_by_their_role():
    _, _, data = split_domains(digits(0, source="handwritten"), 0, NOTHING, CPU)
    assert data.domains == {"source": "handwritten", "target": "handwritten"}
    assert data.rows == {"source": [539, 179, 181], "target": [538, 179, 181]}


def test_a_strength_without_a_shift_is_refused():
    for load in (
        lambda: synthetic(0, shift="none", strength=2.0),
        lambda: blobs(0, shift="none", strength=2.0),
        lambda: digits(0, severity=2),
    ):
        with pytest.raises(UserError, match="has no shift to belong to"):
            load()


@pytest.mark.parametrize("granted", ["0.1", "-1", "120%", "some", "5.0"])
def test_a_budget_that_could_be_read_two_ways_is_refused(granted):
    with pytest.raises(UserError, match="granted takes auto"):
        Budget.parse(granted)


def test_auto_is_what_the_method_needs():
    assert str(Budget.parse("auto").settle(needed=False)) == "0"
    assert str(Budget.parse("auto").settle(needed=True)) == "10"
    assert [str(Budget.parse(text)) for text in ("all", "10%", "5")] == ["all", "10%", "5"]
    with pytest.raises(UserError, match="granted=0 leaves it none"):
        Budget.parse("0").settle(needed=True)


def test_what_is_not_there_cannot_be_granted_or_split():
    with pytest.raises(UserError, match=r"granted=500 asks for 500 labels of class '0', but the train split .* has \d"):
        split_domains(blobs(0), 0, Budget("count", 500), CPU)
    tiny = Raw("tiny", torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), ("a", "b"))
    with pytest.raises(UserError, match="the val split of tiny would hold 1 of its 5 rows"):
        split_domains(Drawn(tiny, tiny, {}), 0, NOTHING, CPU)


# Shifts of tables: what each keeps and what it changes.


def pool(n: int = 40_000) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return x, (x[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(np.int64), rng


def test_a_covariate_shift_moves_x_and_keeps_p_y_given_x():
    x, y, rng = pool()
    (xs, ys), (xt, yt) = shifts.table_pair(x, y, "covariate", 2.0, rng)
    assert len(xs) == len(xt) == len(x) // 2
    assert np.linalg.norm(xs.mean(0) - xt.mean(0)) > 0.5
    for low in (-1.0, -0.5, 0.0, 0.5):  # p(y=1 | x_0 in a bin): equal on both sides, within four standard errors
        shares = [labels[(rows[:, 0] >= low) & (rows[:, 0] < low + 0.25)] for rows, labels in ((xs, ys), (xt, yt))]
        error = np.sqrt(sum(0.25 / len(share) for share in shares))
        assert abs(shares[0].mean() - shares[1].mean()) < 4 * error + 0.02  # and the slope within a bin


def test_a_prior_shift_moves_p_y_and_keeps_p_x_given_y():
    x, y, rng = pool()
    (_, ys), (xt, yt) = shifts.table_pair(x, y, "prior", 2.0, rng)
    odds = [labels.mean() / (1 - labels.mean()) for labels in (ys, yt)]
    assert odds[1] / odds[0] == pytest.approx(np.exp(2.0), rel=0.06)  # three standard errors at this size
    for label in (0, 1):
        np.testing.assert_allclose(xt[yt == label].mean(0), x[y == label].mean(0), atol=0.06)


def test_moving_shifts_do_what_they_say():
    x, y, _ = pool(5000)

    def shifted(name: str, strength: float) -> tuple[np.ndarray, np.ndarray]:
        return shifts.TABLE_SHIFTS[name](x, y, strength, np.random.default_rng(1))

    assert np.linalg.norm((shifted("move", 2.0)[0] - x).mean(0)) == pytest.approx(2 * x.std(0).mean())
    turned = shifted("rotate", np.pi / 2)[0]
    np.testing.assert_allclose(np.abs((turned * x).sum(1)), 0, atol=1e-9)  # a right angle
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1))
    ratio = shifted("scale", 0.5)[0] / x
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape))
    assert shifted("noise", 1.0)[0].std(0) == pytest.approx(np.sqrt(2) * x.std(0), rel=0.05)
    assert np.isclose(shifted("missing", 0.3)[0], x.mean(0)).mean() == pytest.approx(0.3, abs=0.02)
    same, labels = shifted("concept", 0.3)
    assert np.array_equal(same, x) and (labels != y).mean() == pytest.approx(0.3, abs=0.01)
    assert np.array_equal(shifted("none", 9.0)[0], x)


@pytest.mark.parametrize("shift", STRENGTHS)
def test_every_shift_has_a_default_strength_that_the_record_tells(shift):
    drawn = synthetic(0, samples=200, shift=shift)
    assert drawn.notes == {"shift": shift, "strength": STRENGTHS[shift]}
    assert torch.isfinite(drawn.target.x).all() and drawn.target.x.dtype == torch.float32


def test_strengths_and_sizes_out_of_range_are_refused():
    wrong: list[dict[str, Any]] = [
        {"strength": -1.0},
        {"shift": "missing", "strength": 2.0},
        {"informative": 30},
        {"classes": 9},
    ]
    for options in wrong:
        with pytest.raises(UserError):
            synthetic(0, **options)


def test_blobs_are_separated_by_what_was_asked():
    drawn = blobs(0, samples=4000, classes=3, separation=6.0)
    centres = torch.stack([source_of(drawn).x[source_of(drawn).y == c].mean(0) for c in range(3)])
    assert torch.pdist(centres).min().item() == pytest.approx(6.0, abs=0.2)


# Images


def test_digits_are_images_of_the_wanted_size_with_all_classes():
    drawn = digits(0, samples=300, size=24)
    for side in (source_of(drawn), drawn.target):
        assert side.x.shape[1:] == (1, 24, 24)
        assert side.x.min() >= 0 and side.x.max() <= 1
        assert side.y.unique().tolist() == list(range(10))


def test_glyphs_differ_by_font_and_digit():
    images = glyphs()
    assert len(images) == 12 and images.shape[1:] == (10, 64, 64)
    assert len(rows_of(images.flatten(0, 1))) == len(images) * 10


def test_the_crop_finds_the_ink_wherever_it_is():
    image = torch.zeros(2, 1, 64, 64)
    image[0, 0, 5:25, 10:20] = 1  # the same bar in two places
    image[1, 0, 35:55, 40:50] = 1
    first, second = through_8x8(image)
    torch.testing.assert_close(first, second)
    assert first[0, :, 3:5].mean() > 0.95 and first[0, :, 0].max() == 0  # full height, centred, its aspect kept


def test_the_seed_of_a_dataset_is_its_own():
    assert Rng(0).child("digits").seed != Rng(0).child("synthetic").seed


def bytes_of(n: int, seed: int, classes: tuple[str, ...] = ("a", "b")) -> Raw:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Raw(f"d{seed}", x, torch.arange(n) % len(classes), classes)


def test_images_that_are_in_both_domains_are_said_and_a_copy_is_refused(caplog):
    one, other = bytes_of(30, 0), bytes_of(30, 1)
    split_domains(Drawn(one, other, {}), 0, NOTHING, CPU)
    assert not caplog.text
    mixed = other._replace(x=torch.cat([one.x[:4], other.x[4:]]))
    split_domains(Drawn(one, mixed, {}), 0, NOTHING, CPU)
    assert "4 of 30 images of the target also occur in the source" in caplog.text
    with pytest.raises(UserError, match="every image of the target also occurs in the source"):
        split_domains(Drawn(one, one._replace(name="copy"), {}), 0, NOTHING, CPU)


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(UserError, match="the source has one class, a"):
        split_domains(Drawn(bytes_of(30, 0, ("a",)), bytes_of(30, 1, ("a",)), {}), 0, NOTHING, CPU)


def test_auto_takes_what_there_is_and_says_so_once(caplog):
    labels = torch.tensor([0] * 20 + [1] * 3 + [2] * 2)
    budget = Budget.parse("auto").settle(needed=True)
    train, held_out = budget.choose(labels, ("a", "b", "c"), "t")
    assert len(train) + len(held_out) == 15
    assert caplog.text.count("WARNING") == 1 and "t has fewer than 10 labels of class b, c" in caplog.text
    assert (budget.describe(15, 3), budget.describe(30, 3), Budget("count", 5).describe(15, 3)) == ("≤10", "10", "5")
