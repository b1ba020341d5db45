"""Which files a run reads, and what they hold: a part of who it is. Needs no torch.

A file counts by its name relative to what the option names, and by its content; where that lies does not matter. A
dataset of a user's own, and any option of it that names a file or a folder which is there, is treated alike.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b, md5
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

from tl_runner.errors import UserError
from tl_runner.option_names import is_ours
from tl_runner.storage.contents import Contents
from tl_runner.storage.image_lists import read_list
from tl_runner.storage.table_files import list_table_files

CIFAR = ("cifar10", "cifar10_split", "cifar10_stl10")
DEBIAN = "/usr/share/datasets/fashion-mnist"  # where the package dataset-fashion-mnist puts the files

# Options (or DATASET.OPTION) that came after a dataset had its first runs, with their defaults: what leaves them alone
# keeps its id.
LATER = {
    "labelled": "auto",
    "score_on": "test",
    "test": None,
    "target_shares": None,
    "random_state": None,
    "label_noise": 0.0,
    "task": "classification",
    "digits.target": "handwritten",
    "follow_links": False,
    "decimal": "point",
    "thousands": "none",
    "encoding": "auto",
    "dates": [],
    "split": None,
    "group": None,
    "time": None,
}

# Of our datasets: values, and what they stand for in ids. A table was called csv; what `auto` finds was to be said, and
# most files had commas.
STANDS_FOR = {
    "_target_": {"table": "csv"},
    "separator": {"auto": "comma", ",": "comma", ";": "semicolon", "\t": "tab", "\\t": "tab", "|": "pipe"},
    "decimal": {".": "point", ",": "comma"},
    "thousands": {"": "none", ".": "point", ",": "comma", " ": "space", "'": "apostrophe"},
}

# Published without an MD5: of its words, one blank between two.
WORDS = md5(b"airplane bird car cat deer dog horse monkey ship truck", usedforsecurity=False).hexdigest()

# Files as their makers published them, with their MD5s. They are known by the dataset's name alone, whether they are
# there or are yet to be downloaded: only other files of these names count as content.
PUBLISHED: dict[str, dict[str, str]] = {
    "cifar-10-batches-py": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    "stl10_binary": {
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        "class_names.txt": WORDS,
    },
    "FashionMNIST/raw": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
PACKED = {"cifar-10-batches-py": "cifar-10-python.tar.gz", "stl10_binary": "stl10_binary.tar.gz"}
UNSURE = {"class_names.txt"}  # `verify` says nothing of it


class Data(NamedTuple):
    """What a dataset's files hold: a hash of names and contents, None where nothing but published files is read."""

    digest: str | None
    files: int
    bytes: int


class Named(NamedTuple):
    """A file or a folder that an option names; with `published`, only those files in it, by name -> MD5."""

    label: str
    path: Path
    published: Mapping[str, str] | None = None


def hash_data(dataset: Any, contents: Contents) -> Data:
    """What the files hold that a dataset's node names."""
    lines, count, size = [], 0, 0
    for named in _find_named_files(dataset, contents.home) if isinstance(dataset, Mapping) else ():
        for found in contents.of(named.path, None if named.published is None else tuple(named.published)):
            count, size = count + 1, size + found.bytes
            if (named.published or {}).get(found.name) != found.hash:
                lines.append((named.label, found.name, found.hash))
    digest = blake2b(json.dumps(sorted(lines)).encode(), digest_size=8).hexdigest() if lines else None
    return Data(digest, count, size)


def drop_locations(dataset: Any) -> Any:
    """A dataset's node without where its files lie, whether they may be downloaded, and `LATER` options left alone.

    Nothing is looked up; a user's own dataset stays as it is.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    dropped = {"download", *(["root"] if _ours(dataset) else [])}
    files, node = _tables(dataset), drop_later_options(dataset)
    return {key: _name_alone(value) if key in files else value for key, value in node.items() if key not in dropped}


def list_locations(dataset: Any) -> list[str]:
    """What `drop_locations` drops of a dataset of this package: where its files lie, as whole paths."""
    if not isinstance(dataset, Mapping) or not _ours(dataset):
        return []
    named = [each for key in ("root", *_tables(dataset)) for each in _list(dataset.get(key))]
    return [str(Path(str(each)).expanduser().resolve()) for each in named if each is not None]


def _name_alone(value: Any) -> Any:
    """A file without its folder; so each of several."""
    return [_name_alone(each) for each in value] if isinstance(value, list | tuple) else Path(str(value)).name


def drop_later_options(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a dataset of this package without the options in `LATER` that have their defaults."""
    if not (ours := _ours(dataset)):
        return dict(dataset)
    later, settled = [*LATER.items()], {key: _settle(key, value) for key, value in dataset.items()}

    def is_left_alone(key: str, value: Any) -> bool:
        return (key, value) in later or (f"{ours}.{key}", value) in later

    return {key: value for key, value in settled.items() if not is_left_alone(key, value)}


def _settle(key: str, value: Any) -> Any:
    return STANDS_FOR.get(key, {}).get(value, value) if isinstance(value, str) else value


def identify_dataset(dataset: Any, digest: str | None, home: Path) -> Any:
    """What a dataset's node is in the identity of its runs: paths as bare names, and what the files hold."""
    if not isinstance(dataset, Mapping):
        return dataset
    node = drop_locations(dataset)
    if not _ours(dataset):
        node = {key: _bare(value, home) if key != "_target_" else value for key, value in node.items()}
    return {**node, "files": digest} if digest else node


NO_DATA = {".", "..", "/", "~"}  # values that are a separator or a pattern sooner than a folder of data


def resolve_path(value: Any, home: Path) -> Path | None:
    """The file or folder that a value names, if it does."""
    if not isinstance(value, str) or not value.strip() or value.strip() in NO_DATA:
        return None
    try:
        path = home / Path(value).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long for a name; a null byte; no such user's home
        return None


def _ours(dataset: Mapping[str, Any]) -> str:
    """The name of one of our datasets, by its option; "" where it is none."""
    target = dataset.get("_target_")
    return target if isinstance(target, str) and is_ours(target) else ""


def _tables(dataset: Mapping[str, Any]) -> list[str]:
    """The options of a dataset that name files of rows."""
    if _ours(dataset) == "image_list":
        return [key for key in ("source", "target", "test", "class_names") if dataset.get(key)]
    if _ours(dataset) not in ("table", "csv", "text") or dataset.get("root") is not None:
        return []
    keys = ["source", "target", "test"] if dataset.get("file") is None else ["file"]
    return [key for key in keys if dataset.get(key) and all(isinstance(each, str) for each in _list(dataset[key]))]


def _label(dataset: Mapping[str, Any], key: str, name: str) -> str:
    """What the files of an option, or of one of its several values, are known by."""
    return key if isinstance(dataset[key], str) else f"{key} {Path(name).name}"


def _list(value: Any) -> list[Any]:
    """The values of an option that takes one or several."""
    return [*value] if isinstance(value, list | tuple) else [value]


def _find_named_files(dataset: Mapping[str, Any], home: Path) -> Iterator[Named]:
    ours, root = _ours(dataset), dataset.get("root")
    if not ours:
        yield from _of_own(dataset, "", home)
    elif ours in ("table", "csv") or (ours == "text" and root is None):
        for key in _tables(dataset):
            for name in _list(dataset[key]):
                label = _label(dataset, key, name)
                yield from (Named(label, path) for path in list_table_files(name, home))
    elif ours in ("image_folder", "text", "audio"):
        for key in ("source", "target", "test"):
            for name in _list(dataset.get(key)):
                if path := _domain(resolve_path(root, home), name):
                    yield Named(_label(dataset, key, name), path)
    elif ours == "image_list":
        yield from _image_lists(dataset, home)
    elif ours == "fashion":
        yield from _fashion(home, root)
    elif ours in CIFAR:
        for archive in PACKED if ours == "cifar10_stl10" else [*PACKED][:1]:
            yield from _archive(archive, resolve_path(root, home), dataset.get("verify") is not False)


def _domain(root: Path | None, name: Any) -> Path | None:
    """The folder of a domain; no name leads out of the root."""
    if root is None or not root.is_dir() or not isinstance(name, str):
        return None
    same = (path for path in root.iterdir() if normalize("NFC", path.name) == normalize("NFC", name))
    return next((path for path in same if path.is_dir()), None)


def _image_lists(dataset: Mapping[str, Any], home: Path) -> Iterator[Named]:
    """The lists, and the files that they name."""
    root = resolve_path(dataset.get("root"), home)
    for key in ("source", "target", "test", "class_names"):
        for name in _list(dataset.get(key)):
            if (path := resolve_path(name, home)) and path.is_file():
                label = _label(dataset, key, name)
                yield Named(label, path)
                if key != "class_names":
                    yield _listed(f"{label} files", path, root or path.parent)


def _listed(label: str, path: Path, root: Path) -> Named:
    """The files that a list names, under the names that it has for them; none where it can't be read: the run says so.

    What is `published` of them is not known: so they count by their content.
    """
    try:
        return Named(label, root, {line.path: "" for line in read_list(path)})
    except UserError:
        return Named(label, root, {})


def _fashion(home: Path, root: Any) -> Iterator[Named]:
    """The four files where they are looked for first; of a plain one and a gzipped one the plain one is read."""
    published = PUBLISHED["FashionMNIST/raw"]
    tops = [home / "data", Path(DEBIAN)] if root is None else [resolve_path(root, home)]
    for place in (place for top in tops if top for place in (top / "FashionMNIST" / "raw", top)):
        plain = {name: place / name.removesuffix(".gz") for name in published}
        read = [file.name if file.is_file() else name for name, file in plain.items()]
        if any((place / name).is_file() for name in read):
            yield Named("", place, {name: published.get(name, "") for name in read})
            return


def _archive(name: str, root: Path | None, verified: bool) -> Iterator[Named]:
    """The archive's files where it is extracted, else those in it; files that the run verifies are as published."""
    if root is None:
        return
    published = {file: known for file, known in PUBLISHED[name].items() if not verified or file in UNSURE}
    places = [place for place in (root / name, root) if any((place / file).is_file() for file in PUBLISHED[name])]
    if places:
        yield Named(name, places[0], published)
    elif not verified:
        yield Named(name, root / PACKED[name], published)


def _of_own(value: Any, label: str, home: Path) -> Iterator[Named]:
    """Every file and folder that a user's own options name, at any depth of them."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key != "_target_":
                yield from _of_own(each, f"{label}.{key}", home)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _of_own(each, f"{label}.{index}", home)
    elif path := resolve_path(value, home):
        yield Named(label, path)


def _bare(value: Any, home: Path) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _bare(each, home) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_bare(each, home) for each in value]
    return path.name if (path := resolve_path(value, home)) else value
