"""Texts of a dataset as token ids, by the tokenizer of the backbone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tl_runner.core import Start
from tl_runner.datasets.split import Drawn, Encoding
from tl_runner.domains import kind_of_input
from tl_runner.models.tokens import Tokenizer, check_input, find_fit

log = logging.getLogger(__name__)

HIGH = 1e-4  # a learning rate from which on a pre-trained transformer tends to forget what it knows
AUTO = 0.1  # the factor of a pre-trained backbone's rate where `lr_backbone` is auto
TRAINED_BY: Mapping[Start, Sequence[str]] = {  # the groups of options that train the backbone
    "backbone": ("optimizer",),
    "source": ("pretrain", "optimizer"),
    "features": ("pretrain",),
    "scratch": (),
}


class TextEncoding:
    """Fits the backbone's tokenizer on the texts of training rows, and holds both then.

    `source` and `target` are these texts; without a source domain the first are the target's.
    """

    tokenizer: Tokenizer | None = None
    source: Sequence[str] = ()
    target: Sequence[str] = ()

    def __init__(self, backbone: Any):
        self._fit = find_fit(backbone)

    def __call__(self, source: Any, target: Any = ()) -> Encoding:
        """Of the texts (n,) of training rows; without a source domain the first are the target's."""
        assert self._fit is not None
        self.source, self.target = [*source], [*target]
        self.tokenizer = self._fit(self.source, self.target)
        return Encoding(self._tokenize, self.tokenizer.facts)

    def _tokenize(self, texts: Any) -> Any:
        assert self.tokenizer is not None
        return self.tokenizer([*texts])


def add_tokenizer(drawn: Drawn, backbone: Any) -> tuple[Drawn, TextEncoding | None]:
    """The dataset with the encoding that its texts need, and what will hold the tokenizer; refuses a wrong backbone."""
    texts = drawn.target.texts is not None
    check_input(backbone, "text" if texts else kind_of_input(drawn.target.x[:1]))
    if not texts:
        return drawn, None
    encoding = TextEncoding(backbone)
    return drawn._replace(encoding=encoding), encoding


def warn_of_rate(config: Mapping[str, Any], start: Start) -> None:
    """Warn where a method of this start trains a pre-trained transformer at too high a rate."""
    backbone = config["backbone"]
    if backbone.get("_target_") != "transformer" or not backbone.get("weights"):
        return
    for group in TRAINED_BY[start]:
        lr, factor = config[group].get("lr"), config[group].get("lr_backbone")
        rate = lr * (factor if isinstance(factor, int | float) else AUTO) if isinstance(lr, int | float) else 0.0
        if rate > HIGH and config[group].get("steps", 1):
            log.warning(
                "%s.lr trains the transformer at %g, and such networks learn best at about 2e-05: train=transformer"
                " pretrain=transformer optimizer=transformer schedule=warmup is the usual recipe, and takes less time",
                group, rate,
            )  # fmt: skip
