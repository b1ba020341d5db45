"""Masked words of the target's texts: which are hidden, the loss by hand, and what is refused."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import PAD, TEXTS, save_encoder, text_task
from support.tasks import batch_of, images
from torch import Tensor, nn

from tl_runner.core import Batch, Model, Resources, TokenIds
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.methods import udalm
from tl_runner.methods.udalm import UDALM, find_table, mask_tokens
from tl_runner.models.learning_rates import lr_factor
from tl_runner.models.tokens import list_ids
from tl_runner.models.transformers import load_tokenizer
from tl_runner.rng import Rng
from tl_runner.training import augment, optimizers
from tl_runner.training.loop import Cursor, Train, begin_phase, train

pytest.importorskip("transformers", reason="needs the extra [text]")
SIZE, MASK = 24, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"))


def prepared(folder: Path, granted: int = 0, **options: float) -> tuple[UDALM, Model, Pair]:
    pair, model, tokenizer = text_task(folder, granted)
    method = UDALM(**options)
    model, pair = method.prepare(model, pair, Resources(Rng(0), tokens=list_ids(tokenizer)))
    return method, model, pair


def words() -> Tensor:
    known = torch.ones(SIZE, dtype=torch.bool)
    known[:5] = False
    return known


def long_texts(n: int = 400, t: int = 60) -> Tensor:
    """Texts of 5 to 44 words between two special tokens, padded."""
    torch.manual_seed(0)
    ids = torch.randint(5, SIZE, (n, t))
    place, length = torch.arange(t), 5 + torch.arange(n)[:, None] % 40
    ids[place.expand(n, t) > length + 1] = PAD
    ids[:, 0] = 0
    return ids.scatter(1, length + 1, 2)


def test_of_each_text_the_share_of_its_words_is_hidden_and_nothing_else():
    ids, known = long_texts(), words()
    masked = mask_tokens(ids, known, PAD, MASK, 0.15)
    number = known[ids].sum(1)
    assert masked.counted.sum(1).tolist() == [max(1, round(0.15 * n)) for n in number.tolist()]
    for row in range(len(ids)):
        at = masked.at[row][masked.counted[row]]
        assert len(set(at.tolist())) == len(at) and known[ids[row, at]].all()
        assert torch.equal(masked.labels[row][masked.counted[row]], ids[row, at])
        rest = torch.ones(ids.shape[1], dtype=torch.bool)
        rest[at] = False
        assert torch.equal(masked.ids[row, rest], ids[row, rest])
    assert torch.equal(masked.ids == PAD, ids == PAD)


def test_four_of_five_become_the_mask_one_of_ten_another_token():
    ids = long_texts(4000)
    masked = mask_tokens(ids, words(), PAD, MASK, 0.15)
    new, old = masked.ids.gather(1, masked.at)[masked.counted], masked.labels[masked.counted]
    n, same = len(new), 0.1 + 0.1 / SIZE
    for found, expected in (((new == MASK).sum(), 0.8 + 0.1 * 2 / SIZE), ((new == old).sum(), same)):
        assert abs(float(found) / n - expected) < 4 * (expected * (1 - expected) / n) ** 0.5  # 4 standard errors


def test_texts_without_words_have_nothing_to_guess():
    masked = mask_tokens(torch.tensor([[0, 2, PAD], [PAD, PAD, PAD], [0, 7, 2]]), words(), PAD, MASK, 0.15)
    assert masked.counted.tolist() == [[False], [False], [True]] and masked.labels[2].tolist() == [7]


def test_the_loss_by_hand(folder, monkeypatch):
    """In NumPy, from the vectors of the last layer on."""
    method, model, pair = prepared(folder, granted=4, weight=0.7, share=0.3)
    with torch.no_grad():
        method.bias.normal_()
    kept = []
    monkeypatch.setattr(udalm, "mask_tokens", lambda *given: kept.append(mask_tokens(*given)) or kept[-1])
    model.eval()
    batch = batch_of(method, pair)
    terms = method.terms(model, batch, 0.5)
    (masked,) = kept
    with torch.no_grad():
        (h,) = model.maps(masked.ids, at=["layer2"])["layer2"]
    dense, _, norm = method.transform
    assert isinstance(dense, nn.Linear) and isinstance(norm, nn.LayerNorm)
    table = next(p for n, p in model.backbone.named_parameters() if n.endswith("word_embeddings.weight"))
    w, c, e, b = (p.detach().double().numpy() for p in (dense.weight, dense.bias, table, method.bias))
    losses, right = [], []
    for row, column in zip(*masked.counted.nonzero(as_tuple=True), strict=True):
        vector = h[row, masked.at[row, column]].double().numpy()
        z = torch.nn.functional.gelu(torch.tensor(w @ vector + c)).numpy()
        z = (z - z.mean()) / np.sqrt(z.var() + norm.eps)
        logits, label = e @ z + b, int(masked.labels[row, column])
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
        right.append(logits.argmax() == label)
    assert terms["masked_words"].item() == pytest.approx(0.7 * np.mean(losses), rel=1e-5)
    assert float(terms.metrics["guessed"]) == pytest.approx(np.mean(right))
    assert terms.keys() == {"source", "granted", "masked_words"} and not batch.unread
    y = batch.source.y
    torch.testing.assert_close(terms["source"], nn.functional.cross_entropy(model(batch.source.x), y))


def test_all_is_trained_the_table_once_and_what_is_new_at_the_full_rate(folder):
    method, model, _ = prepared(folder)
    (phase,) = method.phases(model)
    groups = begin_phase(phase, model, method)
    each = [parameter for group in groups for parameter in group.parameters]
    assert len(each) == len({*each}) == len([*model.parameters()]) + 5  # W, c, LayerNorm's two, b
    rates = {parameter: lr_factor(group) for group in groups for parameter in group.parameters}
    assert {rates[p] for p in method.parameters()} == {1.0} and {rates[p] for p in model.backbone.parameters()} == {0.1}
    optimizers.adamw(groups)


def test_words_of_the_target_are_learnt(folder):
    method, model, pair = prepared(folder, weight=1.0)
    plan = Train(steps=120, batch=8, evaluations=2, log_every=20)
    points = [
        *train(*(model, method, pair, plan, optimizers.adamw, optimizers.constant, augment.none, Rng(0), Cursor()))
    ]
    first, *_, last = (point.terms for point in points)
    assert first["guessed"] < 0.3 and last["guessed"] > 0.6  # six of seven words are the same in each text
    assert last["masked_words"] < first["masked_words"] - 0.5


def test_a_backbone_whose_vectors_are_of_another_width_gets_a_table_of_its_own(folder):
    pair, model, tokenizer = text_task(folder, 0)
    stages = dict(model.backbone.named_children())
    narrow = OrderedDict({**stages, "narrow": nn.Linear(12, 7)})
    narrow.move_to_end("pool")
    model = Model(nn.Sequential(narrow), 7, pair.task)
    method = UDALM()
    model, pair = method.prepare(model, pair, Resources(Rng(0), tokens=list_ids(tokenizer)))
    assert find_table(model, SIZE, 7) is None and method.table.shape == (SIZE, 7)
    method.terms(model, batch_of(method, pair), 0.0)["masked_words"].backward()
    assert method.table.grad.abs().sum() > 0


def test_a_tokenizer_without_a_mask_hides_behind_the_unknown_word(folder):
    tokenizer = load_tokenizer(TEXTS, (), str(folder), 12)
    assert list_ids(tokenizer) == TokenIds(SIZE, PAD, MASK, (0, 1, 2))

    class Words:
        size, pad, unknown = 9, 0, 1

    assert list_ids(Words()) == TokenIds(9, 0, 1, ())  # pyright: ignore[reportArgumentType]


def test_what_has_no_words_to_hide_is_refused(folder):
    pair, model = images("0")
    with pytest.raises(UserError, match="guesses hidden words of target texts, and this dataset has images: use"):
        UDALM().prepare(model, pair, Resources(Rng(0)))
    pair, model, _ = text_task(folder, 0)
    with pytest.raises(UserError, match="tokenizer has no token for a hidden or unknown word"):
        UDALM().prepare(model, pair, Resources(Rng(0), tokens=TokenIds(SIZE, PAD)))
    bag = nn.Sequential(nn.EmbeddingBag(SIZE, 12))
    with pytest.raises(UserError, match="from the vectors of tokens, and this backbone has none"):
        UDALM().prepare(Model(bag, 12, pair.task), pair, Resources(Rng(0), tokens=TokenIds(SIZE, PAD, MASK)))
    with pytest.raises(LookupError, match="no target rows"):
        UDALM().terms(model, Batch(), 0.0)
