"""How the numbers of an image file are read: what the user says, what the files hold, and where the two may differ."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from tl_runner.errors import check_range
from tl_runner.plurals import count_noun, pluralize

Span = tuple[float, float]
Channels = int | Literal["rgba"]

RGB, MOST = 3, 256  # bands

UPPER_HALF = 0.5  # of the range: numbers that never reach it are probably of fewer bits than the file has room for
BYTE, DEEP_WHITE = 255, 65535


class PixelFormat(NamedTuple):
    """bit_depth: bits of a number, so that white is 2^bits − 1, in files that hold more than eight; None: by the file.

    channels: 1 (grey) or 3 (red, green, blue), without a fourth band; another number: every file has so many bands,
    which are used as they are; "rgba": the fourth band is transparency; None: by the file, where a fourth band of an
    RGB image is transparency.
    """

    bit_depth: int | None = None
    channels: Channels | None = None

    def checked(self) -> "PixelFormat":
        check_range(1, 32, bit_depth=1 if self.bit_depth is None else self.bit_depth)
        check_range(1, MOST, channels=self.channels if isinstance(self.channels, int) else 1)
        return self

    @property
    def bands(self) -> int | None:
        """How many bands every file must have; None where it is a picture, of grey or of colours."""
        return self.channels if isinstance(self.channels, int) and self.channels not in (1, RGB) else None

    @property
    def stored(self) -> int:
        """The channels that an image is decoded to."""
        return self.bands or RGB


BY_FILE = PixelFormat()  # no format is set: every file decides


class PixelCounts(NamedTuple):
    """What was met in the pixels of one image or of several, before they became bytes.

    deep: the least and largest number of grey pixels or of bands whose white was taken to be 65535; cut: the same of
    16-bit colours, of which Pillow gives the upper eight bits alone; fourth: of the fourth band of a TIFF. deep_images
    counts those of more than eight bits, clear those that are transparent all over, dropped TIFFs whose fourth band
    Pillow does not give.
    """

    deep: Span | None = None
    cut: Span | None = None
    fourth: Span | None = None
    deep_images: int = 0
    clear: int = 0
    dropped: int = 0

    @classmethod
    def together(cls, each: Iterable["PixelCounts"]) -> "PixelCounts":
        """Of several images."""
        every = list(each)
        return cls(
            deep=_union(one.deep for one in every),
            cut=_union(one.cut for one in every),
            fourth=_union(one.fourth for one in every),
            deep_images=sum(one.deep_images for one in every),
            clear=sum(one.clear for one in every),
            dropped=sum(one.dropped for one in every),
        )

    @classmethod
    def read(cls, facts: dict[str, Any]) -> "PixelCounts":
        """From JSON's words; raises `KeyError`, `TypeError` or `ValueError` where they are no such facts."""
        deep, cut, fourth = (_span(facts[name]) for name in ("deep", "cut", "fourth"))
        deep_images, clear, dropped = (int(facts[name]) for name in ("deep_images", "clear", "dropped"))
        return cls(deep, cut, fourth, deep_images, clear, dropped)


def doubts(found: PixelCounts, asked: PixelFormat) -> Iterator[str]:
    """What a person must hear of images whose numbers may mean something else than was taken."""
    if asked.bit_depth is None and found.deep and 0 < found.deep[1] < UPPER_HALF * DEEP_WHITE:
        low, high = found.deep
        bits, levels = _bits(high), round(high / 257) - round(low / 257) + 1
        yield (
            f"the 16-bit pixels go from {low:g} to {high:g} of 65535, and come out dark, in at most {levels} grey"
            f" levels. If they are numbers of {bits} bits, set dataset.bit_depth={bits}; dataset.bit_depth=16 keeps"
            " them so"
        )
    if asked.bit_depth is None and found.cut and found.cut[1] < UPPER_HALF * BYTE:
        low, high = found.cut
        yield (
            f"the upper bytes of the 16-bit colours go from {low:g} to {high:g} of 255, and come out dark. Pillow does"
            " not read the lower bytes: convert such files to 8 bits a channel"
        )
    if asked.channels is None and found.fourth and found.fourth[0] < BYTE:
        low, high = found.fourth
        yield (
            f"the fourth band of the TIFFs goes from {low:g} to {high:g} of 255, and is treated as transparency: at 0 a"
            " pixel comes out white. dataset.channels=3 leaves that band out, dataset.channels=rgba says that it is"
            " transparency"
        )
    if asked.channels is None and found.dropped:
        yield (
            f"the fourth band of {count_noun(found.dropped, 'TIFF')} has no stated meaning and is ignored."
            " dataset.channels=3 confirms that"
        )
    if asked.channels is None and found.clear:
        yield (
            f"{count_noun(found.clear, 'image')} {pluralize(found.clear, 'is')} transparent everywhere, and so white."
            " dataset.channels=3 uses the colours without the transparency"
        )


def _span(said: Any) -> Span | None:
    return None if said is None else (float(said[0]), float(said[1]))


def _bits(high: float) -> int:
    """The depth that numbers up to this one probably have: that of a camera, where one fits."""
    least = int(high).bit_length()
    return next(bits for bits in (8, 10, 12, 14, 15) if bits >= least)


def _union(spans: Iterable[Span | None]) -> Span | None:
    there = [span for span in spans if span is not None]
    return (min(low for low, _ in there), max(high for _, high in there)) if there else None
