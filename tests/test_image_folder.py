"""A user's images: what a folder may look like, what a file may be, and what is said where it can't be used."""

import io
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tl_runner.datasets import decoded
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.picture import extensions, square
from tl_runner.datasets.split import Drawn, Raw, cut
from tl_runner.errors import Refused

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
    pair, answers, data = cut(drawn, 0, Budget("count", 2), CPU)
    assert data["resize"] == "pillow" and data["range"] == [0.0, 1.0]
    assert data["rows"] == {"source": [120, 40, 40], "target": [120, 30, 50]} and data["shape"] == [1, 8, 8]
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
    for source, target, told in (("chalk", "ink", ("resplit", 40, 200)), ("ink", "chalk", ("fixed", 50, 50))):
        drawn = loaded(root=str(digit_files), source=source, target=target)
        assert tuple(cut(drawn, 0, Budget("count", 0), CPU)[2]["seeds"].values()) == told


@pytest.mark.parametrize("bad", [False, True])
def test_the_test_rows_are_known_by_their_files_beside_the_answers(digit_files, bad):
    shutil.copytree(digit_files, "data")
    if bad:  # a file that is skipped moves no name
        Path("data/chalk/test/3/000.png").write_bytes(b"no image")
    drawn = loaded(source="ink", target="chalk", on_bad="skip")
    pair, answers, _ = cut(drawn, 0, Budget("count", 2), CPU)
    assert len(answers.names) == len(pair.target.test) == 50
    x, labels = pair.target.test.take(torch.arange(50)), answers.open().tolist()
    for name, row, label in zip(answers.names, x, labels, strict=True):
        assert (row * 255).round().byte().numpy().tobytes() == square(Path(name), 8).pixels[:64]
        assert Path(name).parent == Path("data/chalk/test") / str(label)


def test_on_disk_gives_the_batches_that_memory_gives(digit_files):
    options = {"root": str(digit_files), "source": "ink", "target": "chalk", "size": 12}
    there, here = (cut(loaded(**options, memory=memory), 3, Budget("count", 0), CPU) for memory in (0.0, 2.0))
    rows = torch.tensor([5, 0, 17])
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(there[0].target, part).take(rows), getattr(here[0].target, part).take(rows))
    assert there[2]["fingerprint"] == here[2]["fingerprint"]


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
    with pytest.raises(Refused, match=rf"of 21 files, 1 can't be read: '.*/b/cat/{name}' \(.*{reason}.*on_bad=skip"):
        loaded(root=str(root))
    drawn = loaded(root=str(root), on_bad="skip")
    assert drawn.notes["skipped"] == {"source": 0, "target": 1}
    assert drawn.target.y.tolist() == [0] * 5 + [1] * 5
    assert torch.equal(drawn.target.x[:, 0, 0, 0].long(), 100 + 10 * drawn.target.y)
    assert "skipped: of 21 files, 1 can't be read" in caplog.text


def test_many_bad_files_of_both_domains_are_told_at_once(tmp_path):
    root = plain(tmp_path / "data")
    for domain in "ab":
        for i in range(4):
            (root / domain / "dog" / f"bad{i}.png").touch()
    with pytest.raises(Refused, match=r"of 28 files, 8 can't be read: '.*a/dog/bad0.png'.*b/dog/bad0.* and 3 more"):
        loaded()


def test_a_class_without_a_readable_image_is_refused(tmp_path):
    root = plain(tmp_path / "data")
    (root / "b" / "cow").mkdir()
    with pytest.raises(Refused, match=r"the classes differ: only the target has 'data/b/cow'"):
        loaded()
    (root / "a" / "cow").mkdir()
    with pytest.raises(Refused, match=r"'data/a/cow' holds no image \(other files: 0\)"):
        loaded()
    draw(root / "a" / "cow" / "0.png")
    (root / "b" / "cow" / "0.webm").touch()
    with pytest.raises(Refused, match=r"'data/b/cow' holds no image \(other files: 1\)"):
        loaded()
    (root / "b" / "cow" / "0.png").touch()
    with pytest.raises(Refused, match=r"data/b: of class 'cow' no image can be read"):
        loaded(on_bad="skip")


def test_a_class_with_one_image_is_a_class(tmp_path):
    root = plain(tmp_path / "data", n=10)
    for domain in "ab":
        draw(root / domain / "axolotl" / "0.png")
    _, _, data = cut(loaded(), 1, Budget("count", 0), CPU)
    assert data["classes"] == ["axolotl", "cat", "dog"] and data["rows"]["target"] == [12, 4, 5]


def test_too_few_images_are_refused(tmp_path):
    plain(tmp_path / "data", n=2)
    with pytest.raises(Refused, match="split of a would hold"):
        cut(loaded(), 0, Budget("count", 0), CPU)


def test_class_sets_may_differ_if_one_says_so(tmp_path):
    root = plain(tmp_path / "data", "a", ("cat", "dog", "emu"))
    plain(root, "b", ("ant", "dog", "emu"))
    with pytest.raises(
        Refused, match=r"only the source has '.*a/cat'; only the target has '.*b/ant'.* the 2 that both"
    ):
        loaded()
    for side in both(labels="shared"):
        assert side.classes == ("dog", "emu")
        assert torch.equal(side.x[:, 0, 0, 0].long() % 100, 10 * (side.y + 1))
    assert tuple(side.classes for side in both(labels="differ")) == (("cat", "dog", "emu"), ("ant", "dog", "emu"))
    for name in ("dog", "emu"):
        shutil.rmtree(root / "b" / name)
    with pytest.raises(Refused, match="no class is in both: 'cat', 'dog', 'emu' and 'ant'"):
        loaded(labels="shared")


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
        ({"target": "a"}, "source and target are both 'a': there is nothing to transfer"),
        ({"target": "photo"}, "data/photo holds no class folder: an image lies at data/photo/CLASS/IMAGE.png"),
        ({"size": 7}, "size must be between 8 and 1024"),
        ({"memory": -1.0}, "memory must be at least 0"),
    ],
)
def test_wrong_names_and_numbers_are_refused_in_words(tmp_path, options, said):
    root = plain(tmp_path / "data")
    draw(root / "photo" / "loose.png")
    draw(root / ".hidden" / "cat" / "0.png")
    with pytest.raises(Refused, match=said):
        loaded(**options)


@pytest.mark.parametrize("parts", [["test"], ["train", "valid"], ["train", "test", "cat"], ["train", "val", "dev"]])
def test_parts_are_not_taken_for_classes(tmp_path, parts):
    root = plain(tmp_path / "data", "a")
    for part in parts:
        draw(root / "b" / part / "cat" / "0.png")
    with pytest.raises(Refused, match="a divided domain holds train and"):
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
    (root / "b" / ".cache").mkdir()
    assert len(loaded().target.x) == 10
    assert "data/b/dog: 3 files do not end like an image" in caplog.text
    assert sum(entry.levelname == "WARNING" for entry in caplog.records) == 1  # not one a class


def test_a_link_to_a_folder_stays_inside(tmp_path):
    root = plain(tmp_path / "data")
    outside = plain(tmp_path / "outside", "c")
    (root / "inside").symlink_to(root / "b")
    assert len(loaded(target="inside").target.x) == 10
    with pytest.raises(Refused, match="both 'inside': there is nothing"):
        loaded(source="b", target="inside")
    (root / "b" / "cat" / "0.png").unlink()
    (root / "b" / "cat" / "0.png").symlink_to(outside / "c" / "cat" / "0.png")  # a file's bytes may live anywhere
    assert len(loaded().target.x) == 10
    (root / "b" / "dog" / "loop").symlink_to(root / "b")
    with pytest.raises(Refused, match="'data/b/dog/loop' is a link to a folder within a class"):
        loaded()
    (root / "b" / "dog" / "loop").unlink()
    (root / "b" / "cow").symlink_to(outside / "c" / "cat")
    with pytest.raises(Refused, match="data/b/cow is a link that leaves data"):
        loaded()
    (root / "c").symlink_to(outside / "c")
    with pytest.raises(Refused, match="data/c is a link that leaves data"):
        loaded(target="c")


def test_names_of_all_languages_are_one_name_however_they_are_written(tmp_path):
    plain(tmp_path / "data", ["Fotos é"], ["Käse", "猫"])
    plain(tmp_path / "data", ["写真"], ["Ka\u0308se", "猫"])
    source, target = both(source="Fotos e\u0301", target="写真")
    assert source.classes == target.classes == ("Käse", "猫") and (source.name, target.name) == ("Fotos é", "写真")


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\xfe"])
def test_a_hostile_class_name_is_refused_and_shown_harmlessly(tmp_path, name):
    root = plain(tmp_path / "data")
    shutil.copytree(root / "b" / "cat", os.fsdecode(os.fsencode(root / "b") + b"/" + name))
    with pytest.raises(Refused, match="is no printable text: rename it") as caught:
        loaded()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [b"a\nb.png", b"\x1b[31m.png", b"\xff\xfe.png", b"[red]{x}%s.png"])
def test_hostile_file_names_are_read_and_shown_harmlessly(tmp_path, name):
    root = plain(tmp_path / "data")
    path = Path(os.fsdecode(os.fsencode(root / "b" / "cat") + b"/" + name))
    shutil.copy(root / "b" / "cat" / "0.png", path)
    assert len(loaded().target.x) == 11
    path.write_bytes(b"")
    with pytest.raises(Refused, match=r"of 21 files, 1 can't be read") as caught:
        loaded()
    assert str(caught.value).isprintable()


# Decoded once


def test_images_are_decoded_once_until_a_file_changes(tmp_path, monkeypatch):
    root = plain(tmp_path / "data", "abc")
    first = loaded()
    opened: list[Path] = []

    def watched(path: Path, size: int):
        opened.append(path)
        return square(path, size)

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

    def killed(path: Path, size: int):
        if "b/dog" in str(path):
            raise KeyboardInterrupt
        return square(path, size)

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
    assert "not as long as it was written" in caplog.text and "is damaged" in caplog.text


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    plain(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(Refused, match=r"take 0\.0 GiB, but cache/images has 0\.0 free.*outputs="):
        loaded()


def test_a_long_decode_says_how_far_it_is(tmp_path, monkeypatch, caplog):
    plain(tmp_path / "data")
    monkeypatch.setattr(decoded, "PATIENCE", -1.0)
    loaded()
    assert "10 of 10 images of b are decoded" in caplog.text
