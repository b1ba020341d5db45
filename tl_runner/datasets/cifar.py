"""CIFAR-10: 60,000 colour images of 32×32, ten classes (Krizhevsky 2009), as three tasks of transfer.

Two of them are here; `stl10` has the third.
"""

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tl_runner.datasets import pickled
from tl_runner.datasets.archives import Archive, files_of
from tl_runner.datasets.halves import in_range, limit, limit_rows, shifted_halves, task
from tl_runner.datasets.image_shifts import ImageShift
from tl_runner.datasets.split import PARTS, Drawn, Raw, count_rows_by_part
from tl_runner.errors import UserError, nearest
from tl_runner.plurals import count_noun
from tl_runner.rng import Rng

log = logging.getLogger(__name__)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(
    seed: int,
    root: str = "data",
    download: bool = False,
    verify: bool = True,
    source: Literal["cifar10"] | None = "cifar10",
    shift: ImageShift | None = None,
    severity: int | None = None,
    samples: int | None = None,
    size: int = 32,
) -> Drawn:
    """One half of CIFAR-10 -> the other half under a shift.

    root, download, verify: see `read`. source: None makes all images the target, for a backbone whose weights are
    the source. shift: None is noise with a source and none without. severity: 1 to 5, by default 3. samples: of each
    domain, at most. size: pixels a side, when used.
    """
    wanted = task(source, shift, severity, samples, size)
    return shifted_halves(read_cifar(root, download, verify), wanted, seed)


def cifar10_split(
    seed: int,
    root: str = "data",
    download: bool = False,
    verify: bool = True,
    source_classes: tuple[str, ...] = CLASSES[:5],
    samples: int | None = None,
    size: int = 32,
) -> Drawn:
    """Some classes of CIFAR-10 -> its other classes: what is learned about the ones serves to learn the others.

    root, download, verify: see `read`. samples: of each domain, at most. size: pixels a side, when used.
    """
    in_range(samples, size)
    whole = read_cifar(root, download, verify)
    for name in source_classes:
        if name not in whole.classes:
            listed = ", ".join(whole.classes)
            raise UserError(
                f"dataset.source_classes: CIFAR-10 has no class {name!r}{nearest(name, whole.classes)} ({listed})"
            )
    known = tuple(name for name in whole.classes if name in source_classes)
    other = tuple(name for name in whole.classes if name not in source_classes)
    if min(len(known), len(other)) < 2:
        raise UserError(
            f"dataset.source_classes leaves {count_noun(len(known), 'class')} to the source and {len(other)} to the"
            " target: each needs 2 or more"
        )
    sides = [
        of_classes(whole, name, classes)
        for name, classes in (("cifar10 source classes", known), ("cifar10 other classes", other))
    ]
    source, target = (limit_rows(side, samples, Rng(seed).child("samples", side.name)) for side in sides)
    return Drawn(source, target, limit(samples), size, drawn_from=count_rows_by_part(sides[1]))


def of_classes(whole: Raw, name: str, classes: tuple[str, ...]) -> Raw:
    """The rows of these classes, numbered in this order."""
    numbers = torch.full((len(whole.classes),), -1)
    numbers[[whole.classes.index(label) for label in classes]] = torch.arange(len(classes))
    chosen = whole.take(numbers[whole.y] >= 0)
    return chosen._replace(name=name, y=numbers[chosen.y], classes=classes)


def read_cifar(root: str, download: bool, verify: bool) -> Raw:
    """All images (n, 3, 32, 32) of the archive's Python version, as train and test.

    root: the folder that the archive was extracted to, or that holds it, extracted or not. download: fetch it if
    it is not there. verify: take only the published files; without it, the files of the same names are read that
    there are, with as many images as they have – at least one data_batch; without test_batch, `part` is None.
    Pickles are read as data: no code in them is run.
    """
    from torchvision.datasets import CIFAR10

    batches = {"train": dict(CIFAR10.train_list), "test": dict(CIFAR10.test_list)}
    published = {**batches["train"], **batches["test"]}
    meta = CIFAR10.meta["filename"]
    names = CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5, CIFAR10.base_folder
    archive = Archive("CIFAR-10", *names, files=published, extras={meta: CIFAR10.meta["md5"]})
    files = files_of(archive, root, download, verify)
    if not batches["train"].keys() & files.keys():
        folder = next(iter(files.values())).parent
        raise UserError(f"{folder} has no {next(iter(batches['train']))} or other batch to train on: see dataset.root")
    if missing := [name for name in published if name not in files]:
        log.warning("CIFAR-10 is read without %s, which are not there", ", ".join(missing))
    parts = [(part, _batch(files[name])) for part, listed in batches.items() for name in listed if name in files]
    x = torch.from_numpy(np.concatenate([x for _, (x, _) in parts]))
    y = torch.from_numpy(np.concatenate([y for _, (_, y) in parts]))
    part = torch.cat([torch.full((len(labels),), PARTS.index(part)) for part, (_, labels) in parts])
    whole = "test_batch" in files
    return Raw("cifar10", x, y, _names(files[meta]) if meta in files else CLASSES, part if whole else None)


def _batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _dict(file, "data", "labels")
    x, y = content["data"], content["labels"]
    if not (isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2 and x.shape[1] == 3072):
        kind = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise UserError(f"{file}: its data is {kind}, not a uint8 array (n, 3072): 32×32 red, then green, then blue")
    if not isinstance(y, np.ndarray):
        y = np.array(y if isinstance(y, list) and all(isinstance(label, int) for label in y) else [None])
    if y.dtype.kind not in "iu" or y.ndim != 1 or not ((y >= 0) & (y < len(CLASSES))).all():
        raise UserError(f"{file}: its labels are not all whole numbers from 0 to 9")
    if len(x) != len(y):
        raise UserError(f"{file} has {len(x)} images and {len(y)} labels")
    return x.reshape(-1, 3, 32, 32), y.astype(np.int64)


def _names(file: Path) -> tuple[str, ...]:
    listed = _dict(file, "label_names")["label_names"]
    listed = listed if isinstance(listed, list | tuple | np.ndarray) else []
    names = [name.decode("latin1") if isinstance(name, bytes) else name for name in listed]
    texts = {name for name in names if isinstance(name, str)}
    if not len(texts) == len(names) == len(CLASSES):
        raise UserError(f"{file}: its label_names are not ten different names")
    return tuple(names)


def _dict(file: Path, *keys: str) -> dict[str, Any]:
    content = pickled.read_pickled(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not a dict with {' and '.join(keys)}")
    if any(key not in content for key in keys):
        held = ", ".join([*content][:9]) or "nothing"
        raise UserError(f"{file} holds a dict of {held}, not one with {' and '.join(keys)}")
    return content
