"""What image files may be beyond pictures of grey or colours: many bands, arrays, formats of plugins, any size."""

import json
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torchvision.models import resnet18

from tl_runner.config import build
from tl_runner.datasets import picture
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.native_size import choose_size
from tl_runner.datasets.picture import extensions, square
from tl_runner.datasets.pixel_format import PixelFormat
from tl_runner.datasets.split import Drawn
from tl_runner.engine.image_size import settle_size
from tl_runner.errors import UserError
from tl_runner.inference.inputs import list_inputs
from tl_runner.models.trained_size import find_trained_size, trained_at
from tl_runner.preprocessing.images import Images
from tl_runner.storage.identity import identify
from tl_runner.storage.sections import ImageSize

BANDS = 5
RNG = np.random.default_rng(0)


def loaded(**options: Any) -> Drawn:
    return image_folder(0, Path("cache"), **{"source": "a", "target": "b", "size": 8, **options})


def put(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, values, planarconfig="contig", photometric="minisblack")
    else:
        Image.fromarray(values).save(path)
    return path


def spread(ending: str, values: Any, folder: str = "data") -> list[np.ndarray]:
    """Ten images a domain by a function of no argument; those of the target in the order of their rows."""
    made = []
    for domain in "ab":
        for label in ("cat", "dog"):
            for i in range(5):
                array = values()
                put(Path(folder) / domain / label / f"{i}.{ending}", array)
                made += [array] if domain == "b" else []
    return made


def random_bytes(bands: int = BANDS, side: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (side, side, bands), dtype=np.uint8)


# Many bands


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_files_of_many_bands_come_out_as_they_were_written(ending):
    pytest.importorskip("tifffile" if ending == "tif" else "numpy")
    made = spread(ending, random_bytes)
    drawn = loaded(channels=BANDS)
    assert drawn.target.x.shape == (10, BANDS, 8, 8) and drawn.notes["pixel_format"]["channels"] == BANDS
    assert np.array_equal(drawn.target.x.numpy(), np.stack(made).transpose(0, 3, 1, 2))
    assert torch.equal(loaded(channels=BANDS).target.x, drawn.target.x)  # from the cache


@pytest.mark.parametrize("planar", ["contig", "separate", "pages"])
def test_bands_of_a_tiff_lie_pixel_by_pixel_in_planes_or_pages(planar):
    tifffile = pytest.importorskip("tifffile")
    x = RNG.integers(0, 2**16, (8, 8, 4), dtype=np.uint16)
    first = x if planar == "contig" else x.transpose(2, 0, 1)
    options = {"planarconfig": planar} if planar != "pages" else {}
    tifffile.imwrite("x.tif", first, photometric="minisblack", **options)
    found = square(Path("x.tif"), 8, PixelFormat(channels=4))
    seen = np.frombuffer(found.pixels, np.uint8).reshape(4, 8, 8)
    assert np.abs(seen.transpose(1, 2, 0) - x / 257).max() <= 0.5  # white is 65535: 257 to a byte, rounded
    assert found.numbers.deep == (x.min(), x.max())


def test_a_tiff_of_many_bands_without_tifffile_names_the_package(monkeypatch):
    spread("tif", random_bytes) if find_spec("tifffile") else pytest.skip("it writes them")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UserError, match=r'needs the package tifffile: pip install "tl_runner\[bands\]"'):
        loaded(channels=BANDS)


def test_the_fourth_band_of_a_png_is_a_band_where_four_are_asked_for():
    made = spread("png", partial(random_bytes, 4))
    assert np.array_equal(loaded(channels=4).target.x.numpy(), np.stack(made).transpose(0, 3, 1, 2))
    assert loaded(channels="rgba").target.x.shape[1] == 3
    with pytest.raises(UserError, match=r"8×8 pixels of 4 bands, and dataset.channels=5 is asked for"):
        loaded(channels=5)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1)])
def test_numbers_of_an_array_are_white_where_their_kind_ends(dtype, white):
    x = np.linspace(0, white, 64 * BANDS).reshape(8, 8, BANDS).astype(dtype)
    put(Path("x.npy"), x)
    seen = np.frombuffer(square(Path("x.npy"), 8, PixelFormat(channels=BANDS)).pixels, np.uint8).reshape(BANDS, 8, 8)
    # half a level of rounding, and the last bit of float32
    assert np.abs(seen.transpose(1, 2, 0) - x.astype(float) * 255 / white).max() <= 0.5001


def test_the_depth_of_an_array_is_followed_and_one_that_nobody_knows_is_asked_for():
    spread("npy", lambda: RNG.integers(0, 4096, (8, 8, BANDS), dtype=np.int32))
    with pytest.raises(UserError, match=r"numbers of int32 from \d+ to \d+, and no telling which number is white"):
        loaded(channels=BANDS)
    assert loaded(channels=BANDS, bit_depth=12).target.x.max() > 250


@pytest.mark.parametrize(("shape", "channels", "seen"), [((8, 8), 1, 1), ((8, 8, 3), 3, 3), ((8, 8), 3, 3)])
def test_arrays_of_grey_and_of_colours_are_pictures(shape, channels, seen):
    made = spread("npy", lambda: RNG.integers(0, 256, shape, dtype=np.uint8))
    x = loaded(channels=channels).target.x
    assert x.shape == (10, seen, 8, 8)
    last = np.stack([each.reshape(8, 8, -1) for each in made]).transpose(0, 3, 1, 2)
    assert np.array_equal(x.numpy(), np.broadcast_to(last, x.shape))


def test_arrays_are_images_only_where_it_is_said_how_many_bands_they_have():
    spread("png", partial(random_bytes, 3))
    before = loaded().target.x
    put(Path("data/b/cat/x.npy"), random_bytes())
    assert torch.equal(loaded().target.x, before)
    with pytest.raises(UserError, match=r"x.npy' \(8×8 pixels of 5 bands, and 1 or 3 is asked for"):
        loaded(channels=3)
    shutil.rmtree("data")
    spread("npy", random_bytes)
    with pytest.raises(
        UserError, match=r"holds no image \(other files: 5\).*\.npy arrays are read if dataset.channels"
    ):
        loaded()


def test_arrays_that_hold_code_no_image_or_their_bands_first_are_refused():
    spread("npy", random_bytes)
    for values, told in (
        (np.array([{"a": 1}], dtype=object), "objects of Python would run code"),
        (np.zeros(4), r"its array has the shape \(4,\)"),
        (np.array([["a"]]), "its array holds <U1, and an image holds numbers"),
        (np.zeros((BANDS, 20, 20), np.uint8), r"bands come last: is it 5 bands of 20×20\?"),
    ):
        np.save("data/b/cat/0.npy", values, allow_pickle=True)
        with pytest.raises(UserError, match=told):
            loaded(channels=BANDS)


def test_each_band_is_resized_as_a_colour_is():
    x = random_bytes(3, 40)
    put(Path("x.npy"), np.concatenate([x, x], axis=-1))
    Image.fromarray(x).save("x.png")
    many = np.frombuffer(square(Path("x.npy"), 8, PixelFormat(channels=6)).pixels, np.uint8).reshape(6, 8, 8)
    three = np.frombuffer(square(Path("x.png"), 8).pixels, np.uint8).reshape(3, 8, 8)
    assert np.array_equal(many[:3], three) and np.array_equal(many[3:], three)


def test_a_trained_run_on_many_bands_takes_such_files_again():
    x = random_bytes(BANDS, 20)
    file = put(Path("in/x.npy"), x)
    preprocessing = Images(BANDS, 8, 8, "pillow", PixelFormat(channels=BANDS))
    pixels = np.frombuffer(square(file, 8, PixelFormat(channels=BANDS)).pixels, np.uint8).reshape(1, BANDS, 8, 8)
    assert np.array_equal((preprocessing(file) * 255).round().numpy(), pixels)
    assert [path for path, _ in list_inputs([Path("in")], preprocessing)] == [file]
    with pytest.raises(UserError, match=r"x.png: 12×10 pixels of 3 bands, and dataset.channels=5"):
        preprocessing(put(Path("x.png"), np.zeros((12, 10, 3), np.uint8)))


# Formats


@pytest.mark.parametrize("ending", ["webp", "avif"])
def test_webp_and_avif_are_read_by_pillow_itself(ending):
    if not features.check(ending):
        pytest.skip(f"this Pillow has no {ending}")
    Image.new("RGB", (12, 10), (200, 30, 90)).save(f"x.{ending}", quality=100)
    seen = np.frombuffer(square(Path(f"x.{ending}"), 8).pixels, np.uint8).reshape(3, 8, 8)[:, 4, 4]
    assert np.abs(seen.astype(int) - [200, 30, 90]).max() <= 4  # lossy, with colours at half the resolution


def test_heic_is_read_where_its_plugin_is():
    pytest.importorskip("pillow_heif")
    assert square is not None and "HEIF" in picture.formats()
    Image.new("RGB", (64, 64), (200, 30, 90)).save("x.heic", quality=95)
    seen = np.frombuffer(square(Path("x.heic"), 8).pixels, np.uint8).reshape(3, 8, 8)[:, 4, 4]
    assert np.abs(seen.astype(int) - [200, 30, 90]).max() <= 4  # as above


@pytest.mark.parametrize(
    ("ending", "name", "package"),
    [("heic", "HEIC", "pillow-heif"), ("HEIF", "HEIC", "pillow-heif"), ("avif", "AVIF", "pillow-avif-plugin")],
)
def test_a_missing_plugin_is_named_and_its_files_are_no_other_files(monkeypatch, ending, name, package):
    monkeypatch.setattr(picture, "plugins", tuple)
    monkeypatch.setattr(picture.features, "check", lambda _: False)
    assert {".heic", ".heif", ".avif"} <= extensions()
    spread("png", partial(random_bytes, 3))
    Path(f"data/b/cat/x.{ending}").write_bytes(b"\0\0\0\x18ftypzzzz, which no reader knows")
    with pytest.raises(
        UserError, match=rf"x.{ending}' \({name} images need a plugin of Pillow: pip install {package}\)"
    ):
        loaded()
    assert loaded(on_bad="skip").notes["skipped"] == {"source": 0, "target": 1}


# The size


def sized(*sides: int, folder: str = "x") -> list[Path]:
    paths = [Path(folder) / f"{i}.png" for i in range(len(sides))]
    return [put(path, np.zeros((side + 7, side, 3), np.uint8)) for path, side in zip(paths, sides, strict=True)]


@pytest.mark.parametrize(
    ("source", "target", "pixels"),
    [((28,) * 4, (28,) * 4, 28), ((28, 28, 30, 300), (40,), 28), ((100,), (300, 400), 64), ((3,), (90,), 8)],
)
def test_the_size_is_the_smaller_domains_median_side_up_to_64(source, target, pixels):
    found = choose_size({"source": sized(*source), "target": sized(*target, folder="y")})
    assert found.pixels == pixels and found.by == "files"
    assert found.native == {"source": sorted(source)[(len(source) - 1) // 2], "target": target[0]}


def test_of_a_large_domain_some_headers_are_read_and_bad_files_do_not_count(monkeypatch):
    read: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("tl_runner.datasets.native_size.LOOKED_AT", 3)
        patch.setattr("tl_runner.datasets.native_size.shorter_side", lambda path, how: read.append(path.name) or 20)
        choose_size({"target": [Path(str(i)) for i in range(10)]})
    assert read == ["0", "4", "8"]
    Path("bad.png").write_text("no image")
    assert choose_size({"target": [Path("bad.png"), *sized(30)]}).native == {"target": 30}
    assert choose_size({"target": [Path("bad.png")]}) == ImageSize(64, "files", {})


def test_the_size_of_arrays_and_of_tiffs_is_known_without_their_numbers():
    put(Path("x.npy"), np.zeros((20, 33, 5), np.uint8))
    how = PixelFormat(channels=5)
    assert choose_size({"target": [Path("x.npy")]}, how).pixels == 20
    if find_spec("tifffile"):
        put(Path("x.tif"), np.zeros((41, 33, 5), np.uint16))
        assert choose_size({"target": [Path("x.tif")]}, how).pixels == 33


def test_what_decoders_warn_of_is_logged_and_not_printed(recwarn, caplog):
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x05"  # five entries are to follow
    for domain in "ab":
        for label in ("cat", "dog"):
            for i in range(5):
                file = Path("data", domain, label, f"{i}.jpg")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random_bytes(3)).save(file, exif=broken)
    with caplog.at_level("INFO"):
        drawn = loaded(size="auto")
    assert len(drawn.target.x) == 10 and "a decoder of images warned: Corrupt EXIF data" in caplog.text
    images = Images(3, 8, 8, "pillow")
    assert sum(len(portion.x) for portion in images.portions(list_inputs([Path("data/a")], images), 4)) == 10
    assert not recwarn.list


def test_images_come_in_the_size_that_is_found_and_the_record_says_so():
    spread("png", partial(random_bytes, 3, 28))
    drawn = loaded(size="auto")
    assert drawn.target.x.shape == (10, 3, 28, 28)
    assert drawn.notes["size"] == ImageSize(28, "files", {"source": 28, "target": 28})
    assert loaded(size=28).notes["size"] is None and torch.equal(loaded(size=28).target.x, drawn.target.x)


def backbone(name: str, **options: Any) -> Any:
    return build({"_target_": name, **options}, "backbone")


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("resnet18", {}, None),
        ("resnet18", {"weights": "imagenet"}, 224),
        ("resnet50", {"weights": "file.pt"}, 224),
        ("resnet18", {"weights": "file.pt", "stem": "cifar"}, 32),
        ("small", {}, None),
    ],
)
def test_weights_want_the_images_that_they_were_trained_on(name, options, side):
    torch.save(resnet18().state_dict(), "file.pt")
    dataset = partial(image_folder, size="auto")
    settled, told = settle_size(dataset, backbone(name, **options))
    assert find_trained_size(backbone(name, **options)) == side
    if side is None:
        assert settled is dataset and told is None
    else:
        assert isinstance(settled, partial) and settled.keywords["size"] == side
        assert told == ImageSize(side, "weights")
        said = partial(image_folder, size=64)
        assert settle_size(said, backbone(name, **options)) == (said, None)


def test_weights_of_a_file_want_the_images_that_their_stem_is_for(caplog):
    net = resnet18()
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    torch.save({"state_dict": net.state_dict()}, "small.pt")
    assert find_trained_size(backbone("resnet18", weights="small.pt")) == 32
    assert not caplog.messages  # they are said when the weights are loaded


def test_weights_of_timm_say_their_size():
    pytest.importorskip("timm")
    options = {"model": "vit_base_patch14_dinov2", "weights": "pretrained"}
    assert find_trained_size(backbone("timm", **options)) == 518
    with pytest.raises(UserError, match="timm has no such model"):
        find_trained_size(backbone("timm", **{**options, "model": "no_such"}))
    assert find_trained_size(backbone("timm", **{**options, "weights": None})) is None


def test_a_backbone_of_a_users_own_may_say_it():
    @trained_at(96)
    def own(shape: tuple[int, ...], weights: str | None = "mine") -> None: ...

    assert (
        find_trained_size(partial(own, weights="mine")) == 96 and find_trained_size(partial(own, weights=None)) is None
    )


def test_a_size_that_was_said_keeps_the_id_of_earlier_runs():
    node = {"_target_": "image_folder", "root": "data", "source": "a", "target": "b", "size": 64}
    ids = [identify({"dataset": {**node, **more}}) for more in ({}, {"follow_links": False}, {"size": "auto"})]
    assert ids[0] == ids[1] != ids[2] and identify({"dataset": {**node, "follow_links": True}}) != ids[0]


def test_a_run_says_the_size_and_predicts_by_it(here):
    spread("png", partial(random_bytes, 3, 20), "photos")
    words = ["dataset=image_folder", "dataset.root=photos", "dataset.source=a", "dataset.target=b", "train=tiny"]
    said = here(
        "tl-run",
        *words,
        "method=source_only",
        "threads=1",
        "device=cpu",
        "tracker=none",
        "diagnose=none",
        COLUMNS="200",
    )
    assert said.returncode == 0, said.stderr
    assert "images of 20 pixels a side, by the files' own (dataset.size=auto)" in " ".join(said.stdout.split())
    (file,) = Path("outputs").rglob("run.json")
    data = json.loads(file.read_text())["data"]
    assert data["shape"] == [3, 20, 20] and data["size"]["pixels"] == 20 and data["size"]["by"] == "files"
    said = here("tl-predict", file.parent, "--test", "--out", "found.csv")
    assert said.returncode == 0, said.stderr
