"""Features of frozen networks: under which key they are kept, which rows are passed again, and that all bits stay."""

import os
from collections import OrderedDict

import pytest
import torch
from torch import nn

from tl_runner.core import Model
from tl_runner.domains import InMemory
from tl_runner.models import features, frozen_features
from tl_runner.models.frozen_features import FeatureCache, embed_split
from tl_runner.storage.cache import drop_oldest, load_cached

SIDE, BATCH = 4, 16  # pixels; rows of a batch


class Network(nn.Conv2d):
    """It counts its rows, and may add what the rest of the batch holds."""

    def __init__(self, mixed: bool = False):
        super().__init__(1, 3, SIDE)
        self.mixed, self.rows = mixed, 0

    def forward(self, input):  # noqa: A002
        self.rows += len(input)
        found = super().forward(input).flatten(1)
        return found + input.mean() if self.mixed else found


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(features, "NUMBERS", BATCH * SIDE**2)


def build_model(mixed: bool = False) -> Model:
    torch.manual_seed(int(mixed))
    return Model(nn.Sequential(OrderedDict(net=Network(mixed))), 3, ["a", "b"])


def embed(folder, model: Model, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The features, by a cache of its own as another process has, and how many rows passed the network for them."""
    network = model.backbone.get_submodule("net")
    assert isinstance(network, Network)
    network.rows = 0
    found = FeatureCache(folder, model).embed(InMemory(x))
    rows = network.rows
    assert torch.equal(found, embed_split(model, InMemory(x)))
    return found, rows


def draw_rows(n: int) -> torch.Tensor:
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def test_the_same_rows_pass_the_same_network_once(tmp_path):
    x, model, other = draw_rows(40), build_model(), build_model()
    assert embed(tmp_path, model, x)[1] == 40
    assert embed(tmp_path, model, x)[1] == 0
    assert embed(tmp_path, other, x)[1] == 0  # of equal weights
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1)
    assert embed(tmp_path, other, x)[1] == 40
    assert embed(tmp_path, model, x + 1)[1] == 40


@pytest.mark.parametrize(
    ("new", "passed"),
    [(0, BATCH), (3, BATCH), (BATCH - 1, BATCH), (BATCH, 2 * BATCH), (48, 64)],
    ids=["none", "three", "a batch less one", "a batch", "all but a batch"],
)
def test_a_split_takes_the_rows_that_others_have(tmp_path, new, passed):
    """64 rows in four batches, some of them new: the new ones pass, with known ones up to a whole batch."""
    x, model = draw_rows(64 + new), build_model()
    assert embed(tmp_path, model, x[:64])[1] == 64
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert embed(tmp_path, model, x[new:][order])[1] == passed


def test_rows_that_did_not_fill_a_batch_pass_again(tmp_path):
    """The last bits of a matrix product depend on how many rows it has."""
    x, model = draw_rows(70), build_model()
    assert embed(tmp_path, model, x[:70])[1] == 70
    assert embed(tmp_path, model, x[:65])[1] == BATCH + 1  # a batch that tests what is known, and the last row
    assert embed(tmp_path, model, x[64:])[1] == 6
    assert embed(tmp_path, model, x[:10])[1] == 10


def test_equal_rows_of_a_split_have_equal_features(tmp_path):
    x, model = draw_rows(32), build_model()
    assert embed(tmp_path, model, x)[1] == 32
    assert embed(tmp_path, model, torch.cat([x, x[:16]]))[1] == BATCH


def test_a_network_that_mixes_the_rows_of_a_batch_computes_every_split_whole(tmp_path):
    x, model = draw_rows(64), build_model(mixed=True)
    assert embed(tmp_path, model, x)[1] == 64
    assert embed(tmp_path, model, x.flip(0))[1] == BATCH + 64


def test_token_ids_share_no_rows(tmp_path, monkeypatch):
    """Padding that a whole batch has is left out, so the numbers of a text depend on the others."""
    monkeypatch.setattr(features, "TOKEN", SIDE**2)

    class Lookup(Network):
        def forward(self, input):  # noqa: A002
            return super().forward(input.float()[:, None, :, None].expand(-1, -1, -1, SIDE))

    ids, model = torch.randint(9, (64, SIDE)), build_model()
    model.backbone = nn.Sequential(OrderedDict(net=Lookup()))
    assert embed(tmp_path, model, ids)[1] == 64
    assert embed(tmp_path, model, ids.flip(0))[1] == 64


def test_what_was_not_read_for_longest_goes_first(tmp_path, monkeypatch):
    model, foreign = build_model(), tmp_path / "model.safetensors"
    foreign.write_bytes(bytes(10_000))
    for n in (16, 32, 48):
        embed(tmp_path, model, draw_rows(n) + n)
    oldest, middle, newest = sorted(tmp_path.glob("*-*"), key=lambda file: file.stat().st_size)
    for age, file in enumerate((newest, middle, oldest)):
        os.utime(file, (1000 + age, 1000 + age))
    assert load_cached(middle)  # reads it now
    drop_oldest([oldest, middle, newest], middle.stat().st_size + oldest.stat().st_size)
    assert not newest.exists() and middle.exists() and oldest.exists()
    monkeypatch.setattr(frozen_features, "LIMIT", 1)
    embed(tmp_path, model, draw_rows(20))
    assert [*tmp_path.iterdir()] == [foreign]
