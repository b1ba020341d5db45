"""Fashion-MNIST in the IDX format, and one set of images as two domains."""

import gzip
import struct
import tracemalloc
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import FashionMNIST

from tl_runner.datasets import fashion as module
from tl_runner.datasets import idx
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.fashion import fashion, read_fashion
from tl_runner.datasets.halves import limit_rows, shifted_halves, split_halves, task
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.errors import UserError
from tl_runner.rng import Rng
from tl_runner.storage.sections import SeedInfo

KINDS = {"train": 120, "t10k": 40}  # images of the small stand-in


def packed(array: np.ndarray, code: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def idx_files(folder: Path, zipped: bool = True) -> Path:
    """A Fashion-MNIST of random images, whose first pixel is the label and second is 1 in the test images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, n in KINDS.items():
        y = rng.integers(0, 10, n, dtype=np.uint8)
        x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        x[:, 0, 0], x[:, 0, 1] = y, prefix == "t10k"
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            name, content = f"{prefix}-{kind}-ubyte", packed(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def rows_of(x: torch.Tensor) -> set[bytes]:
    return {row.tobytes() for row in x.numpy()}


def sourced(drawn: Drawn) -> Raw:
    assert drawn.source is not None
    return drawn.source


@pytest.fixture(autouse=True)
def _without_debians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEBIAN", "no-debian")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("root", [None, "data", "data/FashionMNIST/raw"])
def test_images_labels_and_parts_are_those_of_the_files(zipped, root):
    idx_files(Path("data/FashionMNIST/raw"), zipped)
    whole = read_fashion(root, download=False)
    assert whole.x.shape == (160, 1, 28, 28) and whole.x.dtype == torch.uint8
    assert torch.equal(whole.x[:, 0, 0, 0].long(), whole.y) and whole.classes[9] == "Ankle boot"
    assert whole.part is not None and torch.equal(whole.part, 2 * whole.x[:, 0, 0, 1].long())


def test_debians_package_is_found_without_a_root(monkeypatch):
    monkeypatch.setattr(module, "DEBIAN", str(idx_files(Path("usr/share/datasets/fashion-mnist"))))
    assert len(read_fashion(None, download=False).x) == 160


def test_what_is_not_there_is_told_with_the_folders_and_the_keys():
    with pytest.raises(
        UserError, match=r"is not in .*data \(there is no such folder\) or .*no-debian .* dataset\.root=…"
    ):
        fashion(0)
    with pytest.raises(UserError, match=r"Fashion-MNIST is not in .*nowhere .* dataset\.download=true .* Debian's"):
        fashion(0, root="nowhere")
    (idx_files(Path("mine")) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"mine has no t10k-labels-idx1-ubyte.gz, plain or gzipped: dataset.download"):
        fashion(0, root="mine")


def test_only_what_is_missing_is_downloaded_and_it_is_checked(monkeypatch):
    source, fetched = idx_files(Path("there")), []

    def fetch(title: str, url: str, file: Path, checksum: str) -> None:
        fetched.append(url)
        assert checksum == dict(FashionMNIST.resources)[file.name]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((source / file.name).read_bytes())

    sums = [(name, md5((source / name).read_bytes()).hexdigest()) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(module, "fetch", fetch)
    assert len(read_fashion(None, download=True).x) == 160 and len(fetched) == 4
    assert sorted(path.name for path in Path("data/FashionMNIST/raw").iterdir()) == sorted(dict(sums))
    Path("data/FashionMNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    assert len(read_fashion("data", download=True).x) == 160
    assert fetched[4:] == [FashionMNIST.mirrors[0] + "train-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file of unsigned bytes: it starts with 0x$"),
        (b"\x89PNG....", "it starts with 0x89504e47"),
        (packed(np.zeros(4, ">f4"), code=13), "it starts with 0x00000d01"),
        (packed(np.zeros((3, 28, 28), np.uint8))[:-1], "that is 2352 bytes, and holds 2351"),
        (packed(np.zeros((3, 28, 28), np.uint8)) + b"1", r"promises \(3, 28, 28\), that is 2352 bytes, and holds more"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "too short"),
        (b"\0\0\x08\xff\0\0", "can't be read as an IDX file: unpack requires"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"1", "can't be read as an IDX file: .*dimension"),
        (gzip.compress(packed(np.zeros(40, np.uint8))[:-5]), r"promises \(40,\), that is 40 bytes, and holds 35"),
        (gzip.compress(packed(np.zeros(40, np.uint8)) + b"1"), "holds more"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "too short"),
        (gzip.compress(packed(np.arange(200, dtype=np.uint8)))[:-9], "can't be read as an IDX file: .*ended"),
        (gzip.compress(packed(np.arange(200, dtype=np.uint8)))[:-8] + b"12345678", "can't be read as an IDX file: CRC"),
        (b"\x1f\x8b nonsense", "can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the bytes of a gzip hold the time of its making
)  # fmt: skip
def test_an_idx_file_holds_exactly_what_it_promises(content, message):
    Path("file").write_bytes(content)
    with pytest.raises(UserError, match=f"^file .*{message}"):
        idx.read_idx(Path("file"))


def test_arrays_of_any_shape_are_read_plain_and_zipped():
    for array in (np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.zeros((0, 5), np.uint8), np.full(1, 7, np.uint8)):
        for content in (packed(array), gzip.compress(packed(array))):
            Path("file").write_bytes(content)
            assert np.array_equal(idx.read_idx(Path("file")), array)


def test_a_bomb_is_not_inflated_beyond_its_header():
    Path("bomb").write_bytes(gzip.compress(packed(np.zeros(10, np.uint8)) + bytes(50_000_000), 9))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"promises \(10,\), that is 10 bytes, and holds more"):
        idx.read_idx(Path("bomb"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3", np.zeros((120, 32, 32), np.uint8), r"of shape \(120, 32, 32\), not images of 28×28"),
        ("train-images-idx3", np.zeros(120, np.uint8), "not images of 28×28"),
        ("train-images-idx3", np.zeros((119, 28, 28), np.uint8), r"labels of shape \(120,\) for the 119 images"),
        ("t10k-labels-idx1", np.zeros((40, 1), np.uint8), r"labels of shape \(40, 1\) for the 40 images"),
        ("t10k-labels-idx1", np.full(40, 10, np.uint8), "the label 10: Fashion-MNIST has 0 to 9"),
    ],
)
def test_files_that_do_not_fit_each_other_are_named(name, array, message):
    folder = idx_files(Path("data"))
    (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(packed(array)))
    with pytest.raises(UserError, match=message):
        fashion(0)


def whole(n: int = 100, side: int = 8) -> Raw:
    x = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = torch.arange(n)
    return Raw("set", x, torch.arange(n) % 7, tuple("abcdefg"), torch.tensor([0, 0, 0, 2]).repeat(n // 4))


def test_halves_are_disjoint_whole_and_keep_labels_and_parts():
    first, second = split_halves(whole(), 0)
    assert not rows_of(first.x) & rows_of(second.x) and len(first.x) + len(second.x) == 100
    for half in (first, second):
        index = half.x[:, 0, 0, 0].long()
        assert torch.equal(half.y, index % 7)
        assert half.part is not None and torch.equal(half.part == 2, index % 4 == 3)
        assert (half.part == 2).sum() in (12, 13)


def test_an_image_that_was_published_twice_is_in_one_half():
    once = whole()
    twice = Raw("set", once.x.repeat(2, 1, 1, 1), once.y.repeat(2), once.classes)
    first, second = split_halves(twice, 0)
    assert not rows_of(first.x) & rows_of(second.x)
    assert len(first.x) == len(second.x) == 100 and first.part is None


def test_halves_depend_on_the_seed_and_not_on_the_order_or_the_labels():
    once = whole()._replace(part=None)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    mixed = once._replace(x=once.x[order], y=once.y.flip(0))
    assert rows_of(split_halves(once, 0)[0].x) == rows_of(split_halves(mixed, 0)[0].x)
    assert rows_of(split_halves(once, 0)[0].x) != rows_of(split_halves(once, 1)[0].x)


def test_a_limit_takes_of_each_part_in_proportion():
    few = limit_rows(whole(), 20, Rng(0))
    assert few.part is not None and few.part.bincount().tolist() == [15, 0, 5]
    assert torch.equal(few.y, few.x[:, 0, 0, 0].long() % 7)
    assert rows_of(few.x) != rows_of(limit_rows(whole(), 20, Rng(1)).x)
    for enough in (None, 100, 1000):
        assert limit_rows(whole(), enough, Rng(0)) is not None and len(limit_rows(whole(), enough, Rng(0)).x) == 100


def test_the_target_alone_is_shifted_and_the_record_says_how():
    drawn = shifted_halves(whole(), task("set", "invert", 5, None, 16), 0)
    first, second = split_halves(whole(), 0)
    assert torch.equal(sourced(drawn).x, first.x) and torch.equal(drawn.target.x, 255 - second.x)
    assert (sourced(drawn).name, drawn.target.name) == ("set", "set invert 5")
    assert drawn.notes == {"shift": "invert", "severity": 5} and drawn.size == 16
    pair, _, data = split_domains(drawn, 0, Budget("count", 0), torch.device("cpu"))
    assert data.shape == [3, 16, 16] and data.rows["target"][2] == int((second.part == 2).sum())
    assert pair.target.train.take(torch.arange(3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("source", "samples", "told"),
    [
        (None, None, SeedInfo("fixed", 25, 25)),
        (None, 40, SeedInfo("resplit", 10, 25)),
        ("set", None, SeedInfo("resplit", 13, 25)),
        ("set", 20, SeedInfo("resplit", 5, 25)),
    ],
)
def test_a_published_test_split_is_fixed_unless_the_seed_takes_a_part_of_it(source, samples, told):
    """Test images come from the published test images alone: a half or a limit draws from these."""
    drawn = shifted_halves(whole(), task(source, "none", None, samples, 16), 0)
    assert split_domains(drawn, 0, Budget("count", 0), torch.device("cpu"))[2].seeds == told


def test_the_images_are_the_same_under_every_shift():
    labels = {
        shift: shifted_halves(whole(), task("set", shift, None, 40, 16), 0).target.y
        for shift in ("none", "blur", "fog")
    }
    assert all(torch.equal(y, labels["none"]) for y in labels.values())


def test_without_a_source_domain_all_images_are_the_target_as_they_are():
    drawn = shifted_halves(whole(), task(None, None, None, None, 224), 0)
    assert drawn.source is None and drawn.size == 224 and torch.equal(drawn.target.x, whole().x)
    assert drawn.target.name == "set" and drawn.notes == {"shift": "none", "severity": None}
    shifted = shifted_halves(whole(), task(None, "invert", 5, 40, 224), 0)
    assert shifted.target.name == "set invert 5" and len(shifted.target.x) == 40 and shifted.notes["samples"] == 40


def test_the_default_is_noise_with_a_source_and_none_without():
    assert task("set", None, None, None, 28)[1:3] == ("noise", 3) and task(None, None, None, None, 28)[1:3] == (
        "none",
        0,
    )
    assert task("set", "none", None, None, 28)[1:3] == ("none", 0)
    with pytest.raises(UserError, match="has no shift to belong to"):
        task(None, None, 2, None, 28)


def test_options_out_of_range_are_refused_before_a_file_is_looked_for():
    wrong: list[dict[str, Any]] = [{"severity": 6}, {"samples": 19}, {"size": 7}, {"shift": "none", "severity": 1}]
    for options in wrong:
        with pytest.raises(UserError, match=r"must be|belong"):
            fashion(0, root="nowhere", **options)


def test_fashion_has_no_colour_to_lose():
    idx_files(Path("data"))
    with pytest.raises(UserError, match="grayscale takes colours away"):
        fashion(0, shift="grayscale")  # type: ignore[arg-type]
    drawn = fashion(0, shift="rotate", severity=2, samples=40)
    assert len(drawn.target.x) == len(sourced(drawn).x) == 40 and drawn.target.x.dtype == torch.uint8
