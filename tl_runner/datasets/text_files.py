"""Text from a file of a user's own: its bytes, unpacked, and their encoding. Errors say which file, and what to do."""

import codecs
import gzip
import logging
import re
import zlib
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from tl_runner.errors import UserError, list_names, nearest
from tl_runner.storage.table_files import GZIP

log = logging.getLogger(__name__)

BLOCK = 2**22  # bytes decoded at a time: a table may be large
KINDS = {  # how a file begins that is no text
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "a Parquet file: name it so, with the ending .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file (.xls, .doc): export it as CSV first",
    b"BZh": "a bzip2 archive: unpack it, or pack it as .gz",
    b"\xfd7zXZ": "an xz archive: unpack it, or pack it as .gz",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it, or pack it as .gz",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"ARROW1": "an Arrow (Feather) file: save it as Parquet or CSV",
    b"\x89HDF": "an HDF5 file: save it as Parquet or CSV",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"%PDF": "a PDF: a table in it must be exported as CSV first",
    b"ORC": "an ORC file: save it as Parquet or CSV",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"Obj\x01": "an Avro file: save it as Parquet or CSV",
}
INSIDE = {  # what a ZIP archive holds
    b"xl/": "an Excel workbook (.xlsx): export the sheet as CSV UTF-8 first",
    b"opendocument.spreadsheet": "an OpenDocument sheet (.ods): export it as CSV first",
    b"word/": "a Word document (.docx): save it as plain text first",
}


class FileText(NamedTuple):
    """A file's bytes, unpacked, and the codec that makes text of them."""

    data: bytes
    codec: str

    @property
    def encoding(self) -> str:
        """Its name as people say it."""
        return "utf-8" if self.codec == "utf-8-sig" else self.codec

    def stream(self) -> TextIOWrapper:
        """The text as a stream, its ends of lines as they are."""
        return TextIOWrapper(BytesIO(self.data), encoding=self.codec, newline="")

    def head(self, size: int) -> tuple[str, bool]:
        """Text from the beginning of so many bytes, and whether that is all."""
        return self.data[:size].decode(self.codec, errors="ignore"), len(self.data) <= size


def read_text(file: str, said: str, encoding: str = "auto") -> str:
    """The text in a file, in UTF-8 unless a mark at its beginning, its zero bytes or an `encoding` say otherwise."""
    found = find_text(file, said, encoding)
    return found.data.decode(found.codec)


def find_text(file: str, said: str, encoding: str = "auto", guess: bool = False) -> FileText:
    """The bytes of a text file and their encoding; `said` is what named the file, as it was typed.

    With `guess` text that is not UTF-8 is taken as cp1252 or Latin-1, and that is said.
    """
    data = _unpack(_read_bytes(file, said), file)
    if what := _kind(data):
        raise UserError(f"{file} is no text but {what}")
    found = _find_encoding(data, file, guess) if encoding == "auto" else FileText(data, _with_mark(encoding, data))
    _check(found, file, encoding)
    return found


def _read_bytes(file: str, said: str) -> bytes:
    path = Path(file).expanduser()
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.glob("*") if entry.is_file())
        what = "that is a folder" if path.is_dir() else f"there is no such file{nearest(path.name, there)}"
        raise UserError(f"{said}: {what} (in {path.parent.resolve()}: {list_names(there) or 'no file'})")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{said} can't be read: {error.strerror}") from error


def _unpack(data: bytes, file: str) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        if data and file.lower().endswith(GZIP):
            raise UserError(f"{file} ends in {GZIP} and is no gzip file: rename it")
        return data
    if not file.lower().endswith(GZIP):
        log.info("%s is a gzip file, whatever its name: read unpacked", file)
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} can't be unpacked: {error}. Is it cut off?") from error


def _kind(data: bytes) -> str:
    """What a file is that is no text; "" where nothing says so."""
    for mark, what in KINDS.items():
        if data.startswith(mark):
            inside = next((each for sign, each in INSIDE.items() if mark == b"PK\x03\x04" and sign in data), "")
            return inside or (f"{what}: unpack it first" if mark == b"PK\x03\x04" else what)
    return ""


def _with_mark(encoding: str, data: bytes) -> str:
    """The codec of a named encoding: one of UTF-8 passes over the mark that may begin it."""
    return "utf-8-sig" if encoding == "utf-8" and data.startswith(codecs.BOM_UTF8) else encoding


def _find_encoding(data: bytes, file: str, guess: bool) -> FileText:
    if data.startswith(codecs.BOM_UTF8):
        return FileText(data, "utf-8-sig")
    for codec, marks in (
        ("utf-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("utf-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    ):
        if data.startswith(marks):
            return _tell(data, codec, "the mark that begins it", file)
    if codec := _wide_codec(data):
        return _tell(data, codec, "its zero bytes", file)
    if _first_fault(data, "utf-8") is None or not guess:
        return FileText(data, "utf-8")
    # Both hold the same letters; only cp1252 has signs, as € and curly quotes, where Latin-1 has control characters.
    codec = "cp1252" if any(byte in data for byte in range(0x80, 0xA0)) else "latin-1"
    if _first_fault(data, codec) is not None:
        return FileText(data, "utf-8")
    at = _first_fault(data, "utf-8") or 0
    word = re.search(r"\w*[^\x00-\x7f]+\w*", data[max(0, at - 20) : at + 20].decode(codec))
    line = data.count(b"\n", 0, at) + 1
    log.warning(
        "%s is not UTF-8, and read as %s: line %d then holds '%s'. If that is wrong, dataset.encoding names another"
        " (cp1250, mac-roman, shift-jis, …)", file, codec, line, word and word[0],
    )  # fmt: skip
    return FileText(data, codec)


def _tell(data: bytes, codec: str, by: str, file: str) -> FileText:
    log.info("%s is %s, by %s (dataset.encoding=%s)", file, codec, by, codec)
    return FileText(data, codec)


def _wide_codec(data: bytes) -> str:
    """The codec of text in two or four bytes a sign, without a mark at its beginning; most signs are ASCII."""
    head = data[:4000]
    zero = [head[at::4].count(0) > len(head) / 8 for at in range(4)]
    patterns = {"0101": "utf-16-le", "1010": "utf-16-be", "0111": "utf-32-le", "1110": "utf-32-be"}
    return patterns.get("".join(str(int(at)) for at in zero), "") if len(head) >= 4 else ""


def _first_fault(data: bytes, codec: str) -> int | None:
    """Where the first byte is that the codec can't read; None where it reads all."""
    if codec.startswith("utf-8") and data.isascii():
        return None
    decoder, view = codecs.getincrementaldecoder(codec)(), memoryview(data)
    for start in range(0, len(data), BLOCK):
        kept = decoder.getstate()[0]
        try:
            decoder.decode(bytes(view[start : start + BLOCK]), final=start + BLOCK >= len(data))
        except UnicodeDecodeError as error:
            return max(0, start - len(kept) + error.start)
    return None


def _check(text: FileText, file: str, asked: str) -> None:
    """Refuse bytes that the codec can't read, and zero bytes, which no text holds."""
    narrow = not text.codec.startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
    if narrow and (at := text.data.find(0)) >= 0:
        wide = f"; with dataset.encoding={asked}" if asked != "auto" else ""
        raise UserError(
            f"line {text.data.count(10, 0, at) + 1} of {file} holds a zero byte, and text has none{wide}: was the file"
            " damaged, or is it no text?"
        )
    if (at := _first_fault(text.data, text.codec)) is None:
        return
    if not narrow:
        raise UserError(f"{file} is not {text.encoding}: byte {at + 1} can't be read. dataset.encoding names another")
    line = text.data.count(b"\n", 0, at) + 1
    if asked == "auto":
        raise UserError(
            f"line {line} of {file} is not UTF-8: convert the file, as in iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW, or"
            " name its encoding, as in dataset.encoding=cp1252"
        )
    raise UserError(f"line {line} of {file} is not {text.encoding}: dataset.encoding names another, auto looks for it")
