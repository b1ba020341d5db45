"""Data where it lives: as floats, as bytes, on disk, in part, through a network."""

import threading

import pytest
import torch

from tl_runner.core import Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import Drawn, Encoding, Raw, split_domains
from tl_runner.datasets.synthetic import blobs
from tl_runner.domains import Domain, InMemory, LabelledSplit, Labels, OnDisk, Pair, Subset, look_ahead
from tl_runner.models.features import iter_batches
from tl_runner.models.frozen_features import Embedded, FeatureModel, freeze_features
from tl_runner.tasks import Classification

CPU = torch.device("cpu")
ROWS = torch.tensor([3, 0, 3])


def images(n: int = 12) -> torch.Tensor:
    return torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bytes_come_out_as_floats_between_0_and_1():
    x = images()
    torch.testing.assert_close(InMemory(x).take(ROWS), x[ROWS].float() / 255)


def test_images_come_out_in_the_size_that_is_asked_for():
    flat = torch.full((4, 1, 8, 8), 51, dtype=torch.uint8)
    for size in (4, 8, 20):
        torch.testing.assert_close(InMemory(flat, size).take(ROWS), torch.full((3, 1, size, size), 0.2))


def test_rows_on_disk_are_the_rows_in_memory():
    x = images()
    which = torch.tensor([5, 1, 11, 7])
    torch.testing.assert_close(OnDisk(x, which, CPU, 4).take(ROWS), InMemory(x[which], 4).take(ROWS))
    assert len(OnDisk(x, which, CPU)) == 4


def test_rows_that_were_read_ahead_are_taken_and_a_wrong_guess_changes_nothing(monkeypatch):
    x, which, read = images(), torch.tensor([5, 1, 11, 7]), OnDisk._read
    split, by_itself = OnDisk(x, which, CPU), list[list[int]]()

    def watched(split: OnDisk, rows: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is threading.main_thread():
            by_itself.append(rows.tolist())
        return read(split, rows)

    monkeypatch.setattr(OnDisk, "_read", watched)
    for guess, rows in (([1, 3], [1, 3]), ([0], [2, 2]), ([1, 0], [0, 1])):
        look_ahead(split, torch.tensor(guess))
        torch.testing.assert_close(split.take(torch.tensor(rows)), x[which[rows]].float() / 255, rtol=0, atol=0)
    split.take(torch.tensor([3]))
    assert by_itself == [[2, 2], [0, 1], [3]]
    look_ahead(Subset(split, torch.tensor([2, 0])), torch.tensor([1]))
    split.take(torch.tensor([0]))
    assert len(by_itself) == 3
    look_ahead(InMemory(x), torch.tensor([1]))  # has nothing to read


def test_a_grey_part_of_what_is_mapped_is_read_alone():
    x = images()
    torch.testing.assert_close(OnDisk(x[:, :1], torch.arange(12), CPU).take(ROWS), InMemory(x[:, :1]).take(ROWS))


def test_a_subset_is_some_rows_of_a_split():
    whole = InMemory(torch.arange(10.0)[:, None])
    part = Subset(whole, torch.tensor([9, 4, 6]))
    assert len(part) == 3 and part.take(torch.tensor([2, 0])).flatten().tolist() == [6.0, 9.0]


def pair_of(n: int = 6) -> Pair:
    split = InMemory(torch.rand(n, 4))
    labels = Labels(*(torch.arange(n) % 2 for _ in range(3)))
    source = Domain("s", Classification(("a", "b")), split, split, split, labels)
    target = Domain("t", Classification(("a", "b")), split, split, split)
    return Pair(source, target, granted=LabelledSplit(split, labels.train))


def test_weights_get_a_mean_of_1():
    weighted = pair_of().weighted(torch.tensor([1.0, 2, 3, 4, 5, 9])).weights
    assert weighted is not None and weighted.dtype == torch.float32
    torch.testing.assert_close(weighted, torch.tensor([1.0, 2, 3, 4, 5, 9]) / 4)


@pytest.mark.parametrize("weights", [[1.0, 2], [1, 2, 3, 4, 5, -1.0], [1, 2, 3, 4, 5, float("nan")], [0.0] * 6])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weigh"):
        pair_of().weighted(torch.tensor(weights))


def test_a_task_without_a_source_says_so():
    pair = Pair(None, pair_of().target)
    assert not pair.shared_labels and pair.classes == ("a", "b") and pair.shape == (4,)
    with pytest.raises(LookupError, match="in the backbone's weights"):
        _ = pair.labelled_source
    with pytest.raises(LookupError, match="grants no target labels"):
        _ = pair.labels_granted


def test_frozen_features_are_those_of_the_backbone_in_evaluation_and_computed_once():
    calls = []

    class Counting(torch.nn.Linear):
        def forward(self, input):  # noqa: A002
            calls.append(len(input))
            return super().forward(input)

    backbone = torch.nn.Sequential()
    backbone.add_module("linear", Counting(4, 3))
    backbone.add_module("drop", torch.nn.Dropout(0.9))
    model, pair = Model(backbone, 3, ("a", "b")), pair_of()
    cached, mapped = freeze_features(model, pair)
    assert isinstance(mapped.target.train, Embedded) and not calls  # nothing is computed that nobody reads
    rows = torch.arange(6)
    torch.testing.assert_close(mapped.target.train.take(rows), backbone.eval()(pair.target.train.take(rows)))
    before = len(calls)
    mapped.target.train.take(rows[:2])
    assert len(calls) == before
    assert mapped.granted is not None and mapped.granted.x.take(rows).shape == (6, 3)
    assert isinstance(cached, FeatureModel) and not isinstance(model, FeatureModel)
    features = mapped.target.test.take(rows)
    torch.testing.assert_close(cached(features), cached.head(features))
    assert not any(p.requires_grad for p in cached.backbone.parameters())
    assert all(p.requires_grad for p in model.backbone.parameters())


def divided(n: int = 20, **parts: list[int]) -> Raw:
    part = torch.zeros(n, dtype=torch.long)
    for name, rows in parts.items():
        part[torch.tensor(rows)] = {"val": 1, "test": 2}[name]
    return Raw("d", torch.arange(float(n))[:, None], torch.arange(n) % 2, ("a", "b"), part)


def parts_of(raw: Raw, seed: int = 0) -> dict[str, set[float]]:
    pair, _, _ = split_domains(Drawn(None, raw, {}), seed, Budget("count", 0), CPU)
    splits = {"train": pair.target.train, "val": pair.target.val, "test": pair.target.test}
    return {name: set(split.take(torch.arange(len(split))).flatten().tolist()) for name, split in splits.items()}


def test_a_division_that_the_data_came_with_is_kept_and_what_is_missing_is_cut_from_train():
    both = parts_of(divided(val=[0, 1, 2], test=[3, 4]))
    assert both["val"] == {0, 1, 2} and both["test"] == {3, 4} and len(both["train"]) == 15
    test = parts_of(divided(test=[3, 4, 5, 6, 7]))
    assert test["test"] == {3, 4, 5, 6, 7} and len(test["val"]) == 3 and len(test["train"]) == 12
    val = parts_of(divided(val=[3, 4, 5, 6, 7]))
    assert val["val"] == {3, 4, 5, 6, 7} and len(val["test"]) == 3 and len(val["train"]) == 12
    assert {name: len(rows) for name, rows in parts_of(divided()).items()} == {"train": 12, "val": 4, "test": 4}
    assert parts_of(divided(test=[3, 4, 5]), seed=1)["test"] == {3, 4, 5}
    for parts in (both, test, val):
        assert sum(map(len, parts.values())) == 20


def test_an_encoding_is_fitted_on_the_training_rows_of_the_source_alone():
    seen: list[torch.Tensor] = []

    def fit(x: torch.Tensor) -> Encoding:
        seen.append(x)
        return Encoding(lambda rows: (rows - x.mean(0)).float(), {"mean": x.mean(0).tolist()})

    drawn = blobs(0, samples=50)._replace(encoding=fit)
    pair, _, data = split_domains(drawn, 0, Budget("count", 0), CPU)
    plain, _, _ = split_domains(drawn._replace(encoding=None), 0, Budget("count", 0), CPU)
    source, _ = plain.labelled_source
    assert len(seen) == 1 and torch.equal(seen[0], source.train.take(torch.arange(30)))
    torch.testing.assert_close(
        pair.target.test.take(torch.arange(5)), plain.target.test.take(torch.arange(5)) - seen[0].mean(0)
    )
    assert data.encoding["mean"] == seen[0].mean(0).tolist()


def test_a_split_is_read_in_portions_that_fit_and_in_order():
    small, large = InMemory(torch.arange(2000.0)[:, None]), InMemory(torch.zeros(10, 3, 400, 400))
    assert [len(x) for x in iter_batches(small, CPU)] == [1024, 976]
    assert torch.equal(torch.cat([*iter_batches(small, CPU)]), small.x)
    assert [len(x) for x in iter_batches(large, CPU)] == [2] * 5
