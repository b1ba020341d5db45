"""Texts of a dataset as token ids, by the tokenizer of the backbone."""

from collections.abc import Sequence
from typing import Any

from tl_runner.datasets.split import Drawn, Encoding
from tl_runner.domains import kind_of_input
from tl_runner.models.tokens import Tokenizer, check_input, find_fit


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
