"""Networks from words to features that need no library: of averaged word vectors, of a GRU, of TF-IDF.

Each reads the token ids (n, t) of a tokenizer of words, which the engine fits on training texts: see `models.tokens`.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_runner.errors import UserError, check_range
from tl_runner.models.backbones import Backbone
from tl_runner.models.features import Readout
from tl_runner.models.tokens import Tokenizer, padding_mask, reads_texts, trim_padding
from tl_runner.models.word_tokenizer import NgramTokenizer, VocabularyFrom, fit_ngrams, fit_words


class WordVectors(nn.Embedding):
    """Ids (n, t) -> a vector of each word (n, t, d); that of padding is zeros, and gets no gradient, so it stays so."""

    input_dtype = torch.int64

    def __init__(self, tokenizer: Tokenizer, width: int):
        super().__init__(tokenizer.size, width, padding_idx=tokenizer.pad)
        self.pad = tokenizer.pad

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in nn.Embedding)
        return super().forward(trim_padding(input, self.pad))


class GRU(nn.GRU):
    """Word vectors (n, t, d) -> what a gated recurrent network has read up to each word (n, t, d); zeros at padding.

    Reading from left to right only: no word knows of the padding behind the text. Cho et al., EMNLP 2014.
    """

    def __init__(self, width: int):
        super().__init__(width, width, batch_first=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in nn.GRU)
        read = self._scan(input) if torch.compiler.is_exporting() else super().forward(input)[0]
        return read * padding_mask(input)[..., None]

    def _scan(self, x: Tensor) -> Tensor:
        """The same, step by step, as a loop of the exported file: torch's own layer is exported for one length alone.

        r, z = σ(W_rz x_t + U_rz h); n = tanh(W_n x_t + r · (U_n h + b)); h ← (1 − z) n + z h.
        """
        try:
            from torch._higher_order_ops.scan import scan
        except ImportError as error:
            raise UserError(
                "this version of PyTorch can't export a GRU: --to torchscript does, or a newer one"
            ) from error
        by_input = F.linear(x, self.weight_ih_l0, self.bias_ih_l0).transpose(0, 1)

        def step(h: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
            (r, z, n), (of_r, of_z, of_n) = (
                given.chunk(3, -1),
                F.linear(h, self.weight_hh_l0, self.bias_hh_l0).chunk(3, -1),
            )
            new = torch.tanh(n + torch.sigmoid(r + of_r) * of_n)
            h = new + torch.sigmoid(z + of_z) * (h - new)
            return h, h.clone()  # a loop may not give the same tensor twice

        _, read = scan(step, torch.zeros_like(x[:, 0]), by_input)
        return read.transpose(0, 1)


class TfIdf(nn.Module):
    """Ids of n-grams (n, t) -> (n, size) float32: count · idf of each n-gram, divided by the length of the vector.

    Nothing is trained: idf (size,) is a buffer. Zeros where a text holds none of the n-grams.
    """

    input_dtype = torch.int64
    idf: Tensor

    def __init__(self, idf: Tensor):
        super().__init__()
        self.register_buffer("idf", idf)

    def extra_repr(self) -> str:
        return f"terms={len(self.idf)}"

    def forward(self, ids: Tensor) -> Tensor:
        counts = self.idf.new_zeros(len(ids), 1 + len(self.idf))  # the first is that of padding
        counts = counts.scatter_add(1, ids, torch.ones_like(ids, dtype=counts.dtype))
        return F.normalize(counts[:, 1:] * self.idf, dim=-1)


@reads_texts(fit_words)
def bag_of_embeddings(
    shape: tuple[int, ...],
    tokenizer: Tokenizer,
    width: int = 64,
    vocabulary: int = 10000,
    length: int = 128,
    vocabulary_from: VocabularyFrom = "source",
) -> Backbone:
    """The mean of learnt word vectors, then a hidden layer: the order of words does not count.

    Iyyer et al., ACL 2015 (deep averaging networks).
    """
    check_range(1, width=width)
    hidden = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    return _stages(embedding=WordVectors(tokenizer, width), mean=Readout(), hidden=hidden), width


@reads_texts(fit_words)
def embedding_gru(
    shape: tuple[int, ...],
    tokenizer: Tokenizer,
    width: int = 64,
    vocabulary: int = 10000,
    length: int = 128,
    vocabulary_from: VocabularyFrom = "source",
) -> Backbone:
    """Learnt word vectors, read by a GRU from left to right; the mean of what it says at each word."""
    check_range(1, width=width)
    return _stages(embedding=WordVectors(tokenizer, width), gru=GRU(width), mean=Readout()), width


@reads_texts(fit_ngrams)
def tfidf(
    shape: tuple[int, ...],
    tokenizer: Tokenizer,
    ngrams: int = 2,
    vocabulary: int = 10000,
    length: int = 256,
    vocabulary_from: VocabularyFrom = "source",
) -> Backbone:
    """Counts of words and n-grams, those that most texts have weighing less: the baseline of any table on texts.

    It has nothing to train. Salton & Buckley 1988; as scikit-learn's TfidfVectorizer has it.
    """
    assert isinstance(tokenizer, NgramTokenizer)
    size = len(tokenizer.terms)
    idf = torch.ones(size) if tokenizer.idf is None else torch.from_numpy(tokenizer.idf).float()
    return _stages(tfidf=TfIdf(idf)), size


def _stages(**stages: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(stages))
