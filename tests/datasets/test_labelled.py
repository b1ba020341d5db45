"""Targets some or all of whose rows have no label: how they are found, what is granted and what is scored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.split import Drawn, split_domains
from tl_runner.datasets.table import table as csv
from tl_runner.domains import UNKNOWN
from tl_runner.errors import UserError

CPU = torch.device("cpu")
NOTHING = Budget("count", 0)


def rows(n: int, seed: int) -> Iterator[str]:
    """So many rows x,c,label in which x tells the class."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        yield f"{rng.normal(2 * (i % 2), 1):.4f},{'uv'[int(rng.random() < 0.5)]},{('no', 'yes')[i % 2]}"


def table(name: str, n: int = 40, seed: int = 0, unlabelled: float = 0.0, column: bool = True) -> str:
    """A file of rows; the first share of them with an empty label, or no such column at all."""
    lines = list(rows(n, seed))
    lines = [line.rpartition(",")[0] + "," if i < unlabelled * n else line for i, line in enumerate(lines)]
    header, kept = ("x,c,label", lines) if column else ("x,c", [line.rpartition(",")[0] for line in lines])
    Path(name).write_text("\n".join([header, *kept, ""]))
    return name


def drawn(**options: Any) -> Drawn:
    return csv(0, source=table("a.csv"), **options)


def told(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING")


def test_a_table_without_a_label_column_has_no_labels_and_the_sources_classes(caplog):
    found = drawn(target=table("b.csv", seed=1, column=False))
    assert found.target.y.tolist() == [UNKNOWN] * 40 and found.target.classes == ("no", "yes")
    assert "b: the target has no labels, so its accuracy stays unknown (there is no column 'label' in b.csv)" in told(
        caplog
    )
    pair, answers, data = split_domains(found, 0, NOTHING, CPU)
    assert data.labelled == [0, 0, 0] and data.rows["target"] == [24, 8, 8] and data.seeds and data.seeds.test == 0
    assert answers.open().tolist() == [UNKNOWN] * 8 and pair.shared_labels
    assert answers.places and sorted(answers.places.of_test) == sorted({*answers.places.of_test})
    assert answers.places.names == tuple(f"b.csv:{line}" for line in range(2, 42))


def test_the_splits_are_the_same_with_and_without_labels():
    """Which row is in which part must not depend on its label, nor on whether it has one."""
    parts = []
    for column, unlabelled in ((True, 0.0), (True, 0.5), (False, 0.0)):
        found = drawn(target=table("b.csv", seed=1, column=column, unlabelled=unlabelled))
        pair, answers, _ = split_domains(found, 0, NOTHING, CPU)
        x = [split.take(torch.arange(len(split))) for split in (pair.target.train, pair.target.val, pair.target.test)]
        parts.append((torch.cat(x), answers.places and answers.places.of_test))
    assert all(torch.equal(x, parts[0][0]) and names == parts[0][1] for x, names in parts)


def test_rows_with_an_empty_label_are_unlabelled_and_the_others_are_scored(caplog):
    found = drawn(target=table("b.csv", seed=1, unlabelled=0.5))
    assert (found.target.y == UNKNOWN).sum() == 20
    assert "b: 20 of the 40 rows of the target have a label (column 'label' of b.csv is empty or NA there)" in told(
        caplog
    )
    _, answers, data = split_domains(found, 0, NOTHING, CPU)
    known = int((answers.open() != UNKNOWN).sum())
    assert data.labelled and sum(data.labelled) == 20 and data.labelled[2] == known and data.seeds
    assert (data.seeds.test, data.seeds.pool) == (known, 20)


def test_labels_are_not_looked_at_where_one_says_so():
    found = drawn(target=table("b.csv", seed=1), labelled="no")
    assert found.target.y.tolist() == [UNKNOWN] * 40 and found.target.x.shape == (40, 2)
    with pytest.raises(
        UserError, match=r"20 of the 40 rows of b have no label .* of the target alone rows may have none"
    ):
        drawn(target=table("b.csv", seed=1, unlabelled=0.5), labelled="yes")
    with pytest.raises(UserError, match=r"dataset.label=label: b.csv has no such column"):
        drawn(target=table("b.csv", seed=1, column=False), labelled="yes")


def test_all_labelled_rows_can_be_scored():
    found = drawn(target=table("b.csv", seed=1, unlabelled=0.5), score_on="labelled")
    pair, answers, data = split_domains(found, 0, NOTHING, CPU)
    assert data.rows["target"] == [16, 4, 20] and data.labelled == [0, 0, 20] and data.seeds
    assert (data.seeds.kind, data.seeds.test, data.seeds.pool) == ("fixed", 20, 20)
    assert (answers.open() != UNKNOWN).all() and len(pair.target.test) == 20
    for unlabelled, why in ((0.0, "every row has one"), (1.0, "no row has one")):
        with pytest.raises(UserError, match=f"score_on=labelled scores the labelled rows of b: {why}"):
            drawn(target=table("b.csv", seed=1, unlabelled=unlabelled), score_on="labelled")


def test_all_labelled_rows_can_be_granted():
    """They move into the train split, and the rows of val and test without a label stay what they were."""
    found = drawn(target=table("b.csv", seed=1, unlabelled=0.5))
    _, plain, before = split_domains(found, 0, NOTHING, CPU)
    pair, answers, data = split_domains(found, 0, Budget.parse("labelled"), CPU)
    assert data.labelled == [20, 0, 0] and data.granted == 20 and before.labelled is not None
    assert data.rows["target"][1:] == [before.rows["target"][part] - before.labelled[part] for part in (1, 2)]
    assert pair.granted is not None and pair.held_out is not None and len(pair.granted.y) + len(pair.held_out.y) == 20
    assert (answers.open() == UNKNOWN).all() and answers.places and plain.places
    assert {*answers.places.of_test} <= {*plain.places.of_test}
    with pytest.raises(UserError, match="every row of b has a label; granted=all grants those of train"):
        split_domains(drawn(target=table("b.csv", seed=1)), 0, Budget.parse("labelled"), CPU)


@pytest.mark.parametrize("granted", ["5", "10%", "all", "labelled"])
def test_labels_can_not_be_granted_where_there_are_none(granted):
    found = drawn(target=table("b.csv", seed=1, column=False))
    with pytest.raises(UserError, match=f"granted={granted} asks for granted target labels, and no row of the train"):
        split_domains(found, 0, Budget.parse(granted), CPU)
    with pytest.raises(UserError, match="this method learns from granted target labels, and no row of the train split"):
        split_domains(found, 0, Budget.parse("auto").settle(needed=True), CPU)


def test_a_labelled_file_is_the_test_part_of_an_unlabelled_one(caplog):
    found = drawn(target=table("b.csv", seed=1, column=False), test=table("t.csv", 12, seed=2))
    pair, answers, data = split_domains(found, 0, NOTHING, CPU)
    assert data.rows["target"] == [32, 8, 12] and data.labelled == [0, 0, 12] and len(pair.target.test) == 12
    assert answers.places and {name.partition(":")[0] for name in answers.places.of_test} == {"t.csv"}
    assert (answers.open() != UNKNOWN).all() and "unknown" not in told(caplog)
    labelled = drawn(target=table("b.csv", seed=1), test="t.csv")
    assert split_domains(labelled, 0, NOTHING, CPU)[2].labelled is None
    for options, why in (
        (
            {"test": "./b.csv"},
            "dataset.target and dataset.test hold the same rows, as 'b.csv' and './b.csv': the test rows must",
        ),
        ({"test": "a.csv"}, "dataset.source and dataset.test are both a.csv: the test rows must be others"),
        ({"test": "t.csv", "score_on": "labelled"}, "and it has one already"),
        ({"test": table("u.csv", 12, seed=2, unlabelled=0.5)}, "6 of the 12 rows of u have no label"),
        ({"test": table("v.csv", 12, seed=2, column=False)}, "dataset.label=label: v.csv has no such column"),
    ):
        with pytest.raises(UserError, match=why):
            drawn(target=table("b.csv", seed=1, unlabelled=0.5), **options)


def test_a_value_of_the_domain_column_may_be_the_test_part():
    lines = [f"{line},{site}" for seed, site in enumerate("abt") for line in rows(20, seed)]
    Path("all.csv").write_text("\n".join(["x,c,label,site", *lines, ""]))
    found = csv(0, file="all.csv", domain="site", source="a", target="b", test="t")
    assert split_domains(found, 0, NOTHING, CPU)[2].rows["target"] == [16, 4, 20]
    with pytest.raises(UserError, match=r"dataset.test=tt: there is no such value in column 'site'"):
        csv(0, file="all.csv", domain="site", source="a", target="b", test="tt")


def test_classes_of_a_target_with_unlabelled_rows_are_the_sources():
    Path("b.csv").write_text("x,c,label\n1.5,u,no\n1.2,v,no\n" + "2.5,u,\n1.7,v,\n" * 9)
    assert drawn(target="b.csv").target.classes == ("no", "yes")
    Path("b.csv").write_text("x,c,label\n1.5,u,other\n" + "2.5,u,\n1.7,v,\n" * 9)
    with pytest.raises(UserError, match=r"does not have: 'other'. dataset.label_set=.* dataset.labelled=no does"):
        drawn(target="b.csv")
    assert len(drawn(target="b.csv", label_set=("no", "yes")).target.y) == 18  # the row of another class is left out
    assert len(drawn(target="b.csv", labelled="no").target.y) == 19
    for labels in ("shared", "differ"):
        with pytest.raises(UserError, match=f"labels={labels} reads from the target's labels .* 18 rows of the target"):
            drawn(target="b.csv", labels=labels)


def test_a_target_may_lack_classes_of_the_source(caplog):
    """It is not refused, since a target without labels could not be: what it holds is for the run to find out."""
    Path("b.csv").write_text("x,c,label\n" + "2.5,u,no\n1.7,v,no\n" * 9)
    found = drawn(target="b.csv")
    assert found.target.classes == ("no", "yes") and {*found.target.y.tolist()} == {0}
    assert "the target has no row of class yes. A run is not told, and may predict it" in told(caplog)
    with pytest.raises(UserError, match=r"dataset.labels=shared leaves the source one class"):
        drawn(target="b.csv", labels="shared")


def test_a_label_column_of_another_name_is_no_feature():
    Path("b.csv").write_text("x,c,Label\n1.5,u,no\n1.2,v,yes\n")
    with pytest.raises(
        UserError, match=r"does not have: Label.* It has no column 'label': if one of these holds the lab"
    ):
        drawn(target="b.csv")


# Folders of images


def draw(*paths: str) -> None:
    for path in paths:
        place = Path("photos") / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(list(Path("photos").rglob("*.png")))).integers(
            0, 256, (9, 9), dtype=np.uint8
        )
        Image.fromarray(pixels).save(place)


@pytest.fixture
def studio() -> None:
    draw(*(f"studio/{label}/{i:02}.png" for label in ("cup", "pen") for i in range(10)))


def loaded(target: str = "inbox", **options: Any) -> Drawn:
    return image_folder(0, Path("cache"), root="photos", source="studio", target=target, size=8, **options)


def y_of(found: Drawn) -> dict[str, int]:
    """The label of each target image by its path in the domain."""
    assert found.target.names is not None
    names = ["/".join(Path(name).parts[2:]) for name in found.target.names]
    return dict(zip(names, found.target.y.tolist(), strict=True))


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("files", "labels", "how"),
    [
        (["0.png", "1.png"], [UNKNOWN, UNKNOWN], "images outside any class folder"),
        (["unlabelled/0.png", "unlabelled/x/1.png"], [UNKNOWN, UNKNOWN], "a folder 'unlabelled'"),
        (["unlabeled/0.png", "pen/1.png"], [1, UNKNOWN], "a folder 'unlabeled'"),
        (["train/0.png", "test/pen/1.png", "val/2.png"], [1, UNKNOWN, UNKNOWN], "images outside any class folder"),
    ],
)
def test_images_without_a_class_folder_have_no_label(files, labels, how, caplog):
    draw(*(f"inbox/{file}" for file in files))
    found = loaded()
    assert sorted(y_of(found)) == sorted(files) and found.target.classes == ("cup", "pen")
    assert [y_of(found)[name] for name in sorted(files)] == labels
    assert f"({how}; dataset.labelled=yes or no says how to read the folders)" in told(caplog)


@pytest.mark.usefixtures("studio")
def test_folders_that_are_no_classes_are_unlabelled_where_one_says_so(caplog):
    draw("inbox/2024/0.png", "inbox/2025/b/1.png", "inbox/2.png")
    with pytest.raises(UserError, match=r"inbox/2024.*=differ for .*, or dataset.labelled=no if the target's"):
        loaded()
    assert {*y_of(loaded(labelled="no")).items()} == {
        (name, UNKNOWN) for name in ("2024/0.png", "2025/b/1.png", "2.png")
    }
    assert "the target has no labels, so its accuracy stays unknown (dataset.labelled=no)" in told(caplog)


@pytest.mark.usefixtures("studio")
def test_what_labelled_yes_means_for_folders(caplog):
    draw("flat/0.png", "half/cup/0.png", "half/unlabelled/1.png", "half/pen/2.png")
    with pytest.raises(UserError, match="photos/flat holds no class folder"):
        loaded("flat", labelled="yes")
    with pytest.raises(UserError, match="that the source does not have: 'photos/half/unlabelled'"):
        loaded("half", labelled="yes")
    draw("loose/cup/0.png", "loose/pen/1.png", "loose/2.png")
    assert sorted(y_of(loaded("loose"))) == ["cup/0.png", "pen/1.png"]
    assert "ignored 1 image beside the class folders: move them into a folder 'unlabelled' to use them" in told(caplog)


def test_a_class_of_the_source_may_be_called_unlabelled():
    draw(
        *(
            f"{domain}/{label}/{i}.png"
            for domain in ("studio", "inbox")
            for label in ("cup", "unlabelled")
            for i in "01"
        )
    )
    assert y_of(loaded()) == {"cup/0.png": 0, "cup/1.png": 0, "unlabelled/0.png": 1, "unlabelled/1.png": 1}


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_labelled_domain_is_the_test_part_of_an_unlabelled_one(memory):
    draw(
        *(f"inbox/{i:02}.png" for i in range(10)),
        *(f"checked/{label}/{i}.png" for label in ("cup", "pen") for i in "01"),
    )
    found = loaded(test="checked", memory=memory)
    pair, answers, data = split_domains(found, 0, NOTHING, CPU)
    assert data.rows["target"] == [8, 2, 4] and data.labelled == [0, 0, 4] and found.on_disk == (memory == 0)
    assert answers.places and all("checked" in name for name in answers.places.of_test)
    assert sorted(answers.open().tolist()) == [0, 0, 1, 1] and len(pair.target.test) == 4
    draw("parts/train/0.png", "parts/test/cup/1.png")
    with pytest.raises(UserError, match="photos/parts is divided and has a test part already"):
        loaded("parts", test="checked")
    with pytest.raises(UserError, match="are both checked: the test images must be others"):
        loaded("checked", test="checked")


@pytest.mark.usefixtures("studio")
def test_a_class_that_the_source_lacks_is_told_with_the_keys_as_they_are_typed():
    draw("inbox/unlabelled/0.png", "inbox/dog/1.png")
    with pytest.raises(UserError, match=r"'photos/inbox/dog' \(it has 'cup', 'pen'\)\. dataset\.label_set=\[…\] st"):
        loaded()


@pytest.mark.usefixtures("studio")
def test_a_folder_may_lack_classes_of_the_source(caplog):
    draw("inbox/pen/0.png", "inbox/pen/1.png")
    assert y_of(loaded()) == {"pen/0.png": 1, "pen/1.png": 1}
    assert "the target has no row of class cup" in told(caplog)


@pytest.mark.usefixtures("studio")
def test_without_a_source_nothing_says_what_an_unlabelled_target_holds():
    draw("inbox/0.png")
    with pytest.raises(UserError, match="the target has images without a label, and there is no source whose classes"):
        image_folder(0, Path("cache"), root="photos", target="inbox", size=8)
