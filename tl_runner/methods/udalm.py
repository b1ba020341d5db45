"""Adaptation of texts by the words of the target: masked words of unlabelled target texts are guessed (UDALM)."""

from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.core import Batch, Method, Model, Resources, Terms
from tl_runner.domains import Pair
from tl_runner.errors import UserError, check_range
from tl_runner.methods import requirements
from tl_runner.models.tokens import NOUNS

HIDDEN, OTHER = 0.8, 0.1  # of the chosen tokens: become the mask, another token; the rest stay, as in BERT


class Masked(NamedTuple):
    """Texts with some tokens hidden: ids (n, t), where these are (n, k), what they were (n, k), and which count."""

    ids: Tensor
    at: Tensor
    labels: Tensor
    counted: Tensor


def mask_tokens(ids: Tensor, words: Tensor, pad: int, mask: int, share: float) -> Masked:
    """Hide this share of each text's words, at least one: 80 % become `mask`, 10 % any other token, 10 % stay.

    ids (n, t), words (V,) bool says which of the V ids are words of a text. A text of fewer words than others leaves
    some of its k places uncounted: so nothing waits for the device. Devlin et al., NAACL 2019.
    """
    known = words[ids]
    chosen = torch.rand(ids.shape, device=ids.device).masked_fill(~known, -1.0)
    at = chosen.topk(ceil(share * ids.shape[1]), dim=1).indices
    wanted = (share * known.sum(1, keepdim=True)).round().clamp_min(1)
    counted = (torch.arange(at.shape[1], device=ids.device) < wanted) & known.gather(1, at)
    labels = ids.gather(1, at)
    fate = torch.rand(at.shape, device=ids.device)
    other = torch.randint(len(words), at.shape, device=ids.device)
    other = other.masked_fill(other == pad, mask)  # padding in a text would be no token of it
    new = torch.where(fate < HIDDEN, mask, torch.where(fate < HIDDEN + OTHER, other, labels))
    return Masked(ids.scatter(1, at, torch.where(counted, new, labels)), at, labels, counted)


class UDALM(Method):
    """CE(source) + weight · mean CE(guess of a hidden token of a target text, what it was).

    See `mask_tokens`. The guess is made of the token's vector h before pooling: E · LayerNorm(GELU(W h + c)) + b, with
    E the backbone's own table of embeddings where its shape allows that, else a new one. The curve notes `guessed`, the
    share of hidden tokens that are right. Karouzos, Paraskevopoulos & Potamianos, NAACL 2021 (arXiv:2104.07078), who
    mix both losses by the share of source rows, after a training on target texts alone, which this leaves out.
    """

    needs = frozenset({"source", "target"})
    tasks = frozenset({"classification", "regression"})

    def __init__(self, weight: float = 1.0, share: float = 0.15):
        super().__init__()
        check_range(0, weight=weight)
        check_range(0.001, 1, share=share)
        self.weight, self.share = weight, share

    def prepare(self, model: Model, pair: Pair, resources: Resources) -> tuple[Model, Pair]:
        tokens = resources.tokens
        if pair.input != "text" or tokens is None:
            raise UserError(
                f"udalm guesses hidden words of target texts, and this dataset has {NOUNS[pair.input]}: use"
                " method=mmd, dann or another that compares features"
            )
        if tokens.mask is None:
            raise UserError(
                "udalm hides words of texts, and this backbone's tokenizer has no token for a hidden or unknown word:"
                " use backbone=transformer or embedding_gru"
            )
        requirements.trainable_backbone(model)
        self.stage, width = find_tokens(model, pair)
        self.pad, self.mask, size = tokens.pad, tokens.mask, tokens.size
        words = torch.ones(size, dtype=torch.bool)
        words[[tokens.pad, tokens.mask, *tokens.special]] = False
        self.register_buffer("words", words)
        with resources.rng.child("masked words").as_default():
            self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
            self.bias = nn.Parameter(torch.zeros(size))
            if find_table(model, size, width) is None:
                self.table = nn.Parameter(0.02 * torch.randn(size, width))
        return model, pair

    def guess(self, model: Model, vectors: Tensor) -> Tensor:
        """Logits over all tokens (…, V) of vectors before pooling (…, d)."""
        shared = find_table(model, len(self.bias), vectors.shape[-1])
        return F.linear(self.transform(vectors), self.table if shared is None else shared, self.bias)

    def terms(self, model: Model, batch: Batch, progress: float) -> Terms:
        masked = mask_tokens(batch.target, self.get_buffer("words"), self.pad, self.mask, self.share)
        h = masked.ids
        for name in model.upto(self.stage):
            h = model.backbone.get_submodule(name)(h)
        at = masked.at.clamp_max(h.shape[1] - 1)  # the padding that the backbone leaves out is at no counted place
        logits = self.guess(model, h.gather(1, at[..., None].expand(-1, -1, h.shape[-1]))).float()
        each = F.cross_entropy(logits.flatten(0, 1), masked.labels.flatten(), reduction="none")
        counted = masked.counted.flatten()
        number = counted.sum().clamp_min(1)
        right = (logits.detach().argmax(-1) == masked.labels).flatten() & counted
        supervised = model.encode(batch.only({"source", "granted"})).supervise()
        return Terms(
            {**supervised, "masked_words": self.weight * (each * counted).sum() / number},
            metrics={"guessed": right.sum() / number},
        )


def find_tokens(model: Model, pair: Pair) -> tuple[str, int]:
    """The last stage of the backbone that has a vector for each token (n, t, d), and d; raises `UserError` if none."""
    found: tuple[str, int] | None = None
    h = pair.target.train.take(torch.arange(min(2, len(pair.target.train)), device=model.device))
    model.eval()
    with torch.no_grad():
        for name, stage in model.backbone.named_children():
            h = stage(h)
            if h.ndim == 3:
                found = name, h.shape[-1]
    if found is None:
        raise UserError(
            "udalm guesses hidden words from the vectors of tokens, and this backbone has none: use"
            " backbone=transformer or embedding_gru"
        )
    return found


def find_table(model: Model, size: int, width: int) -> Tensor | None:
    """The backbone's own embeddings of all tokens (size, width), if they have this shape."""
    tables = (part.weight for part in model.backbone[0].modules() if isinstance(part, nn.Embedding))
    return next((table for table in tables if table.shape == (size, width)), None)
