"""A list of image files: a path a line, and its label behind it, as many data sets are handed on. Needs no torch.

    amazon/images/mug/frame_0001.jpg 17
    "my photos/a, b.png",mug
    unlabelled/0001.png

A path ends with the ending of an image file, so that it may hold blanks; blanks, a tab, a comma or a semicolon stand
between it and the label, which is the rest of the line. A label that holds that sign stands in quotes: else the line
has a third column, and is refused. Empty lines, and those that begin with #, are passed over, and so is a first line
that names the two columns.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tl_runner.errors import UserError

# A test holds them to what Pillow reads.
ENDINGS = """
    apng avif avifs blp bmp bw cur dcx dds dib fit fits flc fli ftc ftu gbr gif heic heics heif heifs hif icb
    icns ico iim im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo msp npy pbm pcd pcx pfm pgm png pnm ppm psd
    pxr qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
""".split()  # noqa: SIM905
PATH = rf"[^\t]*\.(?:{'|'.join(ENDINGS)})"
LINE = re.compile(rf'(?:"(?P<quoted>{PATH})"|(?P<path>{PATH}))(?P<sign>\s*[,;\t]\s*|\s+|$)(?P<label>.*)', re.IGNORECASE)
SIGNS = {",": "comma", ";": "semicolon", "\t": "tab"}
HEADER = re.compile(r"\W*(?:image|img|file|path|name)", re.IGNORECASE)


MEND = "leave other columns out (the target's test split is a list of its own, dataset.test)"


class Line(NamedTuple):
    """A file as the list names it, its label if it has one, and the number of its line."""

    path: str
    label: str | None
    number: int


def read_list(path: Path) -> Sequence[Line]:
    """The lines of a list; raises `UserError` where one can't be understood, or the list can't be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if match := LINE.fullmatch(line):
            _refuse_third_column(f"{path}:{number}: {line[:80]!r}", match["sign"], match["label"])
            label = match["label"].strip().strip('"') or None
            found.append(Line(match["quoted"] or match["path"], label, number))
        elif found or not HEADER.match(line):
            raise UserError(
                f"{path}:{number}: {line[:80]!r} names no image file: a path that ends as in .png, and behind it its"
                " label, are expected"
            )
        elif len(names := _split_header(line)) > 2:
            raise UserError(
                f"{path}:{number}: {line[:80]!r} names {len(names)} columns, and a line is a path and its label: {MEND}"
            )
    return found


def _refuse_third_column(said: str, between: str, label: str) -> None:
    """A label with a further sign that stands between path and label, outside of quotes; with a tab in any case."""
    bare = re.sub(r'"[^"]*"', "", label) if '"' in label else label
    for sign, name in SIGNS.items():
        if sign in bare and (sign in between or sign == "\t"):
            raise UserError(
                f"{said} has a further {name} behind its label, and a line is a path and its label: {MEND}."
                f" A label that holds a {name} stands in quotes"
            )


def _split_header(line: str) -> list[str]:
    """The names of the columns: what the first of the signs divides, else blanks."""
    sign = next((sign for sign in ("\t", ";", ",") if sign in line), None)
    return line.split(sign)
