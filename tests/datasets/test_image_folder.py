"""A user's images: what a folder may look like, what a file may be, and what is said where it can't be used."""

import io
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tl_runner.datasets import decoded, decoded_once
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.picture import copy_pixels, extensions, resize_to_square, square
from tl_runner.datasets.pixel_format import PixelFormat
from tl_runner.datasets.split import Drawn, Raw, split_domains
from tl_runner.errors import UserError
from tl_runner.storage.sections import SeedInfo

CPU = torch.device("cpu")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
A_TO_B = {"source": "a", "target": "b", "size": 8}


def draw(path: Path, colour: Any = 0, mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 10), colour).save(path, **options)
    return path


def plain(root: Path, domains: Iterable[str] = "ab", classes: Iterable[str] = ("cat", "dog"), n: int = 5) -> Path:
    """Images of one colour: red says which domain and class, green which image."""
    for d, domain in enumerate(domains):
        for c, label in enumerate(classes):
            for i in range(n):
                draw(root / domain / label / f"{i}.png", (100 * d + 10 * c, 10 * i, 0))
    return root


def loaded(**options: Any) -> Drawn:
    return image_folder(0, Path("cache"), **{**A_TO_B, **options})


def both(**options: Any) -> tuple[Raw, Raw]:
    source, target, *_ = loaded(**options)
    assert source is not None
    return source, target


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]


def pixel(path: Path) -> tuple[int, ...]:
    """The RGB of the middle of a file's square."""
    return tuple(np.frombuffer(square(path, 8).pixels, np.uint8).reshape(3, 8, 8)[:, 4, 4].tolist())


@pytest.fixture(scope="module")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits as PNGs: as they are, and inverted in a divided domain whose val is missing."""
    root = tmp_path_factory.mktemp("digits")
    images, y = load_digits(return_X_y=True)
    for i, (image, label) in enumerate(zip(images[:400], y, strict=False)):
        inked = np.round(image.reshape(8, 8) * 255 / 16).astype(np.uint8)
        part = "train" if i % 4 else "test"
        path = root / "ink" / str(label) / f"{i}.png" if i < 200 else root / "chalk" / part / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inked if i < 200 else 255 - inked).save(path)
    return root


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_real_digits_come_out_as_they_were_written_in_memory_and_on_disk(digit_files, memory):
    drawn = loaded(root=str(digit_files), source="ink", target="chalk", memory=memory)
    assert drawn.on_disk == (memory == 0) and drawn.notes["skipped"] == {"source": 0, "target": 0}
    pair, answers, data = split_domains(drawn, 0, Budget("count", 2), CPU)
    assert data.resize == "pillow" and data.range == [0.0, 1.0]
    assert data.rows == {"source": [120, 40, 40], "target": [120, 30, 50]} and data.shape == [1, 8, 8]
    images, y = load_digits(return_X_y=True)
    known = {np.round(x * 255 / 16).astype(np.uint8).tobytes(): int(label) for x, label in zip(images, y, strict=True)}
    assert pair.source is not None and pair.source.labels is not None and pair.granted is not None
    for split, labels, inverted in (
        (pair.source.train, pair.source.labels.train, False),
        (pair.target.test, answers.open(), True),
        (pair.granted.x, pair.granted.y, True),
    ):
        x = split.take(torch.arange(len(split)))
        assert x.dtype == torch.float32
        seen = ((1 - x if inverted else x) * 255).round().to(torch.uint8).numpy()
        assert [known[row.tobytes()] for row in seen] == labels.tolist()


def test_the_record_says_whether_the_test_split_is_the_folders_own(digit_files):
    for source, target, told in (
        ("chalk", "ink", SeedInfo("resplit", 40, 200)),
        ("ink", "chalk", SeedInfo("fixed", 50, 50)),
    ):
        drawn = loaded(root=str(digit_files), source=source, target=target)
        assert split_domains(drawn, 0, Budget("count", 0), CPU)[2].seeds == told


@pytest.mark.parametrize("bad", [False, True])
def test_the_test_rows_are_known_by_their_files_beside_the_answers(digit_files, bad):
    shutil.copytree(digit_files, "data")
    if bad:  # a file that is skipped moves no name
        Path("data/chalk/test/3/000.png").write_bytes(b"no image")
    drawn = loaded(source="ink", target="chalk", on_bad="skip")
    pair, answers, _ = split_domains(drawn, 0, Budget("count", 2), CPU)
    assert answers.places and len(answers.places.of_test) == len(pair.target.test) == 50
    x, labels = pair.target.test.take(torch.arange(50)), answers.open().tolist()
    for name, row, label in zip(answers.places.of_test, x, labels, strict=True):
        assert (row * 255).round().byte().numpy().tobytes() == square(Path(name), 8).pixels[:64]
        assert Path(name).parent == Path("data/chalk/test") / str(label)


def test_on_disk_gives_the_batches_that_memory_gives(digit_files):
    options = {"root": str(digit_files), "source": "ink", "target": "chalk", "size": 12}
    there, here = (split_domains(loaded(**options, memory=memory), 3, Budget("count", 0), CPU) for memory in (0.0, 2.0))
    rows = torch.tensor([5, 0, 17])
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(there[0].target, part).take(rows), getattr(here[0].target, part).take(rows))
    assert there[2].fingerprint == here[2].fingerprint


def test_rows_keep_class_part_and_channels_at_any_depth(tmp_path):
    root = plain(tmp_path / "data", "a")
    for part, red in (("train", 50), ("val", 100), ("test", 150)):
        for c, label in enumerate(("cat", "dog")):
            for i in range(2 + c):
                draw(root / "b" / part / label / "deeper" / "still" / f"{i}.PNG", (red + c, 0, 0))
    source, target = both()
    assert source.classes == target.classes == ("cat", "dog") and source.part is None and target.part is not None
    assert target.x.shape == (15, 3, 8, 8) and target.x.dtype == torch.uint8
    red = target.x[:, 0, 0, 0].long()
    assert torch.equal(red, 50 * (target.part + 1) + target.y) and target.part.bincount().tolist() == [5, 5, 5]
    assert torch.equal(source.x[:, 0, 0, 0].long(), 10 * source.y)


def test_one_side_in_colour_makes_both_so(tmp_path):
    root = plain(tmp_path / "data", "a")
    for label in ("cat", "dog"):
        draw(root / "b" / label / "0.png", 77, "L")
    draw(root / "b" / "dog" / "1.png", 88, "LA")
    source, target = both()
    assert source.x.shape[1:] == target.x.shape[1:] == (3, 8, 8)
    shutil.rmtree(root / "a")
    (root / "b").rename(root / "a")
    shutil.copytree(root / "a", root / "b")
    assert loaded().target.x.shape == (3, 1, 8, 8)


def test_without_a_source_the_weights_are_it(tmp_path):
    plain(tmp_path / "data", "b")
    drawn = loaded(source=None)
    assert drawn.source is None and drawn.target.name == "b" and drawn.notes["skipped"] == {"target": 0}


# What a file may be


@pytest.mark.parametrize(
    ("name", "mode", "colour", "seen", "options"),
    [
        ("one_bit.png", "1", 1, WHITE, {}),
        ("grey.jpg", "L", 128, (128, 128, 128), {}),
        ("sixteen.png", "I;16", 32896, (128, 128, 128), {}),
        ("sixteen.tif", "I;16", 32896, (128, 128, 128), {}),
        ("sixteen.pgm", "I;16", 32896, (128, 128, 128), {}),
        ("float.tif", "F", 0.5, (128, 128, 128), {}),
        ("palette.gif", "P", 3, (0, 3, 3), {}),
        ("clear_palette.png", "P", 3, WHITE, {"transparency": 3}),
        ("clear_key.png", "RGB", RED, WHITE, {"transparency": RED}),
        ("clear.png", "RGBA", (255, 0, 0, 0), WHITE, {}),
        ("half.png", "RGBA", (255, 0, 0, 51), (255, 204, 204), {}),
        ("grey_alpha.png", "LA", (0, 0), WHITE, {}),
        ("print.jpg", "CMYK", (0, 255, 255, 0), (254, 0, 0), {"quality": 100}),
        ("print.tif", "CMYK", (255, 0, 255, 0), GREEN, {}),
        ("video.jpg", "YCbCr", (76, 85, 255), (254, 0, 0), {"quality": 100}),
        ("web.webp", "RGB", BLUE, BLUE, {"lossless": True}),
        ("bitmap.bmp", "RGB", BLUE, BLUE, {}),
    ],
)
def test_every_kind_of_pixel_becomes_eight_bit_rgb(tmp_path, name, mode, colour, seen, options):
    path = tmp_path / name
    image = Image.new(mode, (12, 10), colour)
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (0, i, i)])
    image.save(path, **options)
    assert pixel(path) == pytest.approx(seen, abs=1)
    assert square(path, 8).grey == (mode in ("1", "L", "LA", "I;16", "F"))
    assert path.suffix in extensions()


@pytest.mark.parametrize(("mode", "value"), [("I", 200), ("F", 200.0), ("F", float("nan")), ("F", -0.1)])
def test_numbers_whose_white_is_unknown_are_not_guessed(tmp_path, mode, value):
    Image.new(mode, (12, 10), value).save(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match="no telling which number is white"):
        square(tmp_path / "depth.tif", 8)


def ramp(path: Path, top: int, mode: str = "I;16") -> Path:
    """A scan of 64 pixels whose numbers go evenly from 0 to `top`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.round(np.linspace(0, top, 64)).reshape(8, 8)
    Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])).save(path)
    return path


def scans(top: int, ending: str = "png", mode: str = "I;16") -> None:
    for domain in "ab":
        for label in ("cat", "dog"):
            for i in range(5):
                ramp(Path("data") / domain / label / f"{i}.{ending}", top - 8 * i, mode)


def test_a_scan_of_twelve_bits_keeps_all_its_grey_levels(caplog):
    """Of 64 different numbers 0…4095; at white = 65535 they are 16 grey levels between 0 and 16."""
    scans(4095)
    dark = loaded().target.x
    assert len(dark.unique()) == 17 and dark.max() == 16
    said = "the 16-bit pixels go from 0 to 4095 of 65535, and come out dark, in at most 17 grey levels. If they are"
    assert said in caplog.text and "of 12 bits, set dataset.bit_depth=12; dataset.bit_depth=16 keeps" in caplog.text
    assert [said.partition(":")[0] for said in warned(caplog)] == ["data/a", "data/b"]
    caplog.clear()
    drawn = loaded(bit_depth=12)
    assert not warned(caplog) and drawn.notes["pixel_format"] == {"bit_depth": 12, "channels": None}
    expected = np.round(np.round(np.linspace(0, 4095, 64)) * 255 / 4095).reshape(8, 8)
    assert drawn.target.x.shape == (10, 1, 8, 8) and np.array_equal(drawn.target.x[0, 0].numpy(), expected)
    assert len(drawn.target.x[0].unique()) == 64
    assert torch.equal(loaded(bit_depth=16).target.x, dark) and not warned(caplog)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1000, 10), (4000, 12), (16000, 14), (30000, 15)])
def test_the_depth_that_is_advised_is_that_of_a_camera(caplog, top, bits):
    scans(top)
    loaded()
    assert f"set dataset.bit_depth={bits};" in caplog.text
    assert loaded(bit_depth=bits).target.x.max() > 200


def test_scans_of_all_sixteen_bits_are_no_doubt(caplog):
    scans(65535)
    assert loaded().target.x.max() == 255 and not warned(caplog)


@pytest.mark.parametrize(("mode", "ending"), [("I", "tif"), ("F", "tif")])
def test_the_depth_says_what_is_white_in_files_of_32_bits(mode, ending):
    scans(4095, ending, mode)
    with pytest.raises(UserError, match=r"32 bits a pixel from 0 to 4095, and no telling which number is white: "):
        loaded()
    assert loaded(bit_depth=12).target.x.max() == 255


def test_a_depth_that_a_file_goes_beyond_or_none_has_is_refused():
    scans(4095)
    with pytest.raises(UserError, match=r"its pixels go from 0 to 4095, and 10 bits \(dataset.bit_depth\) to 1023"):
        loaded(bit_depth=10)
    with pytest.raises(UserError, match="bit_depth must be between 1 and 32, got 33"):
        loaded(bit_depth=33)
    shutil.rmtree("data")
    plain(Path("data"))
    with pytest.raises(UserError, match=r"dataset.bit_depth=12: no file holds more than 8 bits a pixel; leave it out"):
        loaded(bit_depth=12)


def sixteen_bit_colour(path: Path, top: int) -> None:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.full((10, 12, 3), top, ">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 12, 10, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = [struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


def test_sixteen_bit_colours_of_twelve_bits_are_told_of(caplog):
    root = plain(Path("data"))
    for label in ("cat", "dog"):
        shutil.rmtree(root / "b" / label)
        for i in range(5):
            sixteen_bit_colour(root / "b" / label / f"{i}.png", 4095)
    loaded()
    assert "data/b: the upper bytes of the 16-bit colours go from 15 to 15 of 255, and come out dark" in caplog.text
    with pytest.raises(UserError, match=r"16 bits a channel, of which Pillow gives the upper 8.*dataset.bit_depth"):
        loaded(bit_depth=12)


def test_the_depth_that_a_tiff_states_is_followed(caplog):
    """Pillow reads 12 bits a sample, and writes none: the file is put together by hand."""
    values = np.round(np.linspace(0, 4095, 64)).astype(int).tolist()
    packed = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in zip(values[::2], values[1::2], strict=True))
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 8)]
    tags.append((279, 4, len(packed)))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    content = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed
    content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    Path("scan.tif").write_bytes(content)
    found = square(Path("scan.tif"), 8)
    assert found.numbers.deep is None
    x = np.frombuffer(found.pixels, np.uint8).reshape(3, 64)
    with Image.open("scan.tif") as image:
        assert resize_to_square(copy_pixels(image), 8) == found  # as a user hands it to a loaded run
    assert np.array_equal(x[0], np.round(np.array(values) * 255 / 4095))


def four_bands(fourth: int, mode: str = "RGBA") -> None:
    """TIFFs as an aerial camera's: red, green, blue and near infrared."""
    for domain in "ab":
        for label in ("cat", "dog"):
            for i in range(5):
                draw(Path("data") / domain / label / f"{i}.tif", (200, 10 * i, 50, fourth + i), mode)


def test_a_fourth_band_is_taken_for_transparency_only_with_a_word(caplog):
    four_bands(0)
    x = loaded().target.x
    assert x[:, :, 4, 4].min() > 240  # all but white
    said = "data/b: the fourth band of the TIFFs goes from 0 to 4 of 255, and is treated as transparency: at 0 a pixel"
    assert said in caplog.text and "dataset.channels=3 leaves that band out, dataset.channels=rgba" in caplog.text
    assert "data/b: 2 images are transparent everywhere, and so white" in caplog.text
    caplog.clear()
    assert torch.equal(loaded(channels="rgba").target.x, x) and not warned(caplog)
    drawn = loaded(channels=3)
    assert drawn.target.x[:, :, 4, 4].tolist() == [[200, 10 * i, 50] for i in range(5)] * 2
    assert not warned(caplog) and drawn.notes["pixel_format"]["channels"] == 3
    grey = loaded(channels=1).target.x
    assert grey.shape == (10, 1, 8, 8) and grey[1, 0, 4, 4] == round(0.299 * 200 + 0.587 * 10 + 0.114 * 50)


def test_an_opaque_fourth_band_is_no_doubt_and_a_nameless_one_is_told_of(caplog):
    four_bands(251)
    for file in Path("data").rglob("*.tif"):
        draw(file, (200, 0, 50, 255), "RGBA")
    loaded()
    assert not warned(caplog)
    four_bands(0, "RGBX")
    assert loaded().target.x[0, :, 4, 4].tolist() == [200, 0, 50]
    assert "data/b: the fourth band of 10 TIFFs has no stated meaning and is ignored." in caplog.text
    caplog.clear()
    loaded(channels=3)
    assert not warned(caplog)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_images_that_are_transparent_everywhere_are_told_of(caplog, ending):
    root = plain(Path("data"))
    draw(root / "b" / "cat" / f"clear.{ending}", (10, 20, 30, 0), "RGBA")
    draw(root / "b" / "cat" / f"half.{ending}", (10, 20, 30, 128), "RGBA")
    loaded()
    assert "data/b: 1 image is transparent everywhere, and so white. dataset.channels=3" in caplog.text
    caplog.clear()
    assert loaded(channels="rgba") and not warned(caplog)


def test_grey_files_have_as_many_channels_as_is_said():
    root = Path("data")
    for domain in "ab":
        for label in ("cat", "dog"):
            for i in range(5):
                draw(root / domain / label / f"{i}.png", 10 * i, "L")
    assert [loaded(channels=channels).target.x.shape[1] for channels in (None, 1, 3)] == [1, 1, 3]


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (40, 40), RED)
    image.paste(BLUE, (0, 0, 40, 20))  # blue above, red below; turned by 90° to the right: blue on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    x = np.frombuffer(square(tmp_path / "turned.png", 8).pixels, np.uint8).reshape(3, 8, 8)
    assert x[:, 4, 1].tolist() == list(RED) and x[:, 4, 6].tolist() == list(BLUE)


def test_the_first_frame_of_a_film_is_taken(tmp_path):
    frames = [Image.new("RGB", (12, 10), colour) for colour in (GREEN, RED)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "film.gif") == GREEN


def test_the_central_square_is_taken_and_averaged(tmp_path):
    x = np.full((32, 96, 3), 255, np.uint8)
    x[:, 32:64] = np.indices((32, 32)).sum(0)[..., None] % 2 * 255  # a chessboard between two white squares
    Image.fromarray(x).save(tmp_path / "wide.png")
    Image.fromarray(x).save(tmp_path / "wide.jpg", quality=95)
    for name in ("wide.png", "wide.jpg"):
        inner = np.frombuffer(square(tmp_path / name, 8).pixels, np.uint8).reshape(3, 8, 8)[:, 1:-1, 1:-1]
        assert np.abs(inner.astype(float) - 127.5).max() < 8  # without antialiasing: 0 or 255


def test_a_jpeg_unpacked_in_part_looks_as_if_unpacked_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((256, 256)).save(tmp_path / "part.jpg", quality=95)
    with Image.open(tmp_path / "part.jpg") as image:
        image.save(tmp_path / "whole.png")
    part, whole = (np.frombuffer(square(tmp_path / name, 32).pixels, np.uint8) for name in ("part.jpg", "whole.png"))
    assert np.abs(part.astype(float) - whole).mean() < 3


def test_no_program_is_started_on_a_file(tmp_path):
    Image.new("RGB", (12, 10)).save(tmp_path / "page.eps")
    shutil.move(tmp_path / "page.eps", tmp_path / "page.png")
    with pytest.raises(Image.UnidentifiedImageError):
        square(tmp_path / "page.png", 8)
    assert not {".eps", ".ps", ".pdf", ".h5", ".mpg", ".txt", ".npy"} & extensions()


# What is said


def truncated(path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG" if path.suffix == ".jpg" else "PNG")
    path.write_bytes(buffer.getvalue()[:-1500])


def claiming(side: int) -> Callable[[Path], None]:
    """A PNG of a few bytes whose header promises this many pixels a side."""

    def write(path: Path) -> None:
        draw(path)
        content = bytearray(path.read_bytes())
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)

    return write


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut.jpg": (truncated, "truncated"),
    "cut.png": (truncated, ""),
    "empty.png": (Path.touch, "empty"),
    "words.png": (lambda path: path.write_text("this is no image"), "no image that Pillow knows"),
    "bomb.png": (claiming(50_000), "too large: .*exceeds limit"),
    "half_a_bomb.png": (claiming(10_000), "too large: .*exceeds limit"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
}


@pytest.mark.filterwarnings("default")  # as outside of tests, where Pillow only warns of half a bomb
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_refused_by_its_path_or_skipped_and_counted(tmp_path, caplog, name):
    root = plain(tmp_path / "data")
    make, reason = BAD[name]
    make(root / "b" / "cat" / name)
    with pytest.raises(UserError, match=rf"1 of 21 files can't be read: '.*/b/cat/{name}' \(.*{reason}.*on_bad=skip"):
        loaded(root=str(root))
    drawn = loaded(root=str(root), on_bad="skip")
    assert drawn.notes["skipped"] == {"source": 0, "target": 1}
    assert drawn.target.y.tolist() == [0] * 5 + [1] * 5
    assert torch.equal(drawn.target.x[:, 0, 0, 0].long(), 100 + 10 * drawn.target.y)
    assert "skipped: 1 of 21 files can't be read" in caplog.text


def test_many_bad_files_of_both_domains_are_told_at_once(tmp_path):
    root = plain(tmp_path / "data")
    for domain in "ab":
        for i in range(4):
            (root / domain / "dog" / f"bad{i}.png").touch()
    with pytest.raises(UserError, match=r"8 of 28 files can't be read: '.*a/dog/bad0.png'.*b/dog/bad0.* and 3 more"):
        loaded()


def test_a_class_without_a_readable_image_is_refused(tmp_path):
    root = plain(tmp_path / "data")
    (root / "b" / "cow").mkdir()
    with pytest.raises(UserError, match=r"the target has classes that the source does not have: 'data/b/cow'"):
        loaded()
    (root / "a" / "cow").mkdir()
    with pytest.raises(UserError, match=r"'data/a/cow' holds no image \(other files: 0\)"):
        loaded()
    draw(root / "a" / "cow" / "0.png")
    (root / "b" / "cow" / "0.webm").touch()
    with pytest.raises(UserError, match=r"'data/b/cow' holds no image \(other files: 1\)"):
        loaded()
    (root / "b" / "cow" / "0.png").touch()
    with pytest.raises(UserError, match=r"data/b: of class 'cow' no image can be read"):
        loaded(on_bad="skip")


def test_a_class_with_one_image_is_a_class(tmp_path):
    root = plain(tmp_path / "data", n=10)
    for domain in "ab":
        draw(root / domain / "axolotl" / "0.png")
    _, _, data = split_domains(loaded(), 1, Budget("count", 0), CPU)
    assert data.classes == ["axolotl", "cat", "dog"] and data.rows["target"] == [12, 4, 5]


def test_too_few_images_are_refused(tmp_path):
    plain(tmp_path / "data", n=2)
    with pytest.raises(UserError, match="split of a would hold"):
        split_domains(loaded(), 0, Budget("count", 0), CPU)


def test_class_sets_may_differ_if_one_says_so(tmp_path):
    root = plain(tmp_path / "data", "a", ("cat", "dog", "emu"))
    plain(root, "b", ("ant", "dog", "emu"))
    with pytest.raises(UserError, match=r"that the source does not have: '.*b/ant' \(it .*'emu'\).* the 2 that both"):
        loaded()
    for side in both(labels="shared"):
        assert side.classes == ("dog", "emu")
        assert torch.equal(side.x[:, 0, 0, 0].long() % 100, 10 * (side.y + 1))
    assert tuple(side.classes for side in both(labels="differ")) == (("cat", "dog", "emu"), ("ant", "dog", "emu"))
    for name in ("dog", "emu"):
        shutil.rmtree(root / "b" / name)
    with pytest.raises(UserError, match="no class is in both: 'cat', 'dog', 'emu' and 'ant'"):
        loaded(labels="shared")


def test_classes_by_the_targets_labels_are_granted_knowledge(tmp_path, caplog):
    root = plain(tmp_path / "data", "a", ("cat", "dog", "emu", "fox"))
    plain(root, "b", ("ant", "dog", "emu"), n=4)
    assert loaded(labels="shared").notes["left_out"] == {"source": 10, "target": 4}
    assert loaded(labels="shared").notes["label_knowledge"] == {
        "by": "target labels", "left_out": {"source": ["cat", "fox"], "target": ["ant"]},
    }  # fmt: skip
    assert "leaves out 10 rows of the source (cat, fox) and 4 rows of the target (ant)" in caplog.text
    assert "dataset.label_set=[…] states the classes instead" in caplog.text
    caplog.clear()
    plain(root, "c", ("cat", "dog", "emu", "fox"))
    drawn = loaded(labels="shared", target="c")
    assert drawn.notes["left_out"] == {"source": 0, "target": 0} and "label_knowledge" not in drawn.notes
    assert "label_knowledge" not in loaded(target="c").notes and not warned(caplog)


def test_stated_classes_are_those_of_both_whatever_the_target_holds(tmp_path, caplog):
    root = plain(tmp_path / "data", "a", ("cat", "dog", "emu", "fox"))
    plain(root, "xb", ("ant", "dog", "emu"))  # of other colours than the source's
    drawn = loaded(label_set=("fox", "emu", "dog"))
    source, target = drawn.source, drawn.target
    assert source is not None
    assert source.classes == target.classes == ("dog", "emu", "fox")
    assert source.y.bincount().tolist() == [5, 5, 5] and target.y.bincount().tolist() == [5, 5]  # no fox is there
    assert torch.equal(source.x[:, 0, 0, 0].long(), 10 * (source.y + 1))
    assert drawn.notes["left_out"] == {"source": 5, "target": 5}
    assert drawn.notes["label_knowledge"] == {"by": "label_set", "classes": ["dog", "emu", "fox"]}
    assert warned(caplog) == ["dataset.label_set leaves out 5 rows of the source (cat) and 5 rows of the target (ant)"]
    assert split_domains(drawn, 0, Budget("count", 0), CPU)[2].classes == ["dog", "emu", "fox"]
    loaded(label_set=("ant", "dog"))
    assert "dataset.label_set: the source has no row of class ant: nothing tells what it is" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"label_set": ("cat", "dgo")},
            r"no domain has a class 'dgo' – did you mean 'dog'\? \(there are cat, dog\)",
        ),
        ({"label_set": ("cat", "Dog")}, r"label_set: no domain has a class 'Dog' – did you mean 'dog'\?"),
        ({"label_set": ("cat",)}, "label_set=cat: name two classes or more, each once"),
        ({"label_set": ("cat", "cat")}, "label_set=cat, cat: name two classes or more, each once"),
        ({"label_set": ("ant", "bee")}, "label_set=ant, bee: the source has no row of any of these classes"),
        ({"bit_depth": 0}, "bit_depth must be between 1 and 32"),
        ({"label_set": ("cat", "dog"), "labels": "shared"}, "and dataset.labels=shared reads them from the target's"),
        ({"label_set": ("cat", "dog"), "labels": "differ"}, "and dataset.labels=differ reads them from the target's"),
    ],
)
def test_a_label_set_that_says_nothing_is_refused(tmp_path, options, said):
    root = plain(tmp_path / "data")
    if "ant" in options.get("label_set", ()):
        for name in ("ant", "bee"):
            draw(root / "b" / name / "0.png")
    with pytest.raises(UserError, match=said):
        loaded(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "elsewhere"}, r"there is no folder '.*/elsewhere': set dataset.root"),
        ({"target": None}, r"name the domains.*'data' holds 'a', 'b', 'photo'"),
        ({"source": None, "target": None}, r"name the domains.*'data' holds 'a', 'b', 'photo'"),
        ({"source": "foto"}, r"dataset.source=foto: 'data' holds .* – did you mean 'photo'\?"),
        ({"source": ""}, "dataset.source=: 'data' holds"),
        ({"target": "../data/a"}, "dataset.target=../data/a: 'data' holds"),
        ({"target": "/etc"}, "dataset.target=/etc: 'data' holds"),
        ({"target": ".hidden"}, "dataset.target=.hidden: 'data' holds"),
        ({"target": "a"}, "are both a: there is nothing to transfer"),
        ({"source": "photo"}, "data/photo holds no class folder: an image lies at data/photo/CLASS/IMAGE.png"),
        ({"size": 7}, "size must be between 8 and 1024"),
        ({"memory": -1.0}, "memory must be at least 0"),
    ],
)
def test_wrong_names_and_numbers_are_refused_in_words(tmp_path, options, said):
    root = plain(tmp_path / "data")
    draw(root / "photo" / "loose.png")
    draw(root / ".hidden" / "cat" / "0.png")
    with pytest.raises(UserError, match=said):
        loaded(**options)


@pytest.mark.parametrize(
    "parts",
    [
        *(["test"], ["Test"], ["train", "test", "cat"], ["Train", "Test", "Cat"], ["train", "val", "dev"]),
        *(["train", "Training"], ["train", "eval"], ["Val", "Test"], ["seg_train", "seg_test", "seg_pred"]),
    ],
)
def test_parts_are_not_taken_for_classes(tmp_path, parts):
    root = plain(tmp_path / "data", "a")
    for part in parts:
        draw(root / "b" / part / "cat" / "0.png")
    with pytest.raises(UserError, match="a divided domain holds train and"):
        loaded()


def test_a_class_may_be_called_train(tmp_path):
    plain(tmp_path / "data", classes=("bus", "train"))
    assert loaded().target.classes == ("bus", "train")


def test_hidden_and_other_files_are_passed_over(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tl_runner")
    root = plain(tmp_path / "data")
    for name in ("README.txt", "Thumbs.db", ".DS_Store", "._0.png"):
        (root / "b" / "dog" / name).write_text("no image")
    os.mkfifo(root / "b" / "dog" / "pipe.png")  # opening it would wait for ever
    drawn = loaded()
    assert len(drawn.target.x) == 10 and drawn.notes["passed_over"] == {"source": 0, "target": 3}
    assert "data/b/dog: ignored 2 files without an image extension" in caplog.text
    told = "data/b: ignored 3 files and folders, hidden or left by other programs: '.DS_Store', '._0.png'"
    assert told in caplog.text
    assert sum(entry.levelname == "WARNING" for entry in caplog.records) == 1  # not one a class


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX", "@eaDir", "@EADIR", ".ipynb_checkpoints", ".git", "$RECYCLE.BIN", "#recycle", "lost+found"),
        *("System Volume Information", "__pycache__"),
    ],
)
@pytest.mark.parametrize("where", ["", "cat", "divided"])
def test_folders_of_other_programs_are_no_classes_and_hold_no_images(tmp_path, caplog, name, where):
    root = plain(tmp_path / "data")
    if where == "divided":
        shutil.copytree(root / "b", root / "c" / "train")
        shutil.move(root / "c", root / "b" / "new")
        for label in ("cat", "dog"):
            shutil.rmtree(root / "b" / label)
        shutil.move(root / "b" / "new" / "train", root / "b" / "train")
        (root / "b" / "new").rmdir()
    draw(root / "b" / where.replace("divided", "train") / name / "thumb.png")
    drawn = loaded()
    assert drawn.target.classes == ("cat", "dog") and len(drawn.target.x) == 10
    assert drawn.notes["passed_over"] == {"source": 0, "target": 1}
    (said,) = warned(caplog)
    assert said.endswith(f"ignored 1 file or folder, hidden or left by other programs: {name!r}")


def test_a_hidden_image_is_told_of_and_what_macos_and_windows_leave_is_not(tmp_path, caplog):
    root = plain(tmp_path / "data")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (root / "b" / name).write_text("no image")
        (root / "b" / "cat" / name).write_text("no image")
    assert loaded().notes["passed_over"]["target"] == 8 and not warned(caplog)
    draw(root / "b" / "cat" / ".photo.png")
    assert loaded().notes["passed_over"]["target"] == 9
    assert "data/b: ignored 9 files and folders, hidden" in caplog.text and caplog.text.rstrip().endswith(
        "'.photo.png'"
    )


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "validation", "testing"),
        ("Training_Set", "dev-set", "Test set"),
        ("train2017", "val2017", "test2017"),
        ("seg_train", "seg_val", "seg_test"),
        ("train", "valid", "test"),
    ],
)
def test_parts_are_known_by_other_names_and_that_is_said(tmp_path, caplog, train, val, test):
    root = plain(tmp_path / "data", "a")
    for red, (part, n) in enumerate(((train, 3), (val, 2), (test, 4))):
        for label in ("cat", "dog"):
            for i in range(n):
                draw(root / "b" / part / label / f"{i}.png", (red, i, 0))
    target = loaded().target
    assert target.classes == ("cat", "dog") and target.part is not None
    assert target.part.bincount().tolist() == [6, 4, 8] and target.x[:, 0, 0, 0].tolist() == target.part.tolist()
    assert f"data/b: {'' if train == 'train' else repr(train) + ' for train, '}{val!r} for val" in caplog.text
    assert "they are treated as its splits, not as classes" in caplog.text


def test_siblings_that_merely_hold_the_word_are_classes(tmp_path):
    plain(tmp_path / "data", classes=("bullet train", "crash test", "bus"))
    assert loaded().target.classes == ("bullet train", "bus", "crash test")


@pytest.mark.parametrize("between", ["images", "images/amazon", "train/images", "images/Train"])
def test_classes_a_level_deeper_are_found_and_said(tmp_path, caplog, between):
    """Office-31 has amazon/images/<class>."""
    root = plain(tmp_path / "data", "a")
    for c, label in enumerate(("cat", "dog")):
        for i in range(5):
            draw(root / "b" / between / label / f"{i}.png", (10 * c, i, 0))
    shutil.copytree(root / "b", root / "c")
    shutil.rmtree(root / "a")
    source, target = both(source="c")
    assert source.classes == target.classes == ("cat", "dog") and torch.equal(
        target.x[:, 0, 0, 0] // 10, target.y.byte()
    )
    assert (target.part is not None) == ("rain" in between)
    above, below = {
        "images": ("b", "images"), "images/amazon": ("b", "images/amazon"),
        "train/images": ("train", "images"), "images/Train": ("b", "images"),
    }[between]  # fmt: skip
    assert f"data/b{'/train' if above == 'train' else ''} holds one folder, {below}: the " in caplog.text
    assert f"folders in it are treated as what {above} should hold ('" in caplog.text


def test_one_class_folder_stays_one(tmp_path, caplog):
    root = plain(tmp_path / "data", classes=("cat",))
    draw(root / "b" / "cat" / "more" / "0.png")
    assert loaded().target.classes == ("cat",) and not warned(caplog)


def test_images_in_no_class_are_told_of(tmp_path, caplog):
    root = plain(tmp_path / "data")
    draw(root / "b" / "loose.png")
    draw(root / "b" / "second.jpg")
    assert len(loaded().target.x) == 10
    assert "data/b: ignored 2 images beside the class folders" in caplog.text


def test_parts_below_classes_are_refused(tmp_path):
    root = plain(tmp_path / "data", "a")
    for label in ("cat", "dog"):
        for part in ("Train", "Test"):
            draw(root / "b" / label / part / "0.png")
    with pytest.raises(UserError, match=r"data/b/cat holds 'Test', 'Train', parts of a domain.*data/b/train/cat, not"):
        loaded()


def test_the_same_folders_in_all_classes_may_be_the_classes(tmp_path, caplog):
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        plain(root, [f"a/{kind}", f"b/{kind}"])
    assert loaded().target.classes == ("images", "masks")
    assert "data/b: the folders 'images', 'masks' are treated as the classes, and each holds the folders" in caplog.text
    caplog.clear()
    for domain in "ab":
        draw(root / domain / "images" / "direct.png")
    assert loaded() and not warned(caplog)


def test_a_domain_that_lies_deeper_is_found(tmp_path):
    plain(tmp_path / "data" / "Office")
    with pytest.raises(UserError, match=r"=a: 'data' holds 'Office' – 'data/Office' holds it: set dataset.root=data/O"):
        loaded()


def test_a_link_to_a_folder_stays_inside(tmp_path):
    root = plain(tmp_path / "data")
    outside = plain(tmp_path / "outside", "c")
    (root / "inside").symlink_to(root / "b")
    assert len(loaded(target="inside").target.x) == 10
    with pytest.raises(UserError, match="hold the same images, as 'b' and 'inside': there is nothing"):
        loaded(source="b", target="inside")
    (root / "b" / "cat" / "0.png").unlink()
    (root / "b" / "cat" / "0.png").symlink_to(outside / "c" / "cat" / "0.png")  # a file's bytes may live anywhere
    assert len(loaded().target.x) == 10
    (root / "b" / "dog" / "loop").symlink_to(root / "b")
    with pytest.raises(UserError, match="'data/b/dog/loop' is a link to a folder within a class"):
        loaded()
    (root / "b" / "dog" / "loop").unlink()
    (root / "b" / "cow").symlink_to(outside / "c" / "cat")
    with pytest.raises(UserError, match="data/b/cow is a link that leaves data"):
        loaded()
    (root / "c").symlink_to(outside / "c")
    with pytest.raises(UserError, match="data/c is a link that leaves data"):
        loaded(target="c")


def test_links_are_followed_where_that_is_said(tmp_path):
    root = plain(tmp_path / "data")
    outside = plain(tmp_path / "outside", "c")
    (root / "c").symlink_to(outside / "c")
    with pytest.raises(UserError, match=r"data/c is a link that leaves data: .*takes dataset.follow_links=true"):
        loaded(target="c")
    linked = loaded(target="c", follow_links=True).target
    assert torch.equal(linked.x, image_folder(0, Path("cache"), str(outside), target="c", size=8).target.x)
    assert linked.names is not None and str(linked.names[0]) == "data/c/cat/0.png"
    (root / "b" / "cow").symlink_to(outside / "c" / "cat")
    plain(root, "a", ("cow",))
    assert loaded(follow_links=True).target.classes == ("cat", "cow", "dog")
    plain(tmp_path / "more", "d", ("cow",))
    (root / "b" / "dog" / "more").symlink_to(tmp_path / "more")
    assert len(loaded(follow_links=True).target.x) == 20
    for link in (root / "c", root / "b" / "cow"):
        link.unlink()
    with pytest.raises(UserError, match=r"is a link to a folder within a class: .*or set dataset.follow_links=true"):
        loaded()


@pytest.mark.parametrize("to", ["", "dog", "cat", "..", "../.."])
def test_a_link_in_a_circle_or_to_a_folder_that_is_read_is_refused(tmp_path, to):
    root = plain(tmp_path / "data")
    (root / "b" / "dog" / "link").symlink_to((root / "b" / to).resolve())
    told = r"follow_links=true: 'data/b/dog/link' is the same folder as .*read twice, or without end"
    with pytest.raises(UserError, match=told):
        loaded(follow_links=True)


def test_names_of_all_languages_are_one_name_however_they_are_written(tmp_path):
    plain(tmp_path / "data", ["Fotos é"], ["Käse", "猫"])
    plain(tmp_path / "data", ["写真"], ["Ka\u0308se", "猫"])
    source, target = both(source="Fotos e\u0301", target="写真")
    assert source.classes == target.classes == ("Käse", "猫") and (source.name, target.name) == ("Fotos é", "写真")


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\xfe"])
def test_a_hostile_class_name_is_refused_and_shown_harmlessly(tmp_path, name):
    root = plain(tmp_path / "data")
    shutil.copytree(root / "b" / "cat", os.fsdecode(os.fsencode(root / "b") + b"/" + name))
    with pytest.raises(UserError, match="is no printable text: rename it") as caught:
        loaded()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [b"a\nb.png", b"\x1b[31m.png", b"\xff\xfe.png", b"[red]{x}%s.png"])
def test_hostile_file_names_are_read_and_shown_harmlessly(tmp_path, name):
    root = plain(tmp_path / "data")
    path = Path(os.fsdecode(os.fsencode(root / "b" / "cat") + b"/" + name))
    shutil.copy(root / "b" / "cat" / "0.png", path)
    assert len(loaded().target.x) == 11
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 21 files can't be read") as caught:
        loaded()
    assert str(caught.value).isprintable()


# Decoded once


def test_images_are_decoded_once_until_a_file_changes(tmp_path, monkeypatch):
    root = plain(tmp_path / "data", "abc")
    first = loaded()
    opened: list[Path] = []

    def watched(path: Path, size: int, how: PixelFormat):
        opened.append(path)
        return square(path, size, how)

    monkeypatch.setattr(decoded, "square", watched)
    assert torch.equal(loaded().target.x, first.target.x) and not opened
    loaded(target="c")  # the source's are there
    assert len(opened) == 10
    opened.clear()
    changed, before = root / "b" / "cat" / "0.png", (root / "b" / "cat" / "0.png").stat()
    shutil.copy(root / "b" / "dog" / "0.png", changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as an archive does that unpacks with its times
    assert changed.stat().st_size == before.st_size
    assert not torch.equal(loaded().target.x, first.target.x) and len(opened) == 10
    opened.clear()
    assert loaded(size=9).target.x.shape[-1] == 9 and len(opened) == 20


def test_what_is_half_written_or_damaged_is_not_believed(tmp_path, monkeypatch, caplog):
    plain(tmp_path / "data")

    def killed(path: Path, size: int, how: PixelFormat):
        if "b/dog" in str(path):
            raise KeyboardInterrupt
        return square(path, size, how)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(decoded, "square", killed)
        loaded()
    assert sorted(path.suffix for path in Path("cache/images").iterdir()) == [".json", ".u8"]  # the source's
    whole = both()
    pixels, said = sorted(Path("cache/images").glob("*.u8")), sorted(Path("cache/images").glob("*.json"))
    assert len(pixels) == len(said) == 2
    pixels[0].write_bytes(pixels[0].read_bytes()[:-1])
    said[1].write_text('{"bad"')
    assert all(torch.equal(new.x, old.x) for new, old in zip(both(), whole, strict=True))
    assert "is truncated" in caplog.text and "is damaged" in caplog.text


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    plain(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(decoded_once.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=r"take 0\.0 GiB, but cache/images has 0\.0 free.*outputs="):
        loaded()


def test_a_long_decode_says_how_far_it_is(tmp_path, monkeypatch, caplog):
    plain(tmp_path / "data")
    monkeypatch.setattr(decoded_once, "PATIENCE", -1.0)
    loaded()
    assert "decoded 10 of 10 images of b" in caplog.text


# The whole way: what a person is told


def test_a_label_set_from_the_targets_labels_is_told_by_every_command(here):
    root = plain(Path("data"), "a", ("cat", "dog", "emu"), n=8)
    plain(root, "xb", ("cat", "dog"), n=8)
    words = ["dataset=image_folder", "dataset.source=a", "dataset.target=b", "dataset.size=8", "method=source_only"]
    words += ["train=tiny", "threads=1", "device=cpu", "tracker=none"]
    said = here("tl-run", *words, "dataset.labels=shared", COLUMNS="200")
    assert said.returncode == 0 and "granted knowledge of the label set" in " ".join(said.stderr.split())
    assert "label set granted: read from the target's labels" in " ".join(said.stdout.split())
    (file,) = Path("outputs").rglob("run.json")
    known = json.loads(file.read_text())["data"]["label_knowledge"]
    assert known == {"by": "target labels", "left_out": {"source": ["emu"], "target": []}}
    report = here("tl-report", COLUMNS="200")
    assert report.returncode == 0 and "1 of 1 run was granted the label set" in " ".join(report.stdout.split())
    said = here("tl-run", *words, "dataset.label_set=[cat,dog]", "outputs=stated", COLUMNS="200")
    assert said.returncode == 0 and "label set" not in said.stderr and "label set" not in said.stdout
    assert "label set" not in here("tl-report", "stated", COLUMNS="200").stdout
    said = here("tl-run", *words, "dataset.label_set=[cat,dig]", COLUMNS="200")
    assert (
        said.returncode == 1
        and "no domain has a class 'dig' – did you mean 'dog'? (there are cat, dog, emu)"
        in " ".join(said.stderr.split())
    )


def test_two_folders_of_one_name_in_two_spellings_of_it_are_refused(tmp_path):
    """é as one sign and as two: one of them would take the place of the other."""
    root = plain(tmp_path / "data")
    for name in ("caf\u00e9", "cafe\u0301"):
        draw(root / "a" / name / "0.png")
    with pytest.raises(UserError, match="holds two folders whose names look alike"):
        loaded()


@pytest.mark.parametrize("name", ["test", "Test", "validation"])
def test_a_part_beside_the_classes_that_holds_them_too_is_refused(tmp_path, name):
    root = plain(tmp_path / "data")
    draw(root / "b" / name / "cat" / "0.png")
    with pytest.raises(UserError, match=f"data/b/{name} is named as a part of the domain and holds 'cat'"):
        loaded()


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    root = plain(tmp_path / "data")
    for domain in "ab":
        for i in range(6):
            draw(root / domain / "train" / f"{i}.png")
    drawn = loaded()
    assert drawn.source and "train" in drawn.source.classes


def test_a_label_set_in_another_spelling_is_refused_and_rows_left_out_are_counted(tmp_path, caplog):
    root = plain(tmp_path / "data")
    (root / "b" / "cat").rename(root / "b" / "Cat")
    with pytest.raises(UserError, match="the target spells otherwise: 'cat' and 'Cat'"):
        loaded(label_set=("cat", "dog"))
    (root / "b" / "Cat").rename(root / "b" / "cat")
    for i in range(3):
        draw(root / "b" / "emu" / f"{i}.png")
    loaded(label_set=("cat", "dog"))
    assert "dataset.label_set leaves out 3 rows of the target (emu)" in caplog.text
