"""Which domains a dataset has, so that `pairs=` can pair them. Needs no torch but for folders and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_runner.datasets.dialect import Dialect
from tl_runner.errors import UserError

EMBEDDED = {
    "digits": ("sans", "serif", "mono", "handwritten"),  # `rendered` is all fonts together
    "road_signs": ("north", "south"),
    "audio": ("low", "high"),  # without a folder of recordings
}


def list_domain_names(dataset: str, options: Mapping[str, Any]) -> list[str]:
    """The domains of a dataset under these options; raises `UserError` where they can't be told."""
    root, file, column = (options.get(key) for key in ("root", "file", "domain"))
    if dataset in EMBEDDED and not root:
        return [*EMBEDDED[dataset]]
    if dataset in ("image_folder", "text", "audio") and root:
        follow = str(options.get("follow_links")).lower() == "true"
        return _list_folders(Path(str(root)).expanduser(), follow)
    if dataset in ("table", "csv", "text") and file and column:
        how = (str(options.get(key) or "auto") for key in ("separator", "encoding"))
        written = Dialect(missing=[str(word) for word in options.get("missing") or ()])
        values = _list_values(str(file), str(column), *how)
        return [name for name in values if not written.is_absent(name.strip(), literal=True)]
    raise UserError(
        f"pairs: which domains dataset={dataset} has can't be told: name them, as in domains=[a,b,c]"
        " (folders of a dataset.root, and a column dataset.domain of a dataset.file, are found)"
    )


def _list_folders(root: Path, follow_links: bool) -> list[str]:
    from tl_runner.datasets.listing import folders

    if not root.is_dir():
        raise UserError(f"there is no folder {str(root.absolute())!r}: set dataset.root=…")
    return [*folders(root, None if follow_links else root)]


def _list_values(file: str, column: str, separator: str, encoding: str) -> list[str]:
    from tl_runner.datasets.cells import normalise_categories, observed
    from tl_runner.datasets.classes import sort_names
    from tl_runner.datasets.json_lines import read_json_lines
    from tl_runner.datasets.read_table import read_table
    from tl_runner.datasets.text_columns import is_json

    said = f"dataset.file={file}"
    if is_json(file):
        found = read_json_lines(file, said, column, (), encoding)
    else:
        found = read_table(file, said, Dialect.parse(separator, encoding), only={column}, literal={column})
    cells, _ = found.split_off(column, "domain")
    return [*sort_names(observed(normalise_categories(cells)))]
