"""Encoders of the library transformers as stages: `embeddings`, `layer1` … `layerN`, `pool`.

Nothing is downloaded, no pickle is read and no code from a model's folder runs. What a run keeps of the tokenizer holds
the encoder's configuration too, so that the run can be loaded where the folder is gone.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tl_runner.errors import UserError, check_range, nearest
from tl_runner.models.backbones import Backbone, narrowed
from tl_runner.models.tokens import Tokenizer, masked_mean, padding_mask, reads_texts, trim_padding

log = logging.getLogger(__name__)

# Where the layers of an encoder are, by the model_type of its configuration.
LAYERS = {
    "bert": "encoder.layer",  # MiniLM too
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
    "distilbert": "transformer.layer",
}
Pooling = Literal["mean", "cls"]


class TransformerTokenizer:
    """The tokenizer that an encoder was trained with, and the encoder's configuration.

    `definition` is the text of its tokenizer.json. A name of a special token in a text, such as [PAD], is text.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self,
        definition: str,
        config: dict[str, Any],
        length: int,
        pad: int,
        mask: int | None = None,
        special: Sequence[int] = (),
    ):
        """`special` are the ids of tokens that stand for no piece of a text, `mask` that of a token to be guessed."""
        from tokenizers import Tokenizer as Fast

        self.config, self.length, self.pad, self.mask, self.special = config, length, pad, mask, tuple(special)
        self.cut = 0  # training texts that are longer than `length`
        self._fast = Fast.from_str(definition)
        self._fast.no_padding()
        self._fast.enable_truncation(length)
        self._fast.encode_special_tokens = True

    @property
    def size(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokens": self.size, "length": self.length, "cut": self.cut}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        ids = torch.full((len(texts), self.length), self.pad)
        for row, found in enumerate(self._fast.encode_batch([*texts])):
            ids[row, : len(found.ids)] = torch.tensor(found.ids)
        return ids

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of these texts have more than `length` tokens."""
        return sum(bool(found.overflowing) for found in self._fast.encode_batch([*texts]))

    def state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "definition": self._fast.to_str(),
            "config": self.config,
            "length": self.length,
            "pad": self.pad,
            "mask": self.mask,
            "special": [*self.special],
        }


def load_tokenizer(
    source: Sequence[str], target: Sequence[str], path: str | None = None, length: int = 128
) -> TransformerTokenizer:
    """The tokenizer in the encoder's folder; it is not fitted, and the texts say only how many of them are cut."""
    check_range(1, length=length)
    library = _import_library()
    folder = find_folder(path)
    config = read_config(folder)
    said = f"backbone.path={path}"
    positions = config.max_position_embeddings
    if "roberta" in config.model_type or config.model_type == "camembert":
        positions -= config.pad_token_id + 1  # where its positions begin
    if length > positions:
        raise UserError(f"backbone.length={length}: this encoder reads {positions} tokens of a text at most ({said})")
    try:
        with _in_silence():
            found: Any = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            definition = found.backend_tokenizer.to_str()
    except Exception as error:  # whatever the library meets in files that are missing or no tokenizer
        raise UserError(
            f"{said}: the tokenizer there can't be read ({type(error).__name__}: {_first_line(error)}); the folder must"
            " hold tokenizer.json, or the vocabulary that it is made of"
        ) from error
    if len(found) > config.vocab_size:
        raise UserError(
            f"{said}: its tokenizer has {len(found)} tokens, and its encoder knows {config.vocab_size}: they belong to"
            " two models"
        )
    if found.pad_token_id not in (None, config.pad_token_id):
        raise UserError(
            f"{said}: the tokenizer pads with token {found.pad_token_id}, the encoder expects {config.pad_token_id}:"
            " set pad_token_id in config.json to the tokenizer's"
        )
    tokenizer = TransformerTokenizer(
        definition,
        {name: value for name, value in json.loads(config.to_json_string(use_diff=False)).items() if name[0] != "_"},
        length,
        config.pad_token_id,
        found.mask_token_id,
        sorted({*found.all_special_ids} - {found.mask_token_id, found.unk_token_id}),
    )
    texts = [*source, *target]
    if cut := tokenizer.count_cut(texts):
        log.warning(
            "%d of %d training texts have more than %d tokens, and what follows is not read: backbone.length=N reads N",
            cut, len(texts), length,
        )  # fmt: skip
        tokenizer.cut = cut
    return tokenizer


class Embeddings(nn.Module):
    """Token ids (n, t) -> vectors (n, t, d), zeros where there is padding."""

    input_dtype = torch.int64

    def __init__(self, net: nn.Module, pad: int, name: str):
        super().__init__()
        self.net, self.pad, self.name = net, pad, name

    def __repr__(self) -> str:
        return f"Embeddings({self.name}, pad={self.pad})"  # in the record, where all of it would be a page

    def forward(self, ids: Tensor) -> Tensor:
        ids = trim_padding(ids, self.pad)
        return self.net(ids) * (ids != self.pad)[..., None]


class Layer(nn.Module):
    """A layer of the encoder, (n, t, d) -> (n, t, d): padding is not attended to, and stays zeros."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, h: Tensor) -> Tensor:
        mask = padding_mask(h)
        seen = mask | ~mask.any(1, keepdim=True)  # of a row that is all padding all: a softmax of nothing is NaN
        out = self.net(h, attention_mask=seen[:, None, None, :])
        return (out[0] if isinstance(out, tuple) else out) * mask[..., None]


class Pool(nn.Module):
    """(n, t, d) -> (n, d): the mean over the tokens that are no padding, or the first token's vector (cls)."""

    def __init__(self, pooling: Pooling):
        super().__init__()
        self.pooling = pooling

    def extra_repr(self) -> str:
        return self.pooling

    def forward(self, h: Tensor) -> Tensor:
        return masked_mean(h) if self.pooling == "mean" else h[:, 0]


@reads_texts(load_tokenizer)
def transformer(
    shape: tuple[int, ...],
    tokenizer: Tokenizer,
    path: str | None = None,
    pooling: Pooling = "mean",
    length: int = 128,
    weights: Literal["pretrained"] | None = "pretrained",
    bottleneck: int | None = None,
) -> Backbone:
    """A pre-trained encoder of texts: BERT, MiniLM, RoBERTa, XLM-R, CamemBERT or DistilBERT (the extra [text]).

    `path` is its folder, or a name of the Hugging Face hub that is in the local cache: nothing is downloaded. With
    `weights=None` the network is the same, with random weights. Devlin et al., NAACL 2019.
    """
    assert isinstance(tokenizer, TransformerTokenizer)
    library = _import_library()
    if weights is None:
        config: Any = library.AutoConfig.for_model(**tokenizer.config)
        net: Any = library.AutoModel.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    else:
        net = load_encoder(find_folder(path))
    kind = net.config.model_type
    layers = net.get_submodule(LAYERS[kind])
    stages: dict[str, nn.Module] = {"embeddings": Embeddings(net.embeddings, tokenizer.pad, kind)}
    stages |= {f"layer{number}": Layer(layer) for number, layer in enumerate(layers, start=1)}
    return narrowed(nn.Sequential(OrderedDict(stages, pool=Pool(pooling))).train(), net.config.hidden_size, bottleneck)


def load_encoder(folder: Path) -> Any:
    """The encoder in a folder, by the safetensors file there; refuses one that lacks a tensor of it."""
    library = _import_library()
    files = [*folder.glob("*.safetensors")]
    if not files:
        others = sorted(file.name for file in folder.glob("*.bin"))
        why = f"pickled weights ({others[0]}) are not read" if others else "there are no weights"
        raise UserError(
            f"backbone.path={folder} has no file *.safetensors, {why}: save the model with model.save_pretrained(DIR),"
            " or set backbone.weights=null for random weights"
        )
    try:
        with _in_silence():
            net, found = library.AutoModel.from_pretrained(
                folder,
                config=read_config(folder),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation="sdpa",
                dtype=torch.float32,
            )
    except Exception as error:  # each reader has its own errors for a file that is not what it says
        raise UserError(
            f"backbone.path={folder}: its weights can't be read ({type(error).__name__}: {_first_line(error)})"
        ) from error
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
        raise UserError(
            f"backbone.path={folder}: its weights lack {len(missing)} tensors of the encoder, such as {missing[0]}"
        )
    return net


def find_folder(path: str | None) -> Path:
    """The folder that a path names, or where the hub's cache has the model of this name; raises `UserError`."""
    if path is None:
        raise UserError(
            "backbone=transformer needs backbone.path: a folder with config.json, model.safetensors and the tokenizer's"
            " files, or a name of the Hugging Face hub that is in the local cache"
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            inside = sorted(str(file.parent) for file in folder.glob("*/config.json"))
            hint = f": did you mean {inside[0]}?" if inside else ""
            raise UserError(f"backbone.path={path} has no config.json, as a model of transformers has{hint}")
        return folder
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        there = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"backbone.path={path}: there is no such folder{nearest(folder.name, there)}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, local_files_only=True))
    except Exception as error:  # a name that can't be one; not in the cache
        raise UserError(
            f"backbone.path={path} is no folder here, and the local cache of the Hugging Face hub has no such model;"
            " a run downloads nothing. Where there is a connection: hf download"
            f" {path} --local-dir DIR. Then copy DIR here, and set backbone.path=DIR"
        ) from error


def read_config(folder: Path) -> Any:
    """The configuration of the encoder in a folder; refuses what the stages here can't be made of."""
    library = _import_library()
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        known = kind in LAYERS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"backbone.path={folder}: config.json names no model_type, so it is no model of transformers"
        ) from error
    if not known:
        raise UserError(
            f"backbone.path={folder} is a model of the kind {kind!r}, and backbone=transformer reads"
            f" {', '.join(LAYERS)} (MiniLM is a bert){nearest(str(kind), LAYERS)}"
        )
    config: Any = library.AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "is_decoder", False):
        raise UserError(f"backbone.path={folder}: is_decoder in config.json is true, and an encoder is needed")
    if (position := getattr(config, "position_embedding_type", "absolute")) != "absolute":
        raise UserError(
            f"backbone.path={folder}: position_embedding_type is {position!r}, and transformers 5 reads absolute ones"
        )
    return config


def _import_library() -> Any:
    """The library transformers, which is slow to import."""
    try:
        import tokenizers  # noqa: F401  (transformers can do without)
        import transformers as library
    except ImportError as error:
        raise UserError(
            f'backbone=transformer needs the package {error.name}: pip install "tl_runner[text]"'
        ) from error
    return library


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without the library's progress bars, and its advice on tensors that are checked here."""
    from transformers.utils import logging as said

    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
