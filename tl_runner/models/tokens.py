"""Texts on their way to a backbone: the tokenizer that it brings, and padding.

A backbone that reads texts is a function `name(shape, tokenizer, **options) -> (module, width)` that is marked by
`reads_texts`. Its input are token ids (n, t) int64, padded at the end; its first stage makes vectors (n, t, d) of them,
in which a row of zeros stands for padding, so that every later stage knows what is text, and has the attribute
`input_dtype = torch.int64`. Its tokenizer is fitted on the texts of the source's training rows.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from tl_runner.core import TokenIds
from tl_runner.domains import InputKind
from tl_runner.errors import UserError

NOUNS: dict[InputKind, str] = {"images": "images", "table": "rows of numbers", "text": "texts", "audio": "sound"}


class Tokenizer(Protocol):
    """Texts -> token ids. `kind` names it in the file that a run keeps of it.

    It may have attributes that `list_ids` reads: `mask`, the id of a token that is hidden, `unknown`, that of a word
    which it does not know, and `special`, the ids that stand for no piece of a text.
    """

    kind: ClassVar[str]

    @property
    def pad(self) -> int:
        """The id of padding."""
        ...

    @property
    def size(self) -> int:
        """How many ids there are: 0 … size − 1."""
        ...

    @property
    def length(self) -> int:
        """How many tokens of a text are read."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says of it, in JSON's words."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, length) int64, padded at the end."""
        ...

    def state(self) -> dict[str, Any]:
        """What rebuilds it, in JSON's words."""
        ...


def list_ids(tokenizer: Tokenizer) -> TokenIds:
    """What ids a tokenizer has; where it has none for a hidden token, that of an unknown word serves."""
    mask = getattr(tokenizer, "mask", None)
    mask = getattr(tokenizer, "unknown", None) if mask is None else mask
    return TokenIds(tokenizer.size, tokenizer.pad, mask, tuple(getattr(tokenizer, "special", ())))


FitTokenizer = Callable[..., Tokenizer]  # (texts of the source, texts of the target, **options of the backbone)


def reads_texts(fit: FitTokenizer) -> Callable[[Any], Any]:
    """Mark a backbone as one that reads texts by the tokenizer that `fit(source, target, **options)` gives.

    `source` and `target` are the texts of the training rows; `fit` takes those of the backbone's options that it names.
    """

    def mark(backbone: Any) -> Any:
        backbone.fit_tokenizer = fit
        return backbone

    return mark


def find_fit(backbone: Any) -> FitTokenizer | None:
    """What fits the tokenizer of a backbone, with its options bound; None of one that does not read texts."""
    function = getattr(backbone, "func", backbone)
    fit = getattr(function, "fit_tokenizer", None)
    if fit is None:
        return None
    options = getattr(backbone, "keywords", {})
    named = inspect.signature(fit).parameters
    return partial(fit, **{name: value for name, value in options.items() if name in named})


def check_input(backbone: Any, kind: InputKind) -> None:
    """Refuse a backbone that reads texts for data of another kind, and any other for texts."""
    reads = find_fit(backbone) is not None
    name = getattr(getattr(backbone, "func", backbone), "__name__", "this")
    if reads and kind != "text":
        others = {"images": "small, resnet18 or timm", "audio": "small, crnn or resnet18"}.get(
            kind, "mlp, linear or identity"
        )
        raise UserError(f"backbone={name} reads texts, and this dataset has {NOUNS[kind]}: use backbone={others}")
    if not reads and kind == "text":
        raise UserError(
            f"backbone={name} does not read texts: use backbone=embedding_gru, bag_of_embeddings, tfidf or transformer"
        )


def padding_mask(h: Tensor) -> Tensor:
    """Which rows of token vectors (n, t, d) are text: (n, t) bool, False where a row is zeros, which is padding."""
    return (h != 0).any(-1)


def masked_mean(h: Tensor) -> Tensor:
    """The mean over the rows that are no padding, of token vectors (n, t, d): (n, d); zeros where all are padding."""
    return h.sum(1) / padding_mask(h).sum(1, keepdim=True).clamp_min(1)


def trim_padding(ids: Tensor, pad: int) -> Tensor:
    """The ids (n, t) without the last columns, where these are padding in all rows; one column is left.

    For speed, and only on a CPU: elsewhere the length would have to be waited for. A network that is being exported or
    compiled keeps all columns, since a length that follows from the values is no fixed shape.
    """
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if ids.device.type != "cpu" or torch.compiler.is_compiling() or tracing:
        return ids
    used = (ids != pad).any(0).nonzero()
    return ids[:, : int(used[-1]) + 1 if len(used) else 1]
