"""A run's identity, its record whatever happens, and its folder."""

import json
import shutil

import pytest
import torch
from conftest import QUICK, composed, made
from safetensors.torch import load_file
from support.stored import calibrated

import tl_runner
from tl_runner.engine.recorder import open_recording
from tl_runner.errors import DivergedError, UserError
from tl_runner.storage import atomic
from tl_runner.storage.atomic import write_atomically
from tl_runner.storage.record import SCHEMA, describe_run, find_complete, read_record, read_records


def identity(*overrides: str) -> str:
    return describe_run(*composed(*overrides)).id


def test_equal_settings_are_one_run_and_others_are_not():
    assert identity() == identity("method.weight=2", "device=cpu", "outputs=elsewhere", "save=false", "force=true")
    others = ["seed=1", "method.weight=3", "method=coral", "dataset=blobs", "train.steps=301", "granted=5"]
    assert len({identity(), *map(identity, others)}) == 1 + len(others)


@pytest.mark.parametrize("seed", ["3", "3.0", "'03'", "'3'"])
def test_a_seed_is_a_number_however_it_is_typed(seed):
    record = describe_run(*composed(f"seed={seed}"))
    assert record.id == identity("seed=3") and record.folder == describe_run(*composed("seed=3")).folder
    assert record.seed == record.config["seed"] == 3


def test_the_setting_is_the_identity_without_the_seed():
    a, b, c = (describe_run(*composed(*words)) for words in (["seed=1"], ["seed=2"], ["seed=1", "train=tiny"]))
    assert a.setting == b.setting != c.setting
    assert a.id != b.id


def test_the_source_of_a_part_from_outside_is_part_of_the_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    config, choices = composed()
    config["method"] = {"_target_": "outside.Mine"}
    seen = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "outside.py").write_text(text)
        seen.add(describe_run(config, choices).id)
    assert len(seen) == 2


def test_a_name_cannot_leave_the_outputs(tmp_path):
    config, _ = composed(f"outputs={tmp_path}")
    record = describe_run(config, {"dataset": "../../etc", "method": "a/../../b", "backbone": "/c"})
    assert tmp_path / "runs" in record.folder.resolve().parents
    assert record.folder.parent.parent == tmp_path / "runs"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UserError("in words"), "failed", "in words"),
        (DivergedError("step 3"), "diverged", "step 3"),
        (KeyError("k"), "failed", "KeyError: 'k'"),
        (KeyboardInterrupt(), "running", "interrupted"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
)
def test_whatever_ends_a_run_is_on_record(error, status, told, tmp_path):
    record = describe_run(*composed(f"outputs={tmp_path}"))
    with pytest.raises(type(error)), open_recording(record):
        assert read_record(record.folder / "run.json").status == "running"
        raise error
    stored = read_record(record.folder / "run.json")
    assert (stored.status, stored.error) == (status, told)
    assert ("Traceback" in (record.folder / "run.log").read_text()) == (status != "running")
    assert find_complete(record) is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomically(path, b"first")
    monkeypatch.setattr(atomic.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_records_are_found_and_broken_ones_are_told(tmp_path):
    record = made(tmp_path, *QUICK)
    for name, text in {"torn": '{"id": "x", ', "other": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    found, faults = read_records([tmp_path, tmp_path])  # a folder named twice counts once
    assert [run.id for run in found] == [record.id]
    assert len(faults) == 2 and all("can't be read" in fault for fault in faults)


def test_copies_of_a_run_count_once_and_a_copy_knows_its_place(tmp_path):
    record = made(tmp_path / "a", *QUICK)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found, faults = read_records([tmp_path])
    assert len(found) == 1 and len(faults) == 1 and "counted once" in faults[0]
    assert read_record(tmp_path / "b" / record.folder.relative_to(tmp_path / "a") / "run.json").folder.is_relative_to(
        tmp_path / "b"
    )


@pytest.mark.parametrize(
    "broken",
    [
        *({"choices": []}, {"status": "great"}, {"config": None}, {"choices": {"method": "m"}}, {"environment": []}),
        *(
            {"data": {"classes": "abc"}},
            {"scores": {"target": {}}},
            {"training": {"auto": {"chosen": 1}}},
            {"seconds": "1"},
        ),
    ],
)
def test_a_record_of_the_wrong_form_is_told(broken, tmp_path):
    content = {"id": "i", "setting": "s", "config": {}, "status": "ok", "later": 1, "schema": SCHEMA}
    content["choices"] = {"dataset": "d", "method": "m", "backbone": "b"}
    (tmp_path / "run.json").write_text(json.dumps({**content, **broken}))
    assert read_records([tmp_path])[0] == []
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert len(read_records([tmp_path])[0]) == 1


def test_other_weights_under_the_same_name_are_another_run(tmp_path):
    identities = set()
    for content in (b"a", b"b"):
        (tmp_path / "w.pth").write_bytes(content)
        identities.add(identity("backbone=resnet18", f"backbone.weights={tmp_path}/w.pth"))
    assert len(identities) == 2


def test_the_curve_has_a_line_a_point_and_the_evidence_where_examined(tmp_path):
    record = made(tmp_path, *QUICK, "train.steps=12", "train.log_every=5", "train.evaluations=2")
    lines = [json.loads(line) for line in (record.folder / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 6, 10, 12]
    assert ["source_val" in line for line in lines] == [False, True, False, True]
    assert set(lines[0]["terms"]) == {"source", "mmd"}
    predictions = load_file(record.folder / "predictions.safetensors")
    assert {name: tuple(p.shape) for name, p in predictions.items()} == {"step_6": (360, 10), "step_12": (360, 10)}


def test_the_record_says_where_and_on_what_data(tmp_path):
    record = read_record(made(tmp_path, *QUICK).folder / "run.json")
    assert (
        record.environment.device == "cpu" and record.environment.threads == 1 and record.environment.engine == "eager"
    )
    assert (
        record.environment.versions["torch"] == torch.__version__.split("+")[0] or record.environment.versions["torch"]
    )
    assert record.data.shape == [1, 8, 8] and len(record.data.classes) == 10
    assert record.training.input.startswith("Pixels(channels=1, mean=[0.5]")
    assert record.granted == "0" and record.seconds is not None and record.seconds > 0


def test_the_saved_model_is_the_selected_checkpoint(tmp_path):
    """The loaded model's predictions on the test split are the stored ones of the selected step, calibrated."""
    record = made(tmp_path, *QUICK, "select=last")
    assert record.scores is not None and record.training.temperature is not None
    from tl_runner.datasets.digits import digits
    from tl_runner.datasets.split import Budget, split_domains

    pair, answers, _ = split_domains(digits(0, samples=300, size=8), 0, Budget("count", 0), torch.device("cpu"))
    model = tl_runner.load(record.folder).model
    p = model(pair.target.test.take(torch.arange(len(pair.target.test)))).softmax(-1)
    torch.testing.assert_close(p, calibrated(record))
    assert model.classes == tuple("0123456789") and not model.training
    accuracy = (p.argmax(-1) == answers.open()).double().mean().item()
    assert accuracy == record.scores.target["accuracy"]


def test_loading_what_is_no_run_or_kept_no_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        tl_runner.load(tmp_path)
    record = made(tmp_path / "damaged", *QUICK)
    (record.folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be read into the run's network"):
        tl_runner.load(record.folder)
    record = made(tmp_path, *QUICK, "save=false")
    with pytest.raises(UserError, match=r"has no model\.safetensors: the run is 'ok', save=False"):
        tl_runner.load(record.folder)


def test_a_resnet_that_began_from_weights_is_loaded_without_them(tmp_path):
    from torchvision import models

    torch.save(models.resnet18().state_dict(), tmp_path / "net.pth")
    words = [*QUICK, "train.steps=1", "dataset.samples=60", "backbone=resnet18", f"backbone.weights={tmp_path}/net.pth"]
    record = made(tmp_path, *words)
    (tmp_path / "net.pth").unlink()
    model = tl_runner.load(record.folder).model
    torch.testing.assert_close(
        model.state_dict()["backbone.pixels.mean"].flatten(), torch.tensor([0.485, 0.456, 0.406])
    )


def test_whether_a_dataset_may_be_downloaded_changes_no_identity(tmp_path):
    config, choices = composed("dataset=cifar10", f"dataset.root={tmp_path}")
    fetched = {**config, "dataset": {**config["dataset"], "download": True}}
    other = {**config, "dataset": {**config["dataset"], "size": 64}}
    assert describe_run(config, choices).id == describe_run(fetched, choices).id != describe_run(other, choices).id
