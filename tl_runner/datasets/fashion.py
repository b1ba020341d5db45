"""Fashion-MNIST: 70,000 grey images of 28×28, ten kinds of clothes (Xiao, Rasul and Vollgraf 2017)."""

from pathlib import Path
from typing import Literal

import torch

from tl_runner.datasets import idx
from tl_runner.datasets.archives import describe_folder, fetch
from tl_runner.datasets.halves import shifted_halves, task
from tl_runner.datasets.image_shifts import GreyShift
from tl_runner.datasets.split import PARTS, Drawn, Raw
from tl_runner.errors import UserError

DEBIAN = "/usr/share/datasets/fashion-mnist"  # where the package dataset-fashion-mnist puts the files
PREFIXES = {"train": "train", "test": "t10k"}


def fashion(
    seed: int,
    root: str | None = None,
    download: bool = False,
    source: Literal["fashion"] | None = "fashion",
    shift: GreyShift | None = None,
    severity: int | None = None,
    samples: int | None = None,
    size: int = 28,
) -> Drawn:
    """One half of Fashion-MNIST -> the other half under a shift.

    root: the folder of the IDX files, or that has FashionMNIST/raw in it; None looks in data/ and in Debian's.
    source: None makes all images the target, for a backbone whose weights are the source. shift: None is noise
    with a source and none without. severity: 1 to 5, by default 3. samples: of each domain, at most. size: pixels a
    side, when used.
    """
    wanted = task(source, shift, severity, samples, size)
    return shifted_halves(read_fashion(root, download), wanted, seed)


def read_fashion(root: str | None, download: bool) -> Raw:
    """All images (n, 1, 28, 28), as train and test, from four IDX files, plain or gzipped.

    A download is checked against the published MD5s; files that lie there are not: Debian's are other gzips of
    the same bytes. What is read is checked for its shapes and lengths.
    """
    from torchvision.datasets import FashionMNIST

    published = dict(FashionMNIST.resources)
    tops = [Path("data"), Path(DEBIAN)] if root is None else [Path(root).expanduser()]
    places = [place for top in tops for place in (top / "FashionMNIST" / "raw", top)]
    folder = next((place for place in places if any(_file(place, name).is_file() for name in published)), None)
    if folder is None and not download:
        raise UserError(
            f"Fashion-MNIST is not in {' or '.join(map(describe_folder, tops))}: {next(iter(published))} and three more"
            " were looked for. Set dataset.root=… to the folder that has them, dataset.download=true to fetch them, or"
            " install Debian's dataset-fashion-mnist"
        )
    folder = folder or places[0]
    for name, md5 in published.items():
        if _file(folder, name).is_file():
            continue
        if not download:
            raise UserError(f"{folder} has no {name}, plain or gzipped: dataset.download=true fetches it")
        fetch("Fashion-MNIST", FashionMNIST.mirrors[0] + name, folder / name, md5)
    sides = [_labelled(folder, prefix) for prefix in PREFIXES.values()]
    x, y = (torch.cat(tensors) for tensors in zip(*sides, strict=True))
    part = torch.cat([torch.full((len(y),), PARTS.index(name)) for name, (_, y) in zip(PREFIXES, sides, strict=True)])
    return Raw("fashion", x, y, tuple(FashionMNIST.classes), part)


def _file(folder: Path, name: str) -> Path:
    """The plain file rather than the gzipped one: torchvision leaves both, and it is read faster."""
    plain = folder / name.removesuffix(".gz")
    return plain if plain.is_file() else folder / name


def _labelled(folder: Path, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = (_file(folder, f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    x, y = idx.read_idx(images), idx.read_idx(labels)
    if x.ndim != 3 or x.shape[1:] != (28, 28):
        raise UserError(f"{images} holds an array of shape {x.shape}, not images of 28×28")
    if y.shape != x.shape[:1]:
        raise UserError(f"{labels} holds labels of shape {y.shape} for the {len(x)} images of {images.name}")
    if len(y) and y.max() > 9:
        raise UserError(f"{labels} holds the label {y.max()}: Fashion-MNIST has 0 to 9")
    return torch.tensor(x)[:, None], torch.tensor(y, dtype=torch.long)
