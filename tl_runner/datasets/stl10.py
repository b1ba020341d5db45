"""CIFAR-10 and STL-10 (Coates, Ng and Lee 2011): two collections of photographs that share nine classes."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tl_runner.datasets import cifar
from tl_runner.datasets.archives import Archive, files_of
from tl_runner.datasets.halves import in_range, limit, limit_rows
from tl_runner.datasets.split import PARTS, Drawn, Raw, count_rows_by_part
from tl_runner.errors import UserError
from tl_runner.rng import Rng

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SHARED = tuple(name for name in cifar.CLASSES if name != "frog")  # which STL-10 has not; CIFAR-10 has no monkey
PIXELS = 3 * 96 * 96  # bytes of an image
CHUNK = 512  # images that are floats at one time


def cifar10_stl10(
    seed: int,
    root: str = "data",
    download: bool = False,
    verify: bool = True,
    source: Literal["cifar10", "stl10"] = "cifar10",
    samples: int | None = None,
    size: int = 32,
) -> Drawn:
    """CIFAR-10 -> STL-10 or back, on the nine classes that both have.

    STL-10 is brought to CIFAR-10's 32×32, so that sharpness does not give a domain away. root, download, verify:
    see `cifar.read`, for both archives. samples: of each domain, at most. size: pixels a side, when used.
    """
    in_range(samples, size)
    wholes = {
        whole.name: _shared(whole)
        for whole in (cifar.read_cifar(root, download, verify), read_stl10(root, download, verify))
    }
    sides = {name: limit_rows(whole, samples, Rng(seed).child("samples", name)) for name, whole in wholes.items()}
    known = sides.pop(source)
    (other,) = sides.values()
    return Drawn(known, other, limit(samples), size, drawn_from=count_rows_by_part(wholes[other.name]))


def read_stl10(root: str, download: bool, verify: bool) -> Raw:
    """The labelled images of STL-10's binary version as bytes (n, 3, 32, 32), as train and test; car is automobile."""
    from torchvision.datasets import STL10

    published = {name: md5 for name, md5 in (*STL10.train_list, *STL10.test_list) if "unlabeled" not in name}
    names = STL10.url, STL10.filename, STL10.tgz_md5, STL10.base_folder
    archive = Archive("STL-10", *names, files=published, extras={STL10.class_names_file: None})
    files = files_of(archive, root, download, verify)
    if missing := [name for name in published if name not in files]:
        folder = next(iter(files.values())).parent
        raise UserError(
            f"{folder} lacks {', '.join(missing)} of STL-10: set dataset.root=… to a folder that has all files"
        )
    listed = files.get(STL10.class_names_file)
    classes = _names(listed) if listed else CLASSES
    sides = {part: (files[f"{part}_X.bin"], files[f"{part}_y.bin"]) for part in ("train", "test")}
    y = {part: _labels(*paths) for part, paths in sides.items()}
    x = torch.cat([_images(images) for images, _ in sides.values()])
    part = torch.cat([torch.full((len(labels),), PARTS.index(part)) for part, labels in y.items()])
    return Raw("stl10", x, torch.cat(list(y.values())), tuple("automobile" if c == "car" else c for c in classes), part)


def _shared(whole: Raw) -> Raw:
    if missing := [name for name in SHARED if name not in whole.classes]:
        raise UserError(
            f"{whole.name} has no class {', '.join(missing)} in its list of names: {', '.join(whole.classes)}"
        )
    return cifar.of_classes(whole, whole.name, SHARED)


def _names(file: Path) -> tuple[str, ...]:
    names = tuple(file.read_text(encoding="utf-8", errors="replace").split())
    if sorted(names) != sorted(CLASSES):
        raise UserError(f"{file} does not name STL-10's ten classes: {', '.join(CLASSES)}")
    return names


def _labels(images: Path, file: Path) -> Tensor:
    """Labels (n,) from 0, for the n images of the other file, whose length is checked."""
    labels = np.fromfile(file, np.uint8)
    length = images.stat().st_size
    if not length or length != len(labels) * PIXELS:
        raise UserError(
            f"{images} has {length} bytes, and {file.name} {len(labels)} labels: each image takes {PIXELS} bytes"
        )
    if labels.min() < 1 or labels.max() > len(CLASSES):
        raise UserError(f"{file} holds labels from {labels.min()} to {labels.max()}: STL-10 has 1 to 10")
    return torch.from_numpy(labels.astype(np.int64) - 1)


def _images(file: Path) -> Tensor:
    """Channels of 96×96, each column by column, brought to 32×32 with antialiasing."""
    stored = np.memmap(file, np.uint8, "r").reshape(-1, 3, 96, 96)
    small = torch.empty(len(stored), 3, 32, 32, dtype=torch.uint8)
    for start in range(0, len(stored), CHUNK):
        x = torch.from_numpy(stored[start : start + CHUNK].astype(np.float32)).mT
        x = F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)
        small[start : start + CHUNK] = x.round().to(torch.uint8)
    return small
