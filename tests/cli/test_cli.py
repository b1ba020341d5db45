"""The commands as a person types them: in this process, but for sweeps and a run that have one of their own."""

import json
import os
import re
from csv import DictReader
from pathlib import Path

import pytest
from conftest import CONF, FOUND, QUICK, command
from support.refusals import told

from tl_runner import options
from tl_runner.cli.tl_run import put_overrides_first
from tl_runner.storage import contents
from tl_runner.storage.record import read_records

QUICKER = [*QUICK, "device=cpu", "threads=1"]
MINE = """\
import torch.nn.functional as F
from tl_runner import Method

class MyMethod(Method):
    needs = {"source", "target"}
    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight
    def terms(self, model, batch, progress):
        source, target = model.features(batch.source.x, batch.target)
        loss = F.cross_entropy(model.head(source), batch.source.y)
        return {"source": loss, "means": self.weight * (source.mean(0) - target.mean(0)).square().sum()}
"""


def test_help_lists_every_option_with_its_line_and_every_key(here):
    text = here("tl-run", "--help").stdout
    for path in FOUND:
        purpose = (CONF / path).read_text().splitlines()[0].lstrip("# ")
        assert re.search(rf"^  [* ] {Path(path).stem} +{re.escape(purpose)}$", text, re.MULTILINE)
    for key in ("seed=0", "granted=auto", "device=auto", "force=false"):
        assert key in text
    assert "weight: 2.0" in here("tl-run", "--help", "method=mmd").stdout
    assert "did you mean 'method=coral'" in told(here("tl-run", "--help", "method=corla"))


def test_a_run_then_the_same_then_by_force_then_the_report(here):
    first = here("tl-run", *QUICKER)
    assert first.returncode == 0, first.stderr
    assert "target: handwritten" in first.stdout and "source-val" in first.stdout
    (record,) = read_records([Path("outputs")])[0]
    assert sorted(path.name for path in Path().iterdir()) == ["outputs"]  # Hydra leaves nothing of its own
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["locks", "runs"]
    assert str(record.folder.relative_to(Path.cwd())) in first.stdout
    stamp = (record.folder / "curve.jsonl").stat().st_mtime_ns

    again = here("tl-run", *QUICKER, "method.weight=2")  # its default, as a whole number
    assert "already complete, skipped" in again.stdout and again.returncode == 0
    assert (record.folder / "curve.jsonl").stat().st_mtime_ns == stamp
    assert first.stdout.splitlines()[-8:] == again.stdout.splitlines()[-8:]

    forced = here("tl-run", *QUICKER, "force=true")
    assert "already complete" not in forced.stdout
    assert (record.folder / "curve.jsonl").stat().st_mtime_ns > stamp

    table = here("tl-report")
    assert table.returncode == 0 and "1 setting, 1 run, 0 failed" in table.stdout


def test_a_run_without_weights_is_made_again_when_they_are_wanted(here):
    assert here("tl-run", *QUICKER, "save=false").returncode == 0
    (record,) = read_records([Path("outputs")])[0]
    assert not (record.folder / "model.safetensors").exists()
    result = here("tl-run", *QUICKER)
    assert "running it again" in " ".join(result.stderr.split()) and (record.folder / "model.safetensors").exists()


def test_other_versions_than_those_of_the_stored_run_are_said(here):
    here("tl-run", *QUICKER)
    (record,) = read_records([Path("outputs")])[0]
    file = record.folder / "run.json"
    content = json.loads(file.read_text())
    content["environment"]["versions"]["tl_runner"] = "0.0.1"
    file.write_text(json.dumps(content))
    assert "tl_runner 0.0.1 then" in here("tl-run", *QUICKER).stderr


def test_a_sweep_goes_on_after_a_failure_and_its_table_tells():
    """source_only has no weight, so its jobs fail, and the others are made."""
    sweep = ["-m", "method=source_only,mmd", "++method.weight=1", "seed=0,1", *QUICKER]
    result = command("tl-run", *sweep)
    assert result.returncode == 1
    assert result.stderr.count("unknown key method.weight") == 2
    assert "4 runs, 2 failed" in result.stdout
    found = read_records([Path("outputs")])[0]
    assert sorted((run.choices["method"], run.seed, run.status) for run in found) == [
        ("mmd", 0, "ok"), ("mmd", 1, "ok"), ("source_only", 0, "failed"), ("source_only", 1, "failed"),
    ]  # fmt: skip
    table = command("tl-report").stdout
    assert "2 settings, 4 runs, 2 failed" in table
    assert re.search(r"│ mmd +│ +0 │ 2 │ +0 │ +\d+\.\d ± \d+\.\d", table)
    repeated = command("tl-run", "-m", "method=mmd", "method.weight=1", "seed=0,1", *QUICKER)
    assert "2 runs, 0 failed, 2 skipped" in repeated.stdout and repeated.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["method=fine-tune"],
            "there is no method=fine-tune – did you mean 'finetune'? (possible: ",
        ),
        (["method=ddan"], "did you mean 'mmd'? (possible: adabn, adamatch, adda, afn, "),
        (["method=dan"], "did you mean 'mmd'?"),
        (["method=erm"], "did you mean 'source_only'?"),
        (["method=linear_probe"], "did you mean 'feature_extract'?"),
        (["dataset=digit"], "did you mean 'digits'?"),
        (["metod=mmd"], "unknown key metod – did you mean 'method'?"),
        (["method.wieght=2"], "method=mmd has no 'wieght' – did you mean 'weight'?"),
        (["+method.wieght=2"], "unknown key method.wieght – did you mean 'weight'?"),
        (["method.weight=abc"], "method.weight takes a number, got 'abc'"),
        (["method.weight=-1"], "method.weight must be at least 0, got -1"),
        (["backbone=resnet18", "dataset=blobs"], "reads images, but this dataset has rows of 10 numbers"),
        (["backbone=resnet18", "backbone.weights=no/such.pth"], "there is no such file"),
        (["granted=400"], "granted=400 asks for 400 labels of class '0', but the train split of handwritten has"),
        (["dataset=blobs", "backbone=mlp", "dataset.samples=9"], "samples must be at least 10, got 9"),
        (["dataset=missing_folder"], "there is no dataset=missing_folder"),
        (["--config-dir", "no_such_folder"], "no_such_folder"),
        (["granted=0.1"], "granted takes auto, 0, a count per class (5), a share (10%), all or labelled, got '0.1'"),
        (["method=target_only", "granted=0"], "granted=0 leaves it none"),
        (["dataset=blobs", "backbone=mlp", "dataset.samples=10", "train.batch=1"], "train.batch must be at least 2"),
        (["seed=0,1"], "seed=0,1 has several values: add -m to run each"),
        (["method"], "'method' can't be read: write key=value"),
        (["method=null"], "method=null: a group needs one of its options"),
        (["method=nan"], "method=nan: a group needs one of its options"),
        (["method=[mmd]"], "method takes one option, as in method=mmd"),
        (["method=CORLA"], "did you mean 'coral'?"),
        (["-m", "method=source_only,mmd", "method.weight=1"], "method=source_only has no 'weight'"),
        (["dataset.severity=5"], "has no shift to belong to"),
        (["threads=100000"], "threads must be between 1 and 1024"),
        (["select.collapse=5"], "collapse must be between 0 and 1"),
        (["~method"], "method takes one option"),
        (["device=cuda:9"], "PyTorch finds"),
    ],
)
def test_bad_input_gets_one_clear_message_and_a_record(words, message, here):
    assert message in told(here("tl-run", *words))
    found, faults = read_records([Path("outputs")])
    assert [run.status for run in found] == ["failed"] and not faults
    assert message in str(found[0].error)


def test_a_loss_that_is_not_finite_is_told_with_its_step_and_terms(here):
    words = ["optimizer.lr=1e30", "train.clip=null", *QUICKER]
    assert re.search(r"not a finite number at step \d+: source=(nan|inf)", told(here("tl-run", *words)))
    assert [run.status for run in read_records([Path("outputs")])[0]] == ["diverged"]
    assert "1 run, 1 failed" in here("tl-report").stdout


def test_an_unforeseen_error_names_its_kind_and_the_traceback_on_demand(here):
    Path("broken.py").write_text(MINE.replace("source.mean(0) - target.mean(0)", "source.nothing"))
    others = (f"~method.{name}" for name in ("estimator", "layers", "normalise", "schedule", "squared"))
    words = [*others, "method._target_=broken.MyMethod", *QUICKER]
    message = told(here("tl-run", *words))
    assert "AttributeError: 'Tensor' object has no attribute 'nothing'" in message and "run.log" in message
    assert "Traceback" in here("tl-run", *words, HYDRA_FULL_ERROR="1").stderr


def test_outputs_that_cannot_be_written_are_told(here):
    Path("taken").write_text("a file")
    assert "taken" in told(here("tl-run", "outputs=taken", *QUICKER))


def test_a_method_of_ones_own_needs_one_file_and_one_yaml(here):
    Path("mine/method").mkdir(parents=True)
    Path("my_method.py").write_text(MINE)
    Path("mine/method/my_method.yaml").write_text("# Mine.\n_target_: my_method.MyMethod\nweight: 1.0\n")
    words = ["--config-dir", "mine", "method=my_method", *QUICKER]
    result = here("tl-run", *words)
    assert result.returncode == 0, result.stderr
    assert "means" in result.stdout
    assert "my_method" in here("tl-run", "--help", "--config-dir", "mine").stdout
    assert "already complete" in here("tl-run", *words).stdout
    middle = [*QUICKER, "--config-dir", "mine", "method=my_method"]  # a flag between overrides, as people type it
    assert "already complete" in here("tl-run", *middle).stdout
    Path("my_method.py").write_text(MINE + "# edited\n")
    assert "already complete" not in here("tl-run", *words).stdout
    assert "unread" not in told(here("tl-run", *words, "granted=5"))
    assert len(read_records([Path("outputs")])[0]) == 3


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        ("a=1 --config-dir my b=2 -m", "a=1 b=2 --config-dir my -m"),
        ("-cd a=b ~c", "~c -cd a=b"),
        ("--info a=1", "a=1 --info"),
        ("a=1 --info all b=2 mmd", "a=1 b=2 mmd --info all"),
    ],
)
def test_overrides_come_before_flags_and_their_values(words, ordered):
    assert put_overrides_first(words.split()) == ordered.split()


def test_handwritten_to_handwritten_shows_its_result():
    result = command("tl-run", "dataset.source=handwritten", *QUICKER)
    assert result.returncode == 0 and result.stdout.count("handwritten") >= 2


def test_what_was_typed_is_never_read_as_markup(here):
    assert here("tl-run", "foo=[/red]").returncode == 1
    report = here("tl-report")
    assert report.returncode == 0 and "0 settings, 0 runs, 0 failed" in report.stdout
    assert "warning: 1 command could not be read, and made no run: unknown key foo" in " ".join(report.stdout.split())


def test_a_forced_run_that_fails_leaves_the_finished_one(here):
    here("tl-run", *QUICKER)
    (record,) = read_records([Path("outputs")])[0]
    before = {file.name: file.read_bytes() for file in record.folder.iterdir()}
    assert "PyTorch finds" in told(here("tl-run", *QUICKER, "force=true", "device=cuda:9"))
    assert {file.name: file.read_bytes() for file in record.folder.iterdir()} == before
    assert len(list(record.folder.parent.iterdir())) == 1
    for word in ("force=banana", "device=banana", "threads=-5"):
        assert "takes" in told(here("tl-run", *QUICKER, word)) or word == "threads=-5"
    assert here("tl-run", *QUICKER, "force=1").stdout.count("already complete") == 0


def test_outputs_may_be_moved(here):
    here("tl-run", *QUICKER)
    Path("outputs").rename("moved")
    result = here("tl-run", *QUICKER, "outputs=moved")
    assert "already complete" in result.stdout and "moved/runs" in result.stdout and not result.stderr


def test_a_baseline_of_the_same_seed_is_shown_beside_the_method(here):
    assert "no baseline to compare with yet" in here("tl-run", *QUICKER).stdout
    assert "nothing to compare" not in here("tl-run", "method=source_only", *QUICKER).stdout
    assert "source_only, same seed, granted=0" in here("tl-run", *QUICKER).stdout
    assert "source_only, same seed, granted=0" in here("tl-run", "method=target_only", *QUICKER).stdout


def test_an_option_that_would_shadow_ours_is_refused(here):
    Path("mine/method").mkdir(parents=True)
    Path("mine/method/mmd.yaml").write_text("# Mine.\n_target_: my.MMD\n")
    assert "rename method/mmd" in told(here("tl-run", "--config-dir", "mine"))


def test_a_report_of_nothing_and_of_a_broken_record(here):
    assert "no runs in outputs" in here("tl-report").stderr
    here("tl-run", *QUICKER)
    Path("outputs/runs/x").mkdir()
    Path("outputs/runs/x/run.json").write_text("{")
    result = here("tl-report")
    assert "x/run.json can't be read" in result.stderr and "1 setting, 1 run" in result.stdout


def test_hydras_own_switches_work_and_run_nothing(here):
    assert "_target_: tl_runner.methods.mmd.MMD" in here("tl-run", "--cfg", "job").stdout
    assert here("tl-run", "--version").stdout.startswith("tl_runner 0.")
    assert not Path("outputs").exists()


def test_a_fixed_key_of_a_swept_group_is_for_all_its_options(tmp_path):
    words = ["-m", "method=mmd,coral", "method.weight=0.5", "optimizer.lr=0.01,0.001", *QUICKER]
    done = command("tl-run", *words)
    assert done.returncode == 0, done.stderr
    found, _ = read_records([tmp_path / "outputs"])
    assert [record.config["method"]["weight"] for record in found] == [0.5] * 4
    assert "mmd optimizer.lr=0.01 seed=0" in done.stdout and "method.weight=0.5" not in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=a,b", "method.c=1"], ["method=a,b", "method.c=1"]),
        (["-m", "method=a", "method.c=1"], ["-m", "method=a", "method.c=1"]),
        (
            ["-m", "method=a,b", "method.c=1", "train.steps=3"],
            ["-m", "method=a,b", "method.c=choice(1)", "train.steps=3"],
        ),
        (["-m", "method=choice(a,b)", "method.c=1,2"], ["-m", "method=choice(a,b)", "method.c=1,2"]),
        (["-m", "dataset=a,b", "dataset.drop=[x,y]"], ["-m", "dataset=a,b", "dataset.drop=choice([x,y])"]),
        (
            ["--multirun", "dataset=a,b", "dataset.root='x,y'"],
            ["--multirun", "dataset=a,b", "dataset.root=choice('x,y')"],
        ),
    ],
)
def test_what_is_settled_in_a_sweep(words, expected):
    assert options.settle_swept_keys(words) == expected


def test_a_job_is_told_by_what_the_sweep_varies():
    words = ["-m", "method=a,b", "method.c=1", "train.steps=3,4", "seed=0,1"]
    assert options.describe_variant(["method=a", "method.c=1", "train.steps=3", "seed=0"], words) == "train.steps=3"


def test_a_sweep_over_what_changes_no_number_is_one_run_and_says_why(here):
    result = here("tl-run", "-m", "diagnose=none,basic", "dry=true", *QUICKER)
    assert "since diagnose can't change its numbers; the last one counts" in " ".join(result.stderr.split())
    assert "1 run" in result.stdout


def test_runs_on_other_data_are_not_compared_and_not_averaged(tmp_path, here):
    def table(name: str, move: float) -> None:
        lines = [f"{i % 7 + move * (i % 2)},{i % 5},{'ab'[i % 2]}" for i in range(60)]
        (tmp_path / name).write_text("x,y,label\n" + "\n".join(lines) + "\n")

    table("a.csv", 0)
    table("b.csv", 1)
    words = ["dataset=table", "dataset.source=a.csv", "dataset.target=b.csv", "backbone=mlp", "train=tiny", "threads=1"]
    assert here("tl-run", *words, "method=source_only").returncode == 0
    assert "source_only, same seed" in here("tl-run", *words, "method=mmd").stdout
    os.utime("b.csv")
    again = here("tl-run", *words, "method=mmd")  # touched, and the same
    assert "already complete" in again.stdout and not again.stderr
    (first,) = (Path(name) for name in again.stdout.split() if "runs/table/mmd-" in name)
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    table("b.csv", 3)
    told = f"new: data changed since {first.name}"
    assert told in " ".join(here("tl-run", *words, "method=mmd", "dry=true").stdout.split())
    changed = here("tl-run", *words, "method=mmd")
    assert "already complete" not in changed.stdout and first.name not in changed.stdout
    assert f"new: the data changed since {first} was made" in " ".join(changed.stderr.split())
    assert before == {file.name: file.read_bytes() for file in first.iterdir()}
    assert "already complete" in here("tl-run", *words, "method=mmd").stdout
    assert "no baseline to compare with yet" in here("tl-run", *words, "method=coral").stdout
    here("tl-run", *words, "method=source_only", "seed=1")
    report = here("tl-report", "--format", "csv").stdout
    rows = list(DictReader(report.splitlines()))
    assert len({row["pair"] for row in rows if "files=" in row["pair"]}) == 2
    assert sorted(row["method"] for row in rows) == ["coral", "mmd", "mmd", "source_only", "source_only"]
    assert all(row["n"] == "1" for row in rows)


def test_a_sweep_looks_at_its_files_once(tmp_path, typed, monkeypatch):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y,label\n1,2,a\n")
    looked, listed = [], contents._list_files
    monkeypatch.setattr(contents, "_list_files", lambda path, *rest: looked.append(path.name) or listed(path, *rest))
    words = ["dataset=csv", "dataset.source=a.csv", "dataset.target=b.csv", "backbone=mlp", "dry=true"]
    assert "6 runs: 6 new" in typed("tl-run", "-m", *words, "method=mmd,coral", "seed=0,1,2").out
    assert sorted(looked) == ["a.csv", "b.csv"] and not Path("outputs/runs").exists()
