"""Text from a file of a user's own. Errors say which file it is, and what to do."""

import codecs
from pathlib import Path
from typing import NamedTuple

from tl_runner.errors import UserError, list_names, nearest


class Advice(NamedTuple):
    """What a message advises about a file that is not UTF-8: in UTF-16 or UTF-32, and one that is no text at all."""

    wide: str
    binary: str


TABLE = Advice(
    ', as Excel\'s "Unicode text" is, and must be UTF-8: convert it, as in iconv -f {encoding} -t UTF-8 OLD > NEW, or'
    ' export it as "CSV UTF-8"',
    "a spreadsheet or an archive must be exported as CSV first",
)
PLAIN = Advice(
    ", and must be UTF-8: convert it, as in iconv -f {encoding} -t UTF-8 OLD > NEW",
    "it holds zero bytes, as documents and archives do; save it as plain text first",
)


def read_utf8(file: str, said: str, advice: Advice = PLAIN) -> str:
    """The text in a UTF-8 file, without the mark that may begin it; `said` is what named the file, as it was typed."""
    path = Path(file).expanduser()
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.glob("*") if entry.is_file())
        what = "that is a folder" if path.is_dir() else f"there is no such file{nearest(path.name, there)}"
        raise UserError(f"{said}: {what} (in {path.parent.resolve()}: {list_names(there) or 'no file'})")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{said} can't be read: {error.strerror}") from error
    if encoding := _wide_encoding(data):
        raise UserError(f"{file} is {encoding}{advice.wide.format(encoding=encoding)}")
    if b"\0" in data:
        raise UserError(f"{file} is no UTF-8 text: {advice.binary}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"line {line} of {file} is not UTF-8: convert the file, as in iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        ) from error


def _wide_encoding(data: bytes) -> str:
    """`UTF-16` or `UTF-32` (with LE or BE where no mark at the start says so) of text in two or four bytes a sign."""
    for encoding, mark in (("UTF-32", codecs.BOM_UTF32_LE), ("UTF-32", codecs.BOM_UTF32_BE)):
        if data.startswith(mark):
            return encoding
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    head = data[:4000]
    zero = [head[at::4].count(0) > len(head) / 8 for at in range(4)]  # most signs of a table are ASCII
    patterns = {"0101": "UTF-16LE", "1010": "UTF-16BE", "0111": "UTF-32LE", "1110": "UTF-32BE"}
    return patterns.get("".join(str(int(at)) for at in zero), "")
