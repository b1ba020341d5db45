"""CIFAR-10 and STL-10 in their published formats: found, extracted, downloaded, checked, and made into tasks."""

import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.cifar import BATCHES, cifar_folder
from torchvision.datasets import CIFAR10

from tl_runner.datasets import archives, cifar, stl10
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.cifar import cifar10, cifar10_split
from tl_runner.datasets.split import Drawn, split_domains
from tl_runner.datasets.stl10 import cifar10_stl10
from tl_runner.errors import UserError

CPU, NOTHING = torch.device("cpu"), Budget("count", 0)


def sum_of(file: Path) -> str:
    return md5(file.read_bytes()).hexdigest()


def stl_folder(root: Path, n: int = 30) -> Path:
    """n images a part in STL-10's format: the class is the red channel, green is a ramp down, blue one to the right."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        y = np.arange(n, dtype=np.uint8) % 10 + 1
        x = np.zeros((n, 3, 96, 96), np.uint8)
        x[:, 0] = y[:, None, None]
        x[:, 1], x[:, 2] = 2 * np.arange(96)[:, None], 2 * np.arange(96)
        x.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")
        y.tofile(folder / f"{part}_y.bin")
    return folder


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small files that pass for the published CIFAR-10, extracted, and packed beside it: root/ and packed/."""
    folder = cifar_folder(tmp_path / "root")
    packed = tmp_path / "packed" / CIFAR10.filename
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sum_of(folder / name)] for name in BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[BATCHES[5], sum_of(folder / BATCHES[5])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sum_of(folder / "batches.meta")})
    monkeypatch.setattr(CIFAR10, "tgz_md5", sum_of(packed))
    return tmp_path


@pytest.fixture
def address(published: Path) -> Iterator[str]:
    """Where packed/ is served on this machine."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=published / "packed"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}"
    server.shutdown()
    server.server_close()


def test_images_labels_and_parts_are_those_of_the_files(tmp_path):
    cifar_folder(tmp_path)
    whole = cifar.read_cifar(str(tmp_path), download=False, verify=False)
    assert whole.x.shape == (120, 3, 32, 32) and whole.x.dtype == torch.uint8 and whole.y.dtype == torch.long
    assert torch.equal(whole.x[:, 0].amax((1, 2)).long(), whole.y) and whole.classes == cifar.CLASSES
    assert whole.part is not None and torch.equal(whole.part == 2, whole.x[:, 2, 0, 0] == 5)  # the test batch


def test_the_archive_is_found_in_its_folder_around_it_and_packed(published, monkeypatch):
    monkeypatch.chdir(published)
    roots = ["root", "root/cifar-10-batches-py", str(published / "packed"), "packed"]
    found = [cifar.read_cifar(root, download=False, verify=True) for root in roots]
    assert all(torch.equal(whole.x, found[0].x) for whole in found)
    assert sorted(path.name for path in Path("packed").iterdir()) == ["cifar-10-batches-py", CIFAR10.filename]
    monkeypatch.setenv("HOME", str(published / "root"))
    assert len(cifar.read_cifar("~", download=False, verify=True).x) == 120


def test_what_is_not_there_is_told_with_the_archive_the_folder_and_the_keys(tmp_path):
    message = r"CIFAR-10 is not in .*{} \({}\): neither cifar-10-batches-py/ nor cifar-10-python.tar.gz is there\. Set"
    message += r" dataset\.root=… .* or dataset\.download=true to fetch it from https://www\.cs\.toronto\.edu"
    with pytest.raises(UserError, match=message.format("nowhere", "there is no such folder")):
        cifar10(0, root="nowhere")
    (tmp_path / "full").mkdir()
    for number in range(7):
        (tmp_path / "full" / f"f{number}").touch()
    with pytest.raises(UserError, match=message.format("full", "it holds f0, f1, f2, f3, f4, …")):
        cifar10_split(0, root="full")
    with pytest.raises(UserError, match=r"STL-10 is not in .*stl10_binary"):
        cifar_folder(tmp_path)
        cifar10_stl10(0, root=str(tmp_path), verify=False)


def test_a_file_that_is_not_the_published_one_is_named_and_read_on_request(published):
    file = published / "root" / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes().replace(b"data_batch_3", b"data_batch_x"))
    with pytest.raises(UserError, match=r"data_batch_3 is not the published file: .* dataset\.verify=false reads it"):
        cifar10(0, root=str(published / "root"))
    assert len(cifar.read_cifar(str(published / "root"), download=False, verify=False).x) == 120
    file.unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_3 of CIFAR-10: set dataset\.root"):
        cifar10(0, root=str(published / "root"))


def test_a_download_is_extracted_checked_and_leaves_nothing_else(published, address, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", address)
    assert len(cifar.read_cifar("new/folder", download=True, verify=True).x) == 120
    assert sorted(path.name for path in Path("new/folder").iterdir()) == ["cifar-10-batches-py", CIFAR10.filename]
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/")
    cifar.read_cifar("new/folder", download=True, verify=True)  # is not fetched again
    with pytest.raises(UserError, match=r"CIFAR-10 could not be downloaded from http://127.0.0.1:9/ to other"):
        cifar.read_cifar("other", download=True, verify=True)
    monkeypatch.setattr(CIFAR10, "url", address)
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match=r"could not be downloaded .* corrupted"):
        cifar.read_cifar("other", download=True, verify=True)
    assert not list(Path("other").iterdir())


def test_a_packed_archive_is_checked_before_it_is_opened(published):
    packed = published / "packed" / CIFAR10.filename
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz is not the published file"):
        cifar10(0, root=str(packed.parent))
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz can't be extracted"):
        cifar10(0, root=str(packed.parent), verify=False)
    assert [path.name for path in packed.parent.iterdir()] == [CIFAR10.filename]


def test_no_member_of_an_archive_leaves_its_folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"mine")
    with tarfile.open(root / CIFAR10.filename, "w:gz") as tar:

        def add(name: str, content: bytes = b"x", **fields: Any) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))

        add("../escaped")
        add(str(tmp_path / "absolute"))
        add("cifar-10-batches-py/../../data_batch_1")
        add("cifar-10-batches-py/test_batch", b"", type=tarfile.SYMTYPE, linkname="../../secret")
        add("cifar-10-batches-py/data_batch_2", b"", type=tarfile.LNKTYPE, linkname="../../secret")
        add("cifar-10-batches-py/notes", b"y")
    with pytest.raises(UserError, match=r"holds no file of CIFAR-10: cifar-10-batches-py/data_batch_1, "):
        cifar10(0, root=str(root), verify=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [CIFAR10.filename, "root", "secret"]


def test_a_folder_that_another_run_extracted_meanwhile_is_used(published, monkeypatch):
    looked = archives._extracted
    answers = iter([None])  # it was not there when this run looked
    monkeypatch.setattr(archives, "_extracted", lambda *place: next(answers, looked(*place)))
    cifar.read_cifar(str(published / "packed"), download=False, verify=True)
    answers = iter([None])
    monkeypatch.setattr(archives, "_extracted", lambda *place: next(answers, looked(*place)))
    assert len(cifar.read_cifar(str(published / "packed"), download=False, verify=True).x) == 120


def test_fewer_batches_are_read_when_they_need_not_be_the_published_ones(tmp_path):
    cifar_folder(tmp_path, batches=["data_batch_2", "data_batch_5"])
    drawn = cifar10(0, root=str(tmp_path), verify=False)
    assert drawn.target.part is None and len(drawn.target.x) == 20
    assert len(split_domains(drawn, 0, NOTHING, CPU)[0].target.test) == 4
    with pytest.raises(UserError, match=r"has no data_batch_1 or other batch to train on"):
        cifar10(0, root=str(cifar_folder(tmp_path / "b", batches=["test_batch"])), verify=False)


def test_the_names_of_the_classes_are_optional(tmp_path):
    meta = cifar_folder(tmp_path) / "batches.meta"
    meta.write_bytes(pickle.dumps({b"label_names": [f"c{index}".encode() for index in range(10)]}, 4))
    assert cifar10(0, root=str(tmp_path), verify=False).target.classes[9] == "c9"
    meta.unlink()
    assert cifar10(0, root=str(tmp_path), verify=False).target.classes == cifar.CLASSES
    for wrong in (["a"] * 10, ["a", "b"], list(range(10)), 7):
        meta.write_bytes(pickle.dumps({"label_names": wrong}))
        with pytest.raises(UserError, match=r"batches\.meta: its label_names are not ten different names"):
            cifar10(0, root=str(tmp_path), verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((20, 3072), np.float32)}, r"its data is float32 of shape \(20, 3072\), not a uint8 array"),
        ({"data": np.zeros((20, 784), np.uint8)}, r"its data is uint8 of shape \(20, 784\)"),
        ({"data": np.zeros((20, 3, 32, 32), np.uint8)}, r"its data is uint8 of shape \(20, 3, 32, 32\)"),
        ({"data": [[0] * 3072] * 20}, "its data is list"),
        ({"labels": [10] * 20}, "labels are not all whole numbers from 0 to 9"),
        ({"labels": [-1] * 20}, "labels are not all whole numbers"),
        ({"labels": [2**70] * 20}, "labels are not all whole numbers"),
        ({"labels": [0.5] * 20}, "labels are not all whole numbers"),
        ({"labels": np.zeros((20, 1), int)}, "labels are not all whole numbers"),
        ({"labels": "airplane"}, "labels are not all whole numbers"),
        ({"labels": [1] * 19}, "has 20 images and 19 labels"),
    ],
)
def test_a_batch_that_is_not_in_the_format_is_named(tmp_path, changes, message):
    cifar_folder(tmp_path, **changes)
    with pytest.raises(UserError, match=f"data_batch_1.* {message}"):
        cifar10(0, root=str(tmp_path), verify=False)


def test_other_pickles_are_named(tmp_path):
    file = cifar_folder(tmp_path) / "test_batch"
    for content, message in (
        ([1], "holds a list, not a dict with data and labels"),
        ({"a": 1}, "holds a dict of a, not one with data and labels"),
    ):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=f"test_batch {message}"):
            cifar10(0, root=str(tmp_path), verify=False)
    file.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match=r"test_batch asks for os\.system"):
        cifar10(0, root=str(tmp_path), verify=False)
    assert not Path("ran").exists()


def test_other_classes_are_numbered_on_each_side(tmp_path):
    cifar_folder(tmp_path)
    drawn = cifar10_split(0, root=str(tmp_path), verify=False, source_classes=("ship", "cat"), size=24)
    source = drawn.source
    assert source is not None and source.classes == ("cat", "ship") and len(drawn.target.classes) == 8
    for side in (source, drawn.target):
        was = [cifar.CLASSES.index(name) for name in side.classes]
        assert torch.equal(torch.tensor(was)[side.y], side.x[:, 0, 0, 0].long())
        assert side.part is not None and side.part.unique().tolist() == [0, 2]
    assert len(source.x) + len(drawn.target.x) == 120 and drawn.size == 24 and drawn.notes == {}
    pair, _, data = split_domains(drawn, 0, NOTHING, CPU)
    assert not pair.shared_labels and data.source_classes == ["cat", "ship"] and data.shape == [3, 24, 24]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "aeroplane"), "has no class 'aeroplane' – did you mean 'airplane'"),
        (("cat",), "leaves 1 class to the source and 9 to the target"),
        (("cat", "cat"), "leaves 1 class to the source and 9"),
        (cifar.CLASSES[:9], "leaves 9 classes to the source and 1 to the target"),
    ],
)
def test_classes_that_are_too_few_or_unknown_are_refused(tmp_path, classes, message):
    cifar_folder(tmp_path)
    with pytest.raises(UserError, match=f"dataset.source_classes.* {message}"):
        cifar10_split(0, root=str(tmp_path), verify=False, source_classes=classes)


def test_two_collections_share_nine_classes(tmp_path):
    cifar_folder(tmp_path, n=30)
    stl_folder(tmp_path)
    drawn = cifar10_stl10(0, root=str(tmp_path), verify=False)
    assert drawn.source is not None and (drawn.source.name, drawn.target.name) == ("cifar10", "stl10")
    assert drawn.source.classes == drawn.target.classes == stl10.SHARED and len(stl10.SHARED) == 9
    assert [len(drawn.source.x), len(drawn.target.x)] == [6 * 27, 2 * 27]
    for side, names in (drawn.source, cifar.CLASSES), (drawn.target, stl10.CLASSES):
        first = 0 if side is drawn.source else 1
        stored = [names[index - first] for index in side.x[:, 0, 0, 0].tolist()]
        assert [{"car": "automobile"}.get(name, name) for name in stored] == [side.classes[y] for y in side.y]
        assert side.x.shape[1:] == (3, 32, 32) and side.part is not None and side.part.unique().tolist() == [0, 2]
    names = ["plane", *cifar.CLASSES[1:]]
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    with pytest.raises(UserError, match=r"cifar10 has no class airplane .*: plane, automobile"):
        cifar10_stl10(0, root=str(tmp_path), verify=False)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").unlink()
    back = cifar10_stl10(0, root=str(tmp_path), verify=False, source="stl10", samples=20)
    assert back.source is not None and (back.source.name, back.target.name) == ("stl10", "cifar10")
    assert back.notes == {"samples": 20} and len(back.source.x) == 20 and 18 <= len(back.target.x) <= 20


def test_the_record_says_how_seeds_differ(tmp_path):
    """The published test images: all of them, some of them by seed, and the halves of them."""
    cifar_folder(tmp_path, n=30)
    stl_folder(tmp_path)
    cases: list[tuple[Any, dict[str, Any], tuple[str, int, int]]] = [
        (cifar10, {}, ("resplit", 15, 30)),
        (cifar10, {"source": None}, ("fixed", 30, 30)),
        (cifar10_split, {}, ("fixed", 15, 15)),
        (cifar10_split, {"samples": 60}, ("resplit", 10, 15)),
        (cifar10_stl10, {}, ("fixed", 27, 27)),
        (cifar10_stl10, {"source": "stl10", "samples": 60}, ("resplit", 10, 27)),
    ]
    for load, options, told in cases:
        _, _, data = split_domains(load(0, root=str(tmp_path), verify=False, **options), 0, NOTHING, CPU)
        assert data.seeds and astuple(data.seeds) == told, (load, options)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    _, _, data = split_domains(cifar10(0, root=str(tmp_path), verify=False, source=None), 0, NOTHING, CPU)
    assert data.seeds and astuple(data.seeds) == ("resplit", 30, 150)


def test_stl_is_stored_by_columns_and_made_smaller_by_means(tmp_path, monkeypatch):
    stl_folder(tmp_path)
    monkeypatch.setattr(stl10, "CHUNK", 7)
    x = stl10.read_stl10(str(tmp_path), download=False, verify=False).x
    ramp = 2 + 6 * torch.arange(32)  # the mean of each three pixels
    for image in (x[0], x[-1]):
        assert (image[1] - ramp[:, None]).abs()[1:-1].max() <= 1 and (image[2] - ramp).abs()[:, 1:-1].max() <= 1


def test_stl_in_a_wrong_format_is_named(tmp_path):
    folder = stl_folder(tmp_path)

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            stl10.read_stl10(str(tmp_path), download=False, verify=False)

    with pytest.raises(UserError, match=r"train_X.bin is not the published file: its MD5 is not 918c28"):
        stl10.read_stl10(str(tmp_path), download=False, verify=True)
    (folder / "class_names.txt").write_text("cat\ndog\n")
    refused(r"class_names.txt does not name STL-10's ten classes: airplane, ")
    (folder / "class_names.txt").write_text("\n".join(stl10.CLASSES))
    np.arange(30, dtype=np.uint8).tofile(folder / "test_y.bin")
    refused(r"test_y.bin holds labels from 0 to 29: STL-10 has 1 to 10")
    with (folder / "train_X.bin").open("ab") as file:
        file.write(b"1")
    refused(r"train_X.bin has 829441 bytes, and train_y.bin 30 labels: each image takes 27648 bytes")
    (folder / "train_X.bin").write_bytes(b"")
    refused(r"train_X.bin has 0 bytes")
    (folder / "train_X.bin").unlink()
    refused(r"lacks train_X.bin of STL-10: set dataset.root")


@pytest.mark.parametrize("load", [cifar10, cifar10_split, cifar10_stl10])
def test_sizes_out_of_range_are_refused_before_a_file_is_looked_for(load):
    for options in ({"samples": 19}, {"size": 7}, {"size": 1025}):
        with pytest.raises(UserError, match="must be"):
            load(0, root="nowhere", **options)


def test_what_is_drawn_is_a_function_of_the_seed(tmp_path):
    cifar_folder(tmp_path)

    def drawn(seed: int) -> Drawn:
        return cifar10(seed, root=str(tmp_path), verify=False, samples=40)

    assert torch.equal(drawn(0).target.x, drawn(0).target.x)
    assert not torch.equal(drawn(0).target.y, drawn(1).target.y) or not torch.equal(
        drawn(0).target.x, drawn(1).target.x
    )
