"""What files hold: hashes that are remembered, and which files a dataset's options name."""

import io
import json
import logging
import multiprocessing
import os
import random
import shutil
import tarfile
import time
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from conftest import CONF, composed
from omegaconf import OmegaConf

from tl_runner.datasets import fashion
from tl_runner.option_names import name_part
from tl_runner.storage import contents, data_files
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import Data, drop_locations, hash_data, resolve_path
from tl_runner.storage.record import describe_run

CSV = {"_target_": "csv"}
IMAGES = {"_target_": "image_folder"}
CIFAR = {"_target_": "cifar10"}
FASHION = {"_target_": "fashion"}


def filled(root: Path, names: list[str], text: str = "") -> Path:
    """Files of these names, each holding the text and its name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(f"{text}{name}"))
    return root


def digest(**node: Any) -> str | None:
    return hash_data(node, Contents()).digest


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes were read. All files pass for such as changed long ago."""
    names: list[str] = []
    value = contents._value

    def counted(path: Path, *rest: Any) -> Any:
        names.append(path.name)
        return value(path, *rest)

    monkeypatch.setattr(contents, "_value", counted)
    monkeypatch.setattr(contents, "MARGIN", -(10**12))
    return names


def test_a_folder_is_its_names_and_contents_wherever_it_lies_and_in_whatever_order_it_was_filled(tmp_path):
    names = [f"{label}/{number}.png" for label in "ab" for number in range(20)]
    first = Contents().of(filled(tmp_path / "one", names))
    random.Random(0).shuffle(names)
    assert Contents().of(filled(tmp_path / "other" / "place", names)) == first
    assert [found.name for found in first] == sorted(names) and first[0].bytes == len("a/0.png")
    filled(tmp_path / "one", [".DS_Store", "a/.hidden/x.png", "a/Thumbs.db", "__MACOSX/a/0.png", "b/@eaDir/0.png"])
    assert Contents().of(tmp_path / "one") == first
    (tmp_path / "one" / "a" / "0.png").rename(tmp_path / "one" / "b" / "new.png")
    assert Contents().of(tmp_path / "one") != first


def test_outputs_that_are_a_file_are_left_to_the_run_to_refuse(tmp_path, read, caplog):
    (outputs := tmp_path / "outputs").write_text("a file")
    assert len(Contents(outputs).of(filled(tmp_path / "data", ["a", "b/c"]))) == 2
    assert read and not caplog.records


def test_a_file_is_read_once_and_again_when_it_was_touched(tmp_path, read):
    folder, outputs = filled(tmp_path / "data", ["a", "b/c"]), tmp_path / "outputs"
    first = Contents(outputs).of(folder)
    assert sorted(read) == ["a", "c"]
    read.clear()
    assert Contents(outputs).of(folder) == first and read == []
    (folder / "a").touch()
    assert Contents(outputs).of(folder) == first and read == ["a"]
    read.clear()
    (folder / "b/c").write_text("b/d")  # of the same length
    assert Contents(outputs).of(folder) != first and read == ["c"]
    assert Contents().of(folder) == Contents(outputs).of(folder)  # nothing is kept without a place for it


def test_a_file_that_changes_under_the_same_times_is_read_again(tmp_path, monkeypatch):
    """A clock that does not tick while a file is written twice, as in git's racy index."""
    file, outputs = tmp_path / "file", tmp_path / "outputs"

    def hashes(tick: int) -> list[str]:
        monkeypatch.setattr(contents, "_of", lambda found: (found.st_size, tick, tick, 1))
        found = []
        for text in ("one", "two"):
            file.write_text(text)
            found.append(Contents(outputs).of(file)[0].hash)
        return found

    assert len(set(hashes(time.time_ns()))) == 2
    assert len(set(hashes(time.time_ns() - contents.MARGIN // 2))) == 2
    assert not outputs.exists()
    assert len(set(hashes(time.time_ns() - 10 * contents.MARGIN))) == 1  # what is settled is not read again


def test_a_file_that_is_written_while_it_is_read_is_not_kept(tmp_path, read, monkeypatch):
    file, value = tmp_path / "file", contents._value

    def meanwhile(path: Path, *rest: Any) -> Any:
        found = value(path, *rest)
        file.write_text("longer than before")
        return found

    file.write_text("short")
    monkeypatch.setattr(contents, "_value", meanwhile)
    Contents(tmp_path / "outputs").of(file)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "spoiled",
    ["", "{", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": [1, 1, 1, 1, "x"]}}', "\x00\xff"],
)
def test_what_was_kept_and_is_damaged_is_not_believed(tmp_path, read, spoiled, caplog):
    folder, outputs = filled(tmp_path / "data", ["a"]), tmp_path / "outputs"
    first = Contents(outputs).of(folder)
    (kept,) = (outputs / "cache" / "contents").iterdir()
    kept.write_text(spoiled, encoding="latin1")
    assert Contents(outputs).of(folder) == first and str(kept) in caplog.text
    assert json.loads(kept.read_text())["files"]["a"][-1] == [first[0].hash]


def test_hashes_that_cannot_be_kept_are_said_and_cost_no_run(tmp_path, read, caplog):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "cache").write_text("a file in its place")
    folder = filled(tmp_path / "data", ["a"])
    assert Contents(tmp_path / "outputs").of(folder) == Contents().of(folder)
    assert "could not cache the hashes" in caplog.text


def _look(folder: Path, outputs: Path, found: Any) -> None:
    for _ in range(20):
        found.put({each.hash for each in Contents(outputs).of(folder)})


def test_processes_may_share_what_is_kept(tmp_path, read):
    folder, context = filled(tmp_path / "data", [f"{n}.png" for n in range(50)]), multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    processes = [context.Process(target=_look, args=(folder, tmp_path / "outputs", found)) for _ in range(3)]
    for process in processes:
        process.start()
    expected = {each.hash for each in Contents().of(folder)}
    assert all(found.get() == expected for _ in range(60))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len([*(tmp_path / "outputs" / "cache" / "contents").iterdir()]) == 1  # and nothing half written


def test_odd_things_in_a_folder_end_no_look_at_it(tmp_path):
    folder = filled(tmp_path / "data", ["a/1", "out/runs/x", os.fsdecode(b"b/\xff")])
    (folder / "a" / "up").symlink_to(folder)
    (folder / "c").symlink_to(folder / "a")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    found = {each.name: each.hash for each in Contents(folder / "out").of(folder)}
    assert sorted(found) == ["a/1", os.fsdecode(b"b/\xff"), "c/1", "gone"] and found["a/1"] == found["c/1"]
    assert found["gone"] == "unreadable"
    assert hash_data({"_target_": "mine.data", "root": str(folder)}, Contents(folder / "out")).files == 4


def test_relative_paths_begin_where_the_look_began(tmp_path, monkeypatch):
    monkeypatch.chdir(filled(tmp_path, ["here/a.csv"]) / "here")
    look, node = Contents(Path("outputs")), {**CSV, "source": "a.csv", "target": "b.csv"}
    monkeypatch.chdir(tmp_path)  # as a run's own code may do
    assert hash_data(node, look) == hash_data({**node, "source": "here/a.csv"}, Contents()) != Data(None, 0, 0)
    assert look.outputs == tmp_path / "here" / "outputs"


def test_a_long_reading_is_told_in_words(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(contents, "PATIENCE", 0.0)
    monkeypatch.setattr(contents, "BLOCK", 2**10)
    (tmp_path / "file").write_bytes(bytes(2**12))
    Contents().of(tmp_path / "file")
    assert f"reading what is in {tmp_path / 'file'}, since a run is one of its data: 0.0 of 0.0 GiB" in caplog.text
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING


def test_what_is_published_is_what_torchvision_knows():
    from torchvision.datasets import CIFAR10, STL10, FashionMNIST

    cifar = {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list), CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}
    stl = {name: known for name, known in (*STL10.train_list, *STL10.test_list) if "unlabeled" not in name}
    words = {"class_names.txt": data_files.PUBLISHED["stl10_binary"]["class_names.txt"]}
    assert {
        CIFAR10.base_folder: cifar,
        STL10.base_folder: {**stl, **words},
        "FashionMNIST/raw": dict(FashionMNIST.resources),
    } == data_files.PUBLISHED
    assert {CIFAR10.base_folder: CIFAR10.filename, STL10.base_folder: STL10.filename} == data_files.PACKED
    assert data_files.DEBIAN == fashion.DEBIAN and STL10.class_names_file in words


def test_every_dataset_that_has_files_is_known():
    """A new option that names a place must get its line in `inputs`."""
    files = (CONF / "dataset").glob("*.yaml")
    nodes = {file.stem: name_part("dataset", OmegaConf.to_container(OmegaConf.load(file))) for file in files}
    placed = {node["_target_"] for node in nodes.values() if {"root", "file"} & {*node}}
    assert placed == {*data_files.CIFAR, "fashion", "image_folder", "image_list", "table", "text", "audio"}
    for name in ("digits", "blobs", "synthetic"):
        later = {*data_files.LATER, *(key.removeprefix(f"{name}.") for key in data_files.LATER)}
        known = {key: value for key, value in nodes[name].items() if key not in later}
        assert hash_data(nodes[name], Contents()) == Data(None, 0, 0) and drop_locations(nodes[name]) == known
    assert hash_data(None, Contents()) == hash_data("text", Contents()) == Data(None, 0, 0)


def test_an_image_folder_is_its_two_domains(tmp_path):
    root = filled(tmp_path / "root", ["a/cat/1.png", "b/cat/1.png", "other/cat/1.png", "e\u0301/cat/1.png"])
    first = digest(**IMAGES, root=str(root), source="a", target="b")
    filled(root, ["other/cat/2.png", "notes.txt"])
    assert digest(**IMAGES, root=str(root), source="a", target="b") == first
    assert digest(**IMAGES, root=str(root), source="b", target="a") != first
    assert hash_data({**IMAGES, "root": str(root), "target": "\u00e9"}, Contents()) == Data(
        digest(**IMAGES, root=str(root), source=None, target="e\u0301"), 1, len(os.fsencode("e\u0301/cat/1.png"))
    )
    filled(root, ["b/cat/2.png"])
    assert digest(**IMAGES, root=str(root), source="a", target="b") != first
    for name in ("..", ".", "", "/", "missing", 3, None):
        assert digest(**IMAGES, root=str(root), target=name) is None
    assert digest(**IMAGES, root="", target="a") is digest(**IMAGES, root=None, target="a") is None


def test_tables_are_the_files_that_are_named(tmp_path, monkeypatch):
    filled(tmp_path, ["x/a.csv", "x/b.csv", "y/a.csv"], "same")
    (tmp_path / "y/a.csv").write_text((tmp_path / "x/a.csv").read_text())
    monkeypatch.chdir(tmp_path / "x")
    first = digest(**CSV, source="a.csv", target="b.csv", file=None)
    assert digest(**CSV, source=str(tmp_path / "x/a.csv"), target="../x/b.csv") == first
    assert digest(**CSV, source="../y/a.csv", target="b.csv") == first
    assert digest(**CSV, source="b.csv", target="a.csv") != first
    one = {**CSV, "file": "a.csv", "domain": "d", "source": "b.csv", "target": "u/v"}  # the latter are values
    assert hash_data(one, Contents()).files == 1 and drop_locations(one) == one
    assert drop_locations({**CSV, "source": "../x/b.csv"})["source"] == "b.csv"
    assert digest(**CSV, source="missing.csv", target=str(tmp_path)) is None


def tarred(root: Path, files: dict[str, str]) -> Path:
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return root


def test_published_files_are_no_content_before_and_after_they_are_there(tmp_path, monkeypatch):
    known = {name: md5(f"published {name}".encode()).hexdigest() for name in ("data_batch_1", "test_batch")}
    monkeypatch.setitem(data_files.PUBLISHED, "cifar-10-batches-py", known)
    root, free = tmp_path / "root", {**CIFAR, "verify": False}
    assert digest(**free, root=str(root)) is None
    folder = root / "cifar-10-batches-py"
    filled(folder, ["test_batch", "data_batch_1"], "published ")
    assert hash_data({**free, "root": str(root)}, Contents()) == Data(
        None, 2, len("published data_batch_1test_batch") + 10
    )
    assert digest(**free, root=str(folder)) is None
    filled(folder, ["test_batch"], "mine ")
    changed = digest(**free, root=str(root))
    assert changed and digest(**CIFAR, root=str(root), verify=True) is None  # which the run itself refuses
    files = {"test_batch": "mine test_batch", "data_batch_1": "published data_batch_1", "readme.html": "x"}
    assert digest(**free, root=str(tarred(tmp_path / "packed", files))) == changed  # extracted or not
    (tmp_path / "packed" / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    assert digest(**free, root=str(tmp_path / "packed")) not in (None, changed)


def test_the_names_of_stl10s_classes_are_content_only_in_another_order(tmp_path):
    node = {"_target_": "cifar10_stl10", "root": str(tmp_path), "verify": True}
    folder = filled(tmp_path / "stl10_binary", ["train_X.bin"])
    names = "airplane bird car cat deer dog horse monkey ship truck"
    (folder / "class_names.txt").write_text(names.replace(" ", "\n") + "\n")
    assert digest(**node) is None
    (folder / "class_names.txt").write_text(names.replace("airplane bird", "bird airplane"))
    assert digest(**node) is not None


def test_fashion_is_its_four_files_where_they_are_found_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_files, "DEBIAN", str(tmp_path / "debian"))
    assert digest(**FASHION, root=None) is None
    filled(tmp_path / "debian", [*data_files.PUBLISHED["FashionMNIST/raw"]])
    debian = digest(**FASHION, root=None)
    assert debian and digest(**FASHION, root="debian") == debian
    filled(tmp_path / "data/FashionMNIST/raw", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
    assert hash_data({**FASHION, "root": None}, Contents()).files == 1  # the plain one


def test_what_options_of_an_own_dataset_name_is_content(tmp_path, monkeypatch):
    monkeypatch.chdir(filled(tmp_path, ["mine/rows.bin", "more/x"]))
    node = {"_target_": "own.data", "mode": "fast", "place": "mine", "parts": [{"extra": "more/x"}], "empty": ""}
    assert hash_data(node, Contents()).files == 2 and hash_data({**node, "place": "a\0b" * 999}, Contents()).files == 1
    config, choices = composed()

    def identity(**changes: Any) -> str:
        return describe_run({**config, "dataset": {**node, **changes}}, choices).id

    first = identity()
    assert identity(place=str(tmp_path / "mine")) == identity(place="./more/../mine") == first
    filled(tmp_path, ["more/x"], "changed ")
    assert identity() != first


def test_files_that_other_own_parts_name_are_content_and_folders_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(filled(tmp_path, ["teacher.pt", "logs/old"]))
    config, choices = composed()

    def identity(teacher: str) -> str:
        method = {"_target_": "own.Method", "teacher": teacher, "logs": "logs"}
        return describe_run({**config, "method": method}, choices).id

    first = identity("teacher.pt")
    filled(tmp_path, ["logs/new"])
    assert identity(str(tmp_path / "teacher.pt")) == first
    filled(tmp_path, ["teacher.pt"], "changed ")
    assert identity("teacher.pt") != first


def test_weights_are_what_they_hold_wherever_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(filled(tmp_path, ["net.pth"]))
    shutil.copy("net.pth", "copy.pth")

    def identity(name: str) -> str:
        return describe_run(*composed("backbone=resnet18", f"backbone.weights={name}")).id

    first = identity("net.pth")
    assert identity(str(tmp_path / "net.pth")) == identity("./copy.pth") == first
    filled(tmp_path, ["net.pth"], "changed ")
    assert identity("net.pth") != first == identity("copy.pth")


@pytest.mark.parametrize("value", [".", "..", "/", "~"])
def test_separators_and_patterns_are_no_data(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path, ["a.csv"])
    assert resolve_path(value, tmp_path) is None and resolve_path("a.csv", tmp_path)


def test_what_file_servers_leave_is_nobodys_data(tmp_path):
    plain, littered = filled(tmp_path / "a", ["cup/1.png"]), filled(tmp_path / "b", ["cup/1.png", "#recycle/2", "T.DB"])
    (littered / "T.DB").rename(littered / "THUMBS.DB")
    assert Contents().of(plain) == Contents().of(littered)
