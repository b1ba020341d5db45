"""The side of the images that a backbone's weights were trained on: what `dataset.size=auto` then means."""

from collections.abc import Callable
from typing import Any, TypeVar

Build = TypeVar("Build", bound=Callable[..., Any])
Side = int | Callable[..., int | None]


def trained_at(side: Side) -> Callable[[Build], Build]:
    """Mark a function that builds a backbone: with any `weights`, these are of images of so many pixels a side.

    `side` may be a function of the backbone's options.
    """

    def mark(build: Build) -> Build:
        vars(build)["weights_side"] = side
        return build

    return mark


def find_trained_size(backbone: Any) -> int | None:
    """Pixels a side, of a backbone with its options bound; None from scratch, and where it is not known."""
    options = getattr(backbone, "keywords", {})
    side: Side | None = getattr(getattr(backbone, "func", None), "weights_side", None)
    if side is None or not options.get("weights"):
        return None
    return side if isinstance(side, int) else side(**options)
