"""How large images are used with `dataset.size=auto`: as the backbone's weights want it, else as the files are."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from tl_runner.models.trained_size import find_trained_size
from tl_runner.storage.sections import ImageSize

log = logging.getLogger(__name__)


def settle_size(dataset: Callable[..., Any], backbone: Any) -> tuple[Callable[..., Any], ImageSize | None]:
    """The dataset with the size of the images that the backbone's weights were trained on, and what to record of it.

    The dataset as it is, and None, where a size is said, and where the network is new: see `datasets.native_size`.
    """
    if getattr(dataset, "keywords", {}).get("size") != "auto" or (side := find_trained_size(backbone)) is None:
        return dataset, None
    log.info("dataset.size=auto: %d pixels a side, as the backbone's weights were trained on", side)
    return partial(dataset, size=side), ImageSize(side, "weights")
