"""A sample as a picture on the page, and the words below it."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

LARGE = 96  # pixels a side at most
SMALL = 64  # up to here every pixel is kept; larger images are photographs, and made JPEG
SHORT = 16  # letters of a name that fit below a sample
RIGHT = {True: "right", False: "wrong", None: "no label says whether it is right"}


def uri(image: NDArray[np.uint8]) -> str:
    """A (c, h, w) image of bytes as a data URI. Of other than 1 or 3 channels the first is shown."""
    from PIL import Image

    planes = image if len(image) == 3 else image[:1]
    picture = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)).squeeze())
    small = max(picture.size) <= SMALL
    if not small:
        picture.thumbnail((LARGE, LARGE))
    held, kind = BytesIO(), "PNG" if small else "JPEG"
    picture.save(held, kind, **({"optimize": True} if small else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"


def shorten_names(names: Sequence[str]) -> list[str]:
    """Each name if it fits below a sample, else its number in brackets."""
    return [name if len(name) <= SHORT else f"({number})" for number, name in enumerate(names, 1)]
