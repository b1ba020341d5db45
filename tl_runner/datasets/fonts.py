"""Fonts that are there wherever this package is: matplotlib, a dependency, ships them."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tl_runner.errors import UserError


@cache
def find_fonts() -> list[Path]:
    """The DejaVu fonts that ship inside matplotlib, which is not imported; its two display fonts are left out."""
    spec = find_spec("matplotlib")
    folders = [Path(place) / "mpl-data" / "fonts" / "ttf" for place in (spec and spec.submodule_search_locations) or ()]
    files = sorted(file for folder in folders for file in folder.glob("DejaVu*.ttf") if "Display" not in file.name)
    if not files:
        raise UserError("this dataset draws with the DejaVu fonts that ship inside matplotlib: none were found there")
    return files
