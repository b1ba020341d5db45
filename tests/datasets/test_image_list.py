"""Images by lists of files: how lines are read, what is refused and where, and what a run knows of its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.image_list import image_list
from tl_runner.datasets.picture import extensions
from tl_runner.datasets.split import Drawn
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import hash_data, identify_dataset
from tl_runner.storage.image_lists import ENDINGS, read_list

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def photos() -> None:
    """Ten images a domain in folders, and the lists that say the same."""
    for d, domain in enumerate("ab"):
        lines = []
        for c, label in enumerate(CLASSES):
            for i in range(5):
                path = Path("data") / domain / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (12, 10), (100 * d + 10 * c, 10 * i, 0)).save(path)
                lines.append(f"{domain}/{label}/{i}.png {label}")
        Path(f"data/{domain}.txt").write_text("\n".join(lines))


def loaded(**options: Any) -> Drawn:
    return image_list(0, Path("cache"), **{"source": "data/a.txt", "target": "data/b.txt", "size": 8, **options})


def listed(*lines: str, name: str = "data/b.txt") -> str:
    Path(name).write_text("\n".join(lines), encoding="utf-8")
    return name


def names(drawn: Drawn) -> list[Path]:
    """The files of the target's rows."""
    assert drawn.target.names is not None
    return [Path(str(name)).resolve() for name in drawn.target.names]


# Lines


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a/b.jpg 3", "a/b.jpg", "3"),
        ("a/b.jpg\t3", "a/b.jpg", "3"),
        ("a/b.jpg,3", "a/b.jpg", "3"),
        ("a/b.jpg ; cat", "a/b.jpg", "cat"),
        ("Real World/my cat.JPG golden retriever", "Real World/my cat.JPG", "golden retriever"),
        ('"a, b.png",3', "a, b.png", "3"),
        ("a, b.png,cat", "a, b.png", "cat"),
        ('a.png,"cat"', "a.png", "cat"),
        ("Real World/my cat.png", "Real World/my cat.png", None),
        ("a.png,", "a.png", None),
        ("a.png.png 1", "a.png.png", "1"),
        ("../up.webp x", "../up.webp", "x"),
        ("é.tif  猫 ", "é.tif", "猫"),
        ("a.png cat, small; grey", "a.png", "cat, small; grey"),
        ("a.png\tcat, small", "a.png", "cat, small"),
        ("a.png,cat; small", "a.png", "cat; small"),
        ("a.png;cat, small", "a.png", "cat, small"),
        ('a.png,"cat, small"', "a.png", "cat, small"),
        ('"a, b.png","cat, small"', "a, b.png", "cat, small"),
    ],
)
def test_a_line_is_a_path_with_blanks_and_a_label(line, path, label):
    (found,) = read_list(Path(listed("# a comment", "", line)))
    assert found == (path, label, 3)


def test_a_first_line_that_names_the_columns_is_passed_over_and_other_lines_are_refused_by_number():
    name = listed("filename,label", "a.png,1", "a.png.bak 3")
    with pytest.raises(
        UserError, match=r"data/b.txt:3: 'a.png.bak 3' names no image file: a path that ends as in .png"
    ):
        read_list(Path(name))
    assert [line.path for line in read_list(Path(listed("\ufeffpath label", "a.png 1")))] == ["a.png"]
    Path(name).write_bytes(b"a.png \xe9")
    with pytest.raises(UserError, match=r"data/b.txt is no text in UTF-8"):
        read_list(Path(name))


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("a.png,cat,train", "comma"),
        ("a.png, cat, train", "comma"),
        ("a.png;cat;train", "semicolon"),
        ("a.png\tcat\ttrain", "tab"),
        ("a.png cat\ttrain", "tab"),
        ("a.png,cat\ttrain", "tab"),
        ('"a, b.png","cat",train', "comma"),
        ('a.png,"cat, small",train', "comma"),
        ("a.png,cat,", "comma"),
        ("a.png,,train", "comma"),
    ],
)
def test_a_third_column_is_no_part_of_the_label(line, sign):
    name = listed("# a comment", "b.png,cat", line)
    with pytest.raises(
        UserError, match=rf"data/b.txt:3: .* has a further {sign} behind its label.*dataset\.test"
    ) as said:
        read_list(Path(name))
    assert repr(line) in str(said.value)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("path,label", 2),
        ("image path,class label", 2),
        ("filename\tlabel", 2),
        ("path", 1),
        ("path,label,split", 3),
        ("image;label;split;fold", 4),
        ("image path\tlabel\tsplit", 3),
        ("path label split", 3),
    ],
)
def test_a_header_of_a_third_column_is_refused(header, names):
    name = listed("", header, "a.png cat")
    if names <= 2:
        assert [line.label for line in read_list(Path(name))] == ["cat"]
    else:
        with pytest.raises(
            UserError, match=rf"data/b.txt:2: .* names {names} columns, and a line is a path and its la"
        ):
            read_list(Path(name))


def test_what_pillow_reads_is_an_image_in_a_list():
    assert {ending[1:] for ending in extensions()} <= {*ENDINGS}


# Domains


def test_lists_give_what_their_folders_give():
    """The rows, their labels and their order: a list is another way to say the same."""
    by_folder = image_folder(0, Path("cache"), source="a", target="b", size=8)
    for drawn in (loaded(), loaded(root="data"), loaded(root=str(Path("data").absolute()))):
        assert drawn.source is not None and by_folder.source is not None
        assert torch.equal(drawn.target.x, by_folder.target.x) and torch.equal(drawn.target.y, by_folder.target.y)
        assert torch.equal(drawn.source.x, by_folder.source.x)
        assert drawn.target.classes == CLASSES and drawn.target.name == "b.txt"
        assert names(drawn) == names(by_folder)


def test_absolute_paths_stay_inside_the_root():
    listed(*(str(path.absolute()) + f" {path.parent.name}" for path in sorted(Path("data/b").rglob("*.png"))))
    assert len(loaded().target.x) == 10
    for line in (f"{Path('cache').absolute()}/x.png cat", "../x.png cat"):
        listed(line)
        with pytest.raises(UserError, match=r"data/b.txt:1: .*x.png leaves the folder data: set dataset.root="):
            loaded()


def test_numbers_are_named_by_a_file_of_names():
    number = {label: i for i, label in enumerate(CLASSES)}
    for name in "ab":
        listed(*(f"{name}/{c}/{i}.png {number[c]}" for c in CLASSES for i in range(5)), name=f"data/{name}.txt")
    assert loaded().target.classes == ("0", "1")
    Path("names.txt").write_text("cat\ndog\n")
    assert loaded(class_names="names.txt").target.classes == CLASSES
    listed("b/cat/0.png 2")
    with pytest.raises(UserError, match=r"data/b.txt:1: class 2 has no name: dataset.class_names holds 2, for 0 to 1"):
        loaded(class_names="names.txt")
    listed("b/cat/0.png cta")
    with pytest.raises(UserError, match=r"data/b.txt:1: 'cta' is not in dataset.class_names – did you mean 'cat'"):
        loaded(class_names="names.txt")
    Path("names.txt").write_text("cat\ncat\n")
    with pytest.raises(UserError, match=r"dataset.class_names=names.txt holds 'cat' more than once"):
        loaded(class_names="names.txt")


def test_lines_of_a_path_alone_are_unlabelled(caplog):
    listed(*(f"b/{c}/{i}.png{' ' + c if i == 0 else ''}" for c in CLASSES for i in range(5)))
    target = loaded().target
    assert target.classes == CLASSES and int((target.y == UNKNOWN).sum()) == 8
    assert "2 of the 10 rows of the target have a label (lines of a path alone)" in caplog.text
    scored = loaded(score_on="labelled").target
    assert scored.part is not None and torch.equal(scored.part == 2, scored.y != UNKNOWN)
    assert bool((loaded(labelled="no").target.y == UNKNOWN).all())
    with pytest.raises(UserError, match=r"target: 8 lines of 10 without a label: data/b.txt:2"):
        loaded(labelled="yes")
    with pytest.raises(UserError, match=r"source: 8 lines of 10 without a label"):
        loaded(source="data/b.txt", target="data/a.txt")


def test_a_test_list_is_the_targets_test_split():
    whole = Path("data/b.txt").read_text().splitlines()
    listed(*whole[::2])
    listed(*whole[1::2], name="data/test.txt")
    target = loaded(test="data/test.txt").target
    assert target.part is not None and target.part.bincount().tolist() == [5, 0, 5]
    assert target.names is not None
    tested = [Path(str(name)).as_posix() for name in target.names[(target.part == 2).numpy()]]
    assert sorted(tested) == sorted(f"data/{line.split()[0]}" for line in whole[1::2])


def test_policies_of_classes_are_those_of_folders():
    Path("data/b/dog").rename("data/b/cow")
    listed(*(f"b/{c}/{i}.png {c}" for c in ("cat", "cow") for i in range(5)))
    with pytest.raises(UserError, match=r"the target has classes that the source does not have: 'data/b.txt:6'"):
        loaded()
    assert loaded(labels="shared").target.classes == ("cat",)
    assert loaded(labels="differ").target.classes == ("cat", "cow")
    assert loaded(label_set=("cat", "cow", "dog")).target.classes == ("cat", "cow", "dog")
    assert loaded(source=None).source is None


def test_missing_files_and_lines_that_contradict_are_named():
    listed("b/cat/0.png cat", "b/cat/7.png cat", "b\\cat\\1.png cat")
    with pytest.raises(
        UserError, match=r"2 files of 3 can't be found in 'data': data/b.txt:2: b/cat/7.png; .*write / for"
    ):
        loaded()
    listed("b/cat/0.PNG cat", "b/Cat/1.png cat", "b/cat/7.PNG cat")
    with pytest.raises(UserError, match="be found") as refused:
        loaded()
    assert (
        "data/b.txt:1: b/cat/0.PNG (there is b/cat/0.png, which differs in case alone); data/b.txt:2: b/Cat/1.png"
        " (there is b/cat/1.png, which differs in case alone); data/b.txt:3: b/cat/7.PNG. Paths" in str(refused.value)
    )
    listed("b/cat/0.png cat", "b/cat/0.png cat")
    with pytest.raises(UserError, match=r"data/b.txt:2: b/cat/0.png is in line 1, too: leave one out"):
        loaded()
    listed("b/cat/0.png cat", "b/../b/cat/0.png dog")
    with pytest.raises(UserError, match=r"is in line 1, too, once as 'cat' and once as 'dog': leave one out"):
        loaded()
    listed("# nothing")
    with pytest.raises(UserError, match=r"data/b.txt names no image"):
        loaded()
    with pytest.raises(UserError, match=r"no.txt can't be read: No such file"):
        loaded(target="no.txt")
    with pytest.raises(UserError, match=r"are both data/a.txt: there is nothing to transfer"):
        loaded(target="data/a.txt")
    with pytest.raises(UserError, match=r"name the lists"):
        loaded(target=None)
    with pytest.raises(UserError, match=r"there is no folder 'nowhere': set dataset.root"):
        loaded(root="nowhere")


# Who a run is


def test_an_id_is_of_the_lists_and_of_what_their_files_hold():
    node = {"_target_": "image_list", "source": "data/a.txt", "target": "data/b.txt", "root": None}
    first = hash_data(node, Contents())
    assert first.files == 22 and first.digest
    Path("data").rename("moved")
    there = {**node, "source": "moved/a.txt", "target": "moved/b.txt"}
    assert hash_data(there, Contents()) == first
    assert identify_dataset(there, "x", Path()) == identify_dataset(node, "x", Path())
    Path("moved/b/unlisted.png").write_text("x")
    assert hash_data(there, Contents()) == first
    assert hash_data({**there, "root": str(Path("moved").absolute())}, Contents()) == first
    Image.new("RGB", (12, 10), (1, 2, 3)).save("moved/b/cat/0.png")
    changed = hash_data(there, Contents())
    assert changed.digest != first.digest
    Path("moved/b.txt").write_text(Path("moved/b.txt").read_text() + "\n# a comment")
    assert hash_data(there, Contents()).digest != changed.digest
    Path("moved/b.txt").write_text("no image")
    assert hash_data(there, Contents()).files == 12  # the run says what is wrong


def test_a_run_on_lists_is_made_and_its_model_predicts_a_list(here):
    words = ["dataset=image_list", "dataset.source=data/a.txt", "dataset.target=data/b.txt", "train=tiny", "threads=1"]
    said = here("tl-run", *words, "method=source_only", "device=cpu", "tracker=none", "diagnose=none")
    assert said.returncode == 0, said.stderr
    (file,) = Path("outputs").rglob("run.json")
    data = json.loads(file.read_text())["data"]
    assert data["domains"] == {"source": "a.txt", "target": "b.txt"} and data["read"]["files"] == 22
    said = here("tl-predict", file.parent, "data/b.txt", "--out", "found.csv")
    assert said.returncode == 0 and len(Path("found.csv").read_text().splitlines()) == 11, said.stderr
