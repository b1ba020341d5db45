"""Tokenizers by their kind: a finished run rebuilds its own of what it kept."""

from collections.abc import Mapping
from typing import Any

from tl_runner.errors import UserError
from tl_runner.models.tokens import Tokenizer
from tl_runner.models.transformers import TransformerTokenizer
from tl_runner.models.word_tokenizer import NgramTokenizer, WordTokenizer

KINDS = {each.kind: each for each in (WordTokenizer, NgramTokenizer, TransformerTokenizer)}


def rebuild_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer whose `state()` this is: its kind, and the arguments of that class."""
    values = dict(state)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise UserError(f"there is no tokenizer of the kind {kind!r} (possible: {', '.join(KINDS)})")
    return KINDS[kind](**values)
