"""From files to the inputs of a run's model, by its record alone: as its dataset made them, or refused in words."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import QUICK, made
from PIL import Image

import tl_runner
from tl_runner.core import Model
from tl_runner.datasets.dialect import Dialect
from tl_runner.datasets.encoding import encode, fit
from tl_runner.datasets.picture import square
from tl_runner.errors import UserError
from tl_runner.preprocessing.batching import Input, Unknown
from tl_runner.preprocessing.images import Images
from tl_runner.preprocessing.recorded import read_preprocessing
from tl_runner.preprocessing.tables import Columns
from tl_runner.storage.sections import DataInfo

FACTS = {
    "columns": [
        {"name": "age", "kind": "numeric", "median": 40.0, "mean": 42.0, "sd": 8.0, "gaps": True},
        {"name": "city", "kind": "categorical", "categories": ["Bonn", "Ulm"]},
        {"name": "dose", "kind": "numeric", "median": 1.0, "mean": 1.5, "sd": 0.5, "gaps": False},
    ]
}
TABLE = Columns(FACTS, Dialect(missing=("NA",)), known=frozenset({"label"}))
SQUARE, EXACT = Images(3, 8, 8, "pillow"), Images(3, 8, 8, "torch")


def noise(high: int, wide: int, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (high, wide, channels) if channels > 1 else (high, wide)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def lines(path: str, *rows: str) -> str:
    Path(path).write_text("\n".join(rows) + "\n")
    return path


def test_what_load_gives_is_unpacked_and_used(tmp_path):
    record = made(tmp_path, *QUICK)
    trained = tl_runner.load(record.folder)
    model, preprocessing, classes = trained
    assert isinstance(model, Model) and not model.training and classes == tuple("0123456789")
    with pytest.raises(AttributeError):
        trained.model = model  # pyright: ignore[reportAttributeAccessIssue]
    x = preprocessing(noise(30, 20, channels=1), noise(8, 8, channels=1))
    assert x.shape == (2, 1, 8, 8) and x.dtype == torch.float32
    assert model(x).shape == (2, 10)
    assert json.dumps(preprocessing.facts)


@pytest.mark.parametrize("size", [(8, 8), (31, 17), (9, 40)])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_file_is_squared_as_image_folder_does_it(size, ending):
    noise(*size).save(f"a.{ending}")
    expected = np.frombuffer(square(Path(f"a.{ending}"), 8).pixels, np.uint8).reshape(3, 8, 8)
    assert torch.equal(SQUARE(f"a.{ending}")[0], torch.tensor(expected) / 255)


def test_a_pillow_image_is_taken_as_its_file_is_and_left_as_it_was():
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(12, 20).save("a.png", exif=exif)
    for way in (SQUARE, EXACT):
        with Image.open("a.png") as image:
            image.load()
            assert torch.equal(way(image), way("a.png")) and image.size == (20, 12)
    with Image.open("a.png") as image:
        assert torch.equal(EXACT(image), EXACT(noise(12, 20).transpose(Image.Transpose.ROTATE_270)))


def test_where_the_dataset_is_of_one_size_numbers_are_resized_not_bytes():
    """As fashion, cifar10 and digits do it: `domains._as_input`, `digits._resize`."""
    image = noise(28, 28)
    x = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float() / 255
    expected = F.interpolate(x, size=(8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(EXACT(image), expected, atol=1e-6, rtol=0)  # 1/255 and · / 255 differ by a last bit
    assert torch.equal(Images(3, 28, 28, "torch")(image), x)
    wide = Image.new("RGB", (40, 28))
    wide.paste(image, (6, 0))
    torch.testing.assert_close(EXACT(wide), EXACT(image), atol=0, rtol=0)  # the central part of its aspect
    upright = Images(3, 20, 10, "torch")(wide)
    left = torch.tensor(np.asarray(wide.crop((13, 0, 27, 28)))).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(upright, F.interpolate(left, size=(20, 10), mode="bilinear", antialias=True))


def test_grey_is_repeated_or_one_channel_and_colour_is_refused_where_there_was_none():
    grey, colour = noise(9, 9, channels=1), noise(9, 9)
    assert torch.equal(SQUARE(grey)[:, 0], SQUARE(grey)[:, 2])
    for resize in ("pillow", "torch"):
        one, three = Images(1, 8, 8, resize), Images(3, 8, 8, resize)
        assert torch.equal(one(grey), three(grey)[:, :1])
        assert torch.equal(one(grey.convert("RGB")), one(grey))  # grey in all but its mode
        with pytest.raises(UserError, match=r"image 2: it has colour, and this run was trained on grey images alone"):
            one(grey, colour)


def test_deep_pixels_are_as_exact_as_the_file_has_them():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save("float.tiff")
    Image.fromarray((values * 65535).round().astype(np.uint16)).save("deep.png")
    one = Images(1, 8, 8, "torch")
    torch.testing.assert_close(one("float.tiff")[0, 0], torch.tensor(values), atol=1e-7, rtol=0)
    torch.testing.assert_close(one("deep.png")[0, 0], torch.tensor(values), atol=1 / 65535, rtol=0)
    Path("deep.pgm").write_bytes(b"P5 8 8 65535\n" + (values * 65535).round().astype(">u2").tobytes())
    with Image.open("deep.pgm") as image:  # whose 32-bit numbers are known to have 16, since it says its format
        assert (
            image.mode == "I" and torch.equal(one(image), one("deep.pgm")) and torch.equal(one(image), one("deep.png"))
        )


def test_images_that_can_not_be_read_are_named(tmp_path):
    lines("words.png", "no image")
    for name, why in (
        ("words.png", "no image that Pillow knows"),
        ("gone.png", "No such file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{why}"):
            SQUARE(name)
    with pytest.raises(UserError, match="at least one image"):
        SQUARE()
    noise(9, 9).save("good.png")
    (portion,) = SQUARE.portions([Input(Path(name)) for name in ("gone.png", "good.png")], 8)
    assert portion.names == ["good.png"] and portion.x.shape == (1, 3, 8, 8) and [*portion.bad] == ["gone.png"]


def test_rows_of_a_table_are_encoded_as_in_training_whatever_the_order_of_columns():
    file = lines("new.csv", "dose,city,label,age", "2,Ulm,yes,50", "1,Bonn,no,NA")
    expected = torch.tensor([[1.0, 0, 0, 1, 1], [-0.25, 1, 1, 0, -1]])  # age, its gap, Bonn, Ulm, dose
    assert torch.equal(TABLE(file), expected)
    assert torch.equal(
        TABLE({"age": 50, "dose": 2.0, "city": " Ulm"}, {"age": None, "city": "Bonn", "dose": "1"}), expected
    )
    parts = list(TABLE.portions([Input(Path(file)), Input(Path(file), [3])], 1))
    assert [part.names for part in parts] == [["new.csv:2"], ["new.csv:3"], ["new.csv:3"]]
    assert torch.equal(torch.cat([part.x for part in parts]), expected[[0, 1, 1]])
    raw = np.array([[50, 3.0], [30, np.nan]])
    facts = fit(raw, {"a": "numeric", "b": "numeric"}, {})
    assert torch.equal(Columns(facts)({"a": 50, "b": 3}), encode(torch.tensor(raw[:1]), facts))
    assert TABLE.numbers == expected.shape[1] == TABLE.random(3, -1.0, 1.0, torch.Generator()).shape[1]


def test_a_number_that_stands_for_a_missing_value_is_none_in_files_and_in_rows():
    table = Columns(FACTS, Dialect(missing=("-999",)))
    rows = [table({"age": age, "dose": 2, "city": "Ulm"}) for age in (None, -999, -999.0, "-999", "-999.00")]
    assert all(row.equal(rows[0]) for row in rows)
    file = lines("new.csv", "age,dose,city", "-999.0,2,Ulm", "-999,2,Ulm")
    assert torch.equal(table(file), torch.cat(rows[:2]))


def test_an_unknown_category_is_taken_like_a_missing_one_and_said(caplog):
    caplog.set_level(logging.WARNING)
    row = TABLE({"age": 50, "city": "Kiel", "dose": 2, "shoe": 44})
    assert torch.equal(row, TABLE({"age": 50, "city": None, "dose": 2}))
    assert "column 'city': Kiel not seen in training, treated as missing" in caplog.text
    assert "was not trained on the columns shoe, which are ignored" in caplog.text


def test_a_gap_where_training_had_none_is_filled_and_said(caplog):
    caplog.set_level(logging.WARNING)
    row = TABLE(lines("new.csv", "age,city,dose", ",Ulm,", ",Ulm,1"))
    assert torch.equal(row[0], row[1])
    assert "new.csv, column 'dose': 1 of 2 values is missing, and none was in training" in caplog.text
    assert "taken as the median of training, 1" in caplog.text and "'age'" not in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["age,citty,dose", "1,Ulm,2"], "has no column 'city' – did you mean 'citty'?"),
        (["Age;city;dose", "1;Ulm;2"], "no column 'age'.*read with a semicolon between cells, has Age, city"),
        (
            ["age,city,dose", "1,Ulm,2", "x7,Ulm,2"],
            r"column 'age': new.csv:3 holds 'x7', which is no finite number \(1 of",
        ),
        (["age,city,dose", "1,Ulm,-"], "missing values are empty, NA"),
        (["age,city,dose", "1,Ulm"], "line 2 of new.csv has 2 cells, the header 3"),
        (["age,city,dose"], "has a header and no rows"),
        (["age,age,city,dose", "1,1,Ulm,2"], "2 columns of the name 'age'"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_words(rows, message):
    with pytest.raises(UserError, match=message):
        TABLE(lines("new.csv", *rows))


def test_other_columns_may_be_as_they_are():
    """Without a name, twice, of text: what the run did not learn from is not looked at."""
    file = lines("new.csv", ",note,note,age,city,dose", "0,a,b,50,Ulm,2")
    assert torch.equal(TABLE(file), TABLE({"age": 50, "city": "Ulm", "dose": 2}))


def test_rows_that_do_not_fit_are_refused_in_words():
    with pytest.raises(UserError, match=r"row 2 has no column 'city' – did you mean 'City'\?"):
        TABLE({"age": 1, "city": "Ulm", "dose": 1}, {"age": 1, "City": "Ulm", "dose": 1})
    with pytest.raises(UserError, match="column 'dose': row 1:1 holds 'much'"):
        TABLE({"age": 1, "city": "Ulm", "dose": "much"})
    with pytest.raises(UserError, match="no row at line 7: the file has changed"):
        next(TABLE.portions([Input(Path(lines("a.csv", "age,city,dose", "1,Ulm,2")), [7])], 1))


IMAGE = DataInfo(shape=[3, 8, 8], resize="torch")


def test_the_record_tells_the_preprocessing():
    assert read_preprocessing(replace(IMAGE, resize="pillow"), {}) == SQUARE and read_preprocessing(IMAGE, {}) == EXACT
    node = {"label": "label", "domain": None, "drop": ["id"], "separator": "tab", "missing": ["-"]}
    table = read_preprocessing(DataInfo(shape=[5], encoding=FACTS), node)
    assert table == Columns(FACTS, Dialect("tab", missing=("-",)), frozenset({"label", "id"}))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (DataInfo(shape=[10]), r"come from toys.blobs, not from files: give the model a tensor \(n, 10\)"),
        (DataInfo(shape=[3], encoding={"mean": [0]}), "not from files"),
        (replace(IMAGE, shape=[4, 8, 8]), "have 4 channels, and those of a file 1 or 3"),
        (replace(IMAGE, range=[-2.0, 2.5]), "go from -2 to 2.5, and those of a file from 0 to 1"),
        (DataInfo(shape=[3, 8, 8]), "does not say how its images were resized"),
    ],
)
def test_what_the_record_does_not_tell_is_refused_when_it_is_used(data: DataInfo, why: str):
    unknown = read_preprocessing(data, {"_target_": "toys.blobs"})
    assert isinstance(unknown, Unknown)
    with pytest.raises(UserError, match=why):
        unknown("a.png")
    with pytest.raises(UserError, match=why.partition(": ")[0]):
        unknown.portions([], 3)


def test_random_rows_of_a_table_are_such_as_encoding_makes():
    x = TABLE.random(500, -2.0, 3.0, torch.Generator().manual_seed(0))
    age, gap, city, dose = x[:, 0], x[:, 1], x[:, 2:4], x[:, 4]
    assert set(gap.tolist()) == {0.0, 1.0} and bool((age[gap == 1] == 0).all())
    assert set(city.sum(1).tolist()) == {0.0, 1.0} and 0.25 < city[:, 0].mean() < 0.42  # a third each, and missing
    for column in (age[gap == 0], dose):
        assert -2 <= column.min() < -1.9 and 2.9 < column.max() <= 3
