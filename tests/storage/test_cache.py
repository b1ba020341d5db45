"""What is kept for other runs comes back as it was, or not at all."""

import os

import pytest
import torch

from tl_runner.storage.cache import drop_oldest, keep_cached, load_cached

KEPT = {
    "features": torch.arange(600.0).view(100, 6),
    "rows": torch.arange(100, dtype=torch.uint8).view(50, 2),
    "of no dimension": torch.tensor(7),
    "empty": torch.empty(0, 3),
}


def test_tensors_come_back_as_they_were(tmp_path):
    assert keep_cached(tmp_path / "a/b.safetensors", KEPT)
    found = load_cached(tmp_path / "a/b.safetensors")
    assert found and found.keys() == KEPT.keys()
    for name, tensor in KEPT.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert load_cached(tmp_path / "none.safetensors") is None


def zero(content):
    return content[:-800] + bytes(400) + content[-400:]


@pytest.mark.parametrize(
    "damage",
    [zero, lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"garbage" * 9],
    ids=["zeros", "one bit", "half", "empty", "garbage"],
)
def test_what_is_damaged_is_not_used_and_that_is_said(damage, tmp_path, caplog):
    file = tmp_path / "a.safetensors"
    keep_cached(file, KEPT)
    file.write_bytes(damage(file.read_bytes()))
    assert load_cached(file) is None
    assert "damaged" in caplog.text and str(tmp_path) in caplog.text


def test_a_folder_that_can_not_be_written_to_is_said_once_a_folder(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert not keep_cached(tmp_path / "file/a.safetensors", KEPT)
    assert not keep_cached(tmp_path / "file/b.safetensors", KEPT)
    assert len({*caplog.messages}) == 1 and "other runs compute the same again" in caplog.messages[0]


def test_the_files_that_were_read_last_stay(tmp_path):
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, file in enumerate(files):
        keep_cached(file, KEPT)
        os.utime(file, (number, number))
    load_cached(files[0])
    drop_oldest(files, 2 * files[0].stat().st_size)
    assert [file.exists() for file in files] == [True, False, True]
