"""Which domains a dataset has, so that `pairs=` can pair them. Needs no torch but for folders and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_runner.errors import UserError

DIGITS = ("sans", "serif", "mono", "handwritten")  # `rendered` is all fonts together


def list_domain_names(dataset: str, options: Mapping[str, Any]) -> list[str]:
    """The domains of a dataset under these options; raises `UserError` where they can't be told."""
    if dataset == "digits":
        return [*DIGITS]
    root, file, column = (options.get(key) for key in ("root", "file", "domain"))
    if dataset in ("image_folder", "text") and root:
        return _list_folders(Path(str(root)).expanduser())
    if dataset in ("table", "csv", "text") and file and column:
        return _list_values(str(file), str(column))
    raise UserError(
        f"pairs: which domains dataset={dataset} has can't be told: name them, as in domains=[a,b,c]"
        " (folders of a dataset.root, and a column dataset.domain of a dataset.file, are found)"
    )


def _list_folders(root: Path) -> list[str]:
    from tl_runner.datasets.listing import folders

    if not root.is_dir():
        raise UserError(f"there is no folder {str(root.absolute())!r}: set dataset.root=…")
    return [*folders(root, root)]


def _list_values(file: str, column: str) -> list[str]:
    raise NotImplementedError
