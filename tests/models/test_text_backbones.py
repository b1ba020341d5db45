"""Word vectors, GRU and TF-IDF: each against its formula, and padding is nothing, before and after training."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.func import functional_call

from tl_runner.core import Group, Model
from tl_runner.datasets.reviews import reviews
from tl_runner.errors import UserError
from tl_runner.models.features import Readout, cut_model
from tl_runner.models.text_backbones import bag_of_embeddings, embedding_gru, tfidf
from tl_runner.models.word_tokenizer import fit_ngrams, fit_words, split_words
from tl_runner.training.optimizers import adamw, sgd

TEXTS = ["A dull, dull film", "a great film!", "great GREAT fun", "fun"]
TOKENIZER = fit_words(TEXTS, (), length=6)
WORDS = {"bag_of_embeddings": bag_of_embeddings, "embedding_gru": embedding_gru}
OURS: dict[str, Any] = {
    "tokenizer": split_words,
    "token_pattern": None,
}  # theirs have two letters or more
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)  # float32 sums in another order


def build(name: str, width: int = 5) -> Any:
    torch.manual_seed(0)
    return WORDS[name]((6,), TOKENIZER, width=width)[0].eval()


def test_a_bag_of_embeddings_is_the_mean_of_its_words_and_a_hidden_layer():
    net = build("bag_of_embeddings")
    table, layer = net.embedding.weight, net.hidden[0]
    for text, row in zip(TEXTS, net(TOKENIZER(TEXTS)), strict=True):
        ids = [3 + TOKENIZER.words.index(word) for word in split_words(text)]
        mean = torch.stack([table[at] for at in ids]).mean(0)
        close(row, (layer.weight @ mean + layer.bias).relu())


def gru_by_hand(net: Any, ids: list[int]) -> Tensor:
    """The mean over h_t = (1 − z) n + z h_{t−1}, word by word, as Cho et al. have it (with torch's two biases)."""
    layer = net.gru.layer
    h, said = torch.zeros(5), []
    for at in ids:
        a = layer.weight_ih_l0 @ net.embedding.weight[at] + layer.bias_ih_l0
        b = layer.weight_hh_l0 @ h + layer.bias_hh_l0
        r, z = (a[:5] + b[:5]).sigmoid(), (a[5:10] + b[5:10]).sigmoid()
        h = (1 - z) * (a[10:] + r * b[10:]).tanh() + z * h
        said.append(h)
    return torch.stack(said).mean(0)


def test_a_gru_reads_word_by_word():
    net = build("embedding_gru")
    for text, row in zip(TEXTS, net(TOKENIZER(TEXTS)), strict=True):
        ids = [3 + TOKENIZER.words.index(word) for word in split_words(text)]
        close(row, gru_by_hand(net, ids))


def test_an_exported_gru_is_a_loop_that_reads_any_length():
    net, ids = build("embedding_gru"), TOKENIZER(TEXTS)
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", max=6)}
    with torch.no_grad():
        file = torch.export.export(net, (ids[:3],), dynamic_shapes=(sizes,)).module()
        for part in (ids, ids[:1], ids[:, :1], ids[2:, :4]):
            close(file(part), net(part))


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_tfidf_is_that_of_scikit_learn(ngrams):
    drawn = reviews(0, samples=50)
    assert drawn.source is not None and drawn.source.texts is not None and drawn.target.texts is not None
    fitted, others = [*drawn.source.texts], [*drawn.target.texts, "Unheard!", ""]
    tokenizer = fit_ngrams(fitted, others, ngrams=ngrams, vocabulary=100_000)
    net, width = tfidf((tokenizer.length,), tokenizer, ngrams=ngrams)
    theirs: Any = TfidfVectorizer(ngram_range=(1, ngrams), **OURS).fit(fitted)
    columns = [theirs.vocabulary_[term] for term in tokenizer.terms]
    assert width == len(columns) == len(theirs.vocabulary_) and not [*net.parameters()]
    for texts in (fitted, others):
        expected = theirs.transform(texts).toarray()[:, columns]
        np.testing.assert_allclose(net(tokenizer(texts)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_default_pattern_of_scikit_learn_gives_the_same_where_words_are_plain():
    texts = ["slow plot slow cast", "great cast, wonderful plot"]
    tokenizer = fit_ngrams(texts, ())
    theirs: Any = TfidfVectorizer(ngram_range=(1, 2)).fit(texts)
    columns = [theirs.vocabulary_[term] for term in tokenizer.terms]
    found = tfidf((tokenizer.length,), tokenizer)[0](tokenizer(texts))
    np.testing.assert_allclose(found.numpy(), theirs.transform(texts).toarray()[:, columns], rtol=1e-6)


@pytest.mark.parametrize("name", WORDS)
def test_padding_other_rows_and_odd_texts_change_nothing(name):
    net = build(name)
    odd = ["fun", "unheard", "", "!!!", "dull " * 10_000]
    together = net(TOKENIZER(odd))
    assert torch.isfinite(together).all()
    for text, row in zip(odd, together, strict=True):
        close(net(TOKENIZER([text]))[0], row)
    longer = torch.cat([TOKENIZER(odd), torch.zeros(5, 9, dtype=torch.int64)], 1)
    close(net(longer), together)


@pytest.mark.parametrize("optimizer", [partial(sgd, lr=0.1, weight_decay=0.1), partial(adamw, weight_decay=0.1)])
@pytest.mark.parametrize("name", WORDS)
def test_vectors_of_padding_stay_zeros_and_those_of_words_do_not_become_so(name, optimizer):
    net = build(name).train()
    engine = optimizer([Group([*net.parameters()])])
    for _ in range(20):
        engine.zero_grad()
        net(TOKENIZER(TEXTS)).square().sum().backward()
        engine.step()
    table = net.embedding.weight.detach()
    assert not table[0].any() and (table[1:] != 0).any(1).all()
    for stage in net[:-1] if name == "embedding_gru" else net[:1]:
        ids = TOKENIZER(TEXTS)
        h = net.embedding(ids) if stage is net.embedding else net.gru(net.embedding(ids))
        assert torch.equal((h != 0).any(-1), (ids != 0)[:, : h.shape[1]])


def test_weights_in_place_of_a_networks_own_are_used():
    """As meta-learning passes them; a GRU keeps its weights in a second place, too."""
    net, other = build("embedding_gru"), build("embedding_gru")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    ids = TOKENIZER(TEXTS)
    assert torch.equal(functional_call(net, dict(other.named_parameters()), (ids,)), other(ids))


@pytest.mark.parametrize("name", WORDS)
def test_a_model_is_cut_at_each_stage(name):
    model = Model(build(name), 5, ("a", "b"))
    ids = TOKENIZER(TEXTS)
    for stage in model.stages:
        part = cut_model(model, stage, (6,)).eval()
        whole = model.backbone[: model.stages.index(stage) + 1](ids)
        assert torch.equal(part.backbone(ids), Readout()(whole)) and part.backbone(ids).shape == (4, part.width)


def test_widths_below_one_are_refused():
    for backbone in WORDS.values():
        with pytest.raises(UserError, match="width"):
            backbone((6,), TOKENIZER, width=0)
