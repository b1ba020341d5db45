"""Published archives in a folder of the user's: found, extracted, and downloaded if that is wanted."""

import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tl_runner.errors import UserError


class Archive(NamedTuple):
    """A tar file that its makers published: its address, and the MD5 of it and of the files in it.

    `files` are those that belong to the data, `extras` may be missing; an MD5 of None is of a file without one.
    """

    title: str
    url: str
    packed: str
    md5: str
    folder: str
    files: Mapping[str, str]
    extras: Mapping[str, str | None]

    @property
    def all(self) -> dict[str, str | None]:
        """Every file that is read: name -> MD5."""
        return {**self.files, **self.extras}


def files_of(archive: Archive, root: str, download: bool, verify: bool) -> dict[str, Path]:
    """The archive's files by name, from root/<folder>, root itself, or the archive extracted or downloaded there.

    With `verify` all of `files` are there, and as published; without, those are returned that there are.
    Raises `UserError` in words where there is none.
    """
    base = Path(root).expanduser()
    folder = _extracted(archive, base)
    if folder is None:
        packed = base / archive.packed
        if packed.is_file():
            if verify:
                _as_published(packed, archive.md5)
        elif download:
            fetch(archive.title, archive.url, packed, archive.md5)
        else:
            raise UserError(
                f"{archive.title} is not in {describe_folder(base)}: neither {archive.folder}/ nor"
                f" {archive.packed} is there."
                " Set dataset.root=… to a folder that holds one, or dataset.download=true to fetch it from"
                f" {archive.url}"
            )
        folder = _extract(archive, packed)
    found = {name: folder / name for name in archive.all if (folder / name).is_file()}
    if verify:
        if missing := [name for name in archive.files if name not in found]:
            raise UserError(
                f"{folder} lacks {', '.join(missing)} of {archive.title}: set dataset.root=… to a folder that has"
                f" all files, or delete this one and set dataset.download=true"
            )
        for name, file in found.items():
            _as_published(file, archive.all[name])
    return found


def fetch(title: str, url: str, file: Path, md5: str) -> None:
    """Download a file; it appears under its name only when it is whole and its MD5 is right."""
    from torchvision.datasets.utils import download_url

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".fetching-") as place:
            download_url(url, place, file.name, md5)
            (Path(place) / file.name).replace(file)
    except (OSError, RuntimeError) as error:  # RuntimeError is torchvision's for a wrong MD5
        raise UserError(
            f"{title} could not be downloaded from {url} to {file.parent}: {error}."
            " Put the file there yourself, or set dataset.root=… to a folder that has it"
        ) from error


def describe_folder(folder: Path) -> str:
    """A folder as an error names it: in full, and what there is of it."""
    if not folder.is_dir():
        return f"{folder.resolve()} (there is no such folder)"
    names = sorted(path.name for path in folder.iterdir())
    listed = ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])
    return f"{folder.resolve()} (it holds {listed or 'nothing'})"


def _extracted(archive: Archive, base: Path) -> Path | None:
    places = (base / archive.folder, base)
    return next((place for place in places if any((place / name).is_file() for name in archive.files)), None)


def _as_published(file: Path, md5: str | None) -> None:
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(file, md5):
        raise UserError(
            f"{file} is not the published file: its MD5 is not {md5}. Replace it; or dataset.verify=false reads it as"
            " it is (whatever it holds, no code in it is run)"
        )


def _extract(archive: Archive, packed: Path) -> Path:
    """The files that are read, as plain files under their known names; no other member touches the disk."""
    folder = packed.parent / archive.folder
    wanted = {f"{archive.folder}/{name}": name for name in archive.all}
    try:
        with (
            TemporaryDirectory(dir=packed.parent, prefix=".extracting-") as place,
            tarfile.open(packed) as tar,
        ):
            whole = Path(place) / archive.folder
            whole.mkdir()
            for member in tar:
                name = wanted.get(str(PurePosixPath(member.name)))
                content = tar.extractfile(member) if name and member.isfile() and not member.issparse() else None
                if name and content:
                    with (whole / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
            if not any(whole.iterdir()):
                raise UserError(f"{packed} holds no file of {archive.title}: {', '.join(wanted)} were looked for")
            try:
                whole.replace(folder)
            except OSError:
                if _extracted(archive, packed.parent) is None:  # else another run has just done the same
                    raise
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{packed} can't be extracted: {error}. Set dataset.root=… to a folder that holds {archive.folder}/"
        ) from error
    return folder
