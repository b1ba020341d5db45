"""Runs, sweeps and the leaderboard from Python."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from csv import DictReader
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, composed, made
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from support.equal_runs import equal
from support.made_up_runs import made_up

import tl_runner
from tl_runner import notebook
from tl_runner.errors import DivergedError, UserError
from tl_runner.storage.record import describe_run, read_records

DOCS = Path(__file__).parent.parent / "docs"
SMALL = ["train=tiny", "dataset=blobs", "dataset.samples=200", "backbone=mlp", "device=cpu", "threads=1"]
MINE = """\
import torch.nn.functional as F
from tl_runner import Method

class Mine(Method):
    needs = {"source", "target"}
    def __init__(self, how: str = "fine"):
        super().__init__()
        self.how = how
    def terms(self, model, batch, progress):
        if self.how == "raises":
            raise LookupError("as a user's code does")
        factor = float("nan") if self.how == "diverges" else 1.0
        source, _ = model.features(batch.source.x, batch.target)
        return {"source": factor * F.cross_entropy(model.head(source), batch.source.y)}
"""


@pytest.fixture
def mine() -> Iterator[Path]:
    """A folder of options, with a method of a user's beside it."""
    folder = Path("my_options")
    (folder / "method").mkdir(parents=True)
    (folder / "method/mine.yaml").write_text("# Mine.\n_target_: mine.Mine\nhow: fine\n")
    (folder / "mine.py").write_text(MINE)
    yield folder
    sys.modules.pop("mine", None)


def test_a_run_is_that_of_the_command_line_and_is_made_once(typed):
    record = tl_runner.run([*SMALL, "seed=3"], outputs="out")
    assert record.status == "ok" and record.scores and record.scores.selected["accuracy"] > 0
    typed_in = typed("tl-run", *SMALL, "seed=3", "outputs=out")
    assert "already complete, skipped" in typed_in.out, typed_in.err
    stamp = (record.folder / "run.json").stat().st_mtime_ns
    again = tl_runner.run([*SMALL, "seed=3"], outputs="out")
    assert (again.id, again.scores, again.folder) == (record.id, record.scores, record.folder)
    assert (record.folder / "run.json").stat().st_mtime_ns == stamp
    equal(record, made(Path("other"), *SMALL, "seed=3"))


@pytest.mark.parametrize(
    "words", [["method=coral", "seed=7"], ["dataset=blobs", "backbone=mlp", "method.weight=3"], ["method=dann"]]
)
def test_ids_are_those_that_are_composed(words, monkeypatch):
    with notebook._undisturbed(None, True) as folders:
        order = notebook._compose([*words, "outputs='an odd, {place}'"], None, folders)
    expected = describe_run(*composed(*words))
    assert (order.record.id, order.record.setting) == (expected.id, expected.setting)
    assert order.record.outputs == Path("an odd, {place}")


def test_a_run_that_was_interrupted_goes_on_and_ends_as_one_that_was_not():
    """The first interrupt stops it at its next point; the handler of before is there again."""
    words, before = [*SMALL, "checkpoint_every=0"], signal.getsignal(signal.SIGINT)
    trips: list[int] = []

    def interrupt(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "describe" and frame.f_code.co_filename.endswith("live.py"):
            trips.append(1)
            if len(trips) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            tl_runner.run(words)
    finally:
        sys.setprofile(None)
    assert signal.getsignal(signal.SIGINT) is before
    (cut,) = read_records([Path("outputs")])[0]
    assert cut.status == "running" and [*cut.folder.glob("checkpoint*.pt")]
    record = tl_runner.run(words)
    assert record.id == cut.id and record.environment.resumed > 0
    equal(record, tl_runner.run(words, outputs="undisturbed"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=ddan"], "did you mean 'mmd'"),
        (["method.wieght=2"], "did you mean 'weight'"),
        (["method.weight=-1"], "method.weight must be at least 0, got -1"),
        (["seed=0,1"], "use tl_runner.run_sweep to run each"),
        (["method"], "write key=value"),
    ],
)
def test_a_bad_configuration_is_refused_in_words_and_is_on_record(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        tl_runner.run([*words, *SMALL], outputs="out")
    (record,) = read_records([Path("out")])[0]
    assert record.status == "failed" and message in (record.error or "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=mmd seed=1", "overrides are a list, as in ['method=mmd', 'seed=1']"),
        (["-m", "seed=0,1"], "-m is a switch of the command line"),
        (["dry=true"], "dry=true makes no run"),
    ],
)
def test_what_is_no_list_of_overrides_is_refused(words, message):
    for call in (tl_runner.run, tl_runner.run_sweep):
        with pytest.raises(UserError, match=re.escape(message)):
            call(words)
    assert not [*Path().iterdir()]


def test_options_of_a_users_and_what_their_code_raises(mine):
    record = tl_runner.run(["method=mine", *SMALL], config_dir=mine)
    assert record.status == "ok" and record.choices["method"] == "mine"
    with pytest.raises(LookupError, match="as a user's code does"):
        tl_runner.run(["method=mine", "method.how=raises", *SMALL], config_dir=mine)
    for _ in range(2):  # in training, and from the record
        with pytest.raises(DivergedError):
            tl_runner.run(["method=mine", "method.how=diverges", *SMALL], config_dir=mine)
    statuses = sorted(run.status for run in read_records([Path("outputs")])[0])
    assert statuses == ["diverged", "failed", "ok"]
    with pytest.raises(UserError, match="there is no such folder"):
        tl_runner.run(SMALL, config_dir="nowhere")


def test_a_call_leaves_the_process_as_it_was(mine):
    """Hydra's state too, of a program that uses Hydra itself."""

    def state() -> list[Any]:
        ours = logging.getLogger("tl_runner")
        kept: Any = np.random.get_state(legacy=True)
        return [
            *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)),
            *(Path.cwd(), list(sys.path), list(sys.argv), dict(os.environ), sys.stdout, sys.stderr),
            *(list(ours.handlers), ours.level, list(logging.getLogger().handlers), logging.getLogger().level),
            *(torch.get_num_threads(), torch.get_rng_state().tolist(), kept[1].tolist(), kept[2]),
            *(GlobalHydra.instance().hydra, HydraConfig.instance().cfg, vars(sys.modules["__main__"]).copy()),
        ]

    with initialize_config_module("tl_runner.conf", version_base="1.2"):
        before = state()
        tl_runner.run([*SMALL, "threads=2"])
        tl_runner.run(["method=mine", *SMALL], config_dir=mine, progress=False)
        tl_runner.run_sweep(["method=mine", "seed=0,1", "hydra/launcher=basic", *SMALL], config_dir=mine)
        with pytest.raises(UserError):
            tl_runner.run(["method=none_such"])
        assert state() == before
        assert compose("config", overrides=["method=coral"]).method.weight


def test_progress_can_be_silent(capfd):
    tl_runner.run(SMALL)
    assert "step 20/20" in capfd.readouterr().out
    tl_runner.run([*SMALL, "seed=1"], progress=False)
    tl_runner.run_sweep([*SMALL, "seed=1,2", "hydra/launcher=basic"], progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_run_beside_the_main_thread():
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(tl_runner.run(SMALL)))
    thread.start()
    thread.join()
    assert made[0].status == "ok"


def test_a_sweep_returns_every_record_in_order():
    """source_only has no weight, so its jobs fail, and the others are made."""
    words = ["method=source_only,mmd", "++method.weight=1", "seed=1,0", *SMALL, "hydra/launcher=basic"]
    records = tl_runner.run_sweep(words)
    assert [(r.choices["method"], r.seed, r.status) for r in records] == [
        ("source_only", 1, "failed"), ("source_only", 0, "failed"), ("mmd", 1, "ok"), ("mmd", 0, "ok"),
    ]  # fmt: skip
    assert "unknown key method.weight" in (records[0].error or "")
    assert records[2].id == tl_runner.run([*SMALL, "seed=1", "method.weight=1"]).id
    with pytest.raises(UserError, match="did you mean 'coral'"):
        tl_runner.run_sweep(["method=source_only,corla", *SMALL])


def test_a_script_that_guards_nothing_makes_a_sweep_in_workers():
    script = f"""\
import sys, tl_runner
print("begun")
records = tl_runner.run_sweep(["method=source_only,coral", *{SMALL}], progress=False)
print(*(record.status for record in records), "torch" in sys.modules)
"""
    Path("script.py").write_text(script)
    result = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("begun\nok ok False\n", "")


def test_the_leaderboard_is_the_table_that_is_printed(typed):
    for method in ("source_only", "mmd", "kmm"):
        for seed in range(3):
            made_up(Path("outputs"), method, seed)
    made_up(Path("outputs"), "mmd", 3, status="failed")
    table = tl_runner.leaderboard()
    printed = typed("tl-report")
    for row in table.to_dict("records"):
        (line,) = [line for line in printed.out.splitlines() if line.startswith(f"│ {row['method']} ")]
        said = [cell.strip() for cell in line.strip("│").split("│")]
        assert f"{100 * row['target']:.1f} ± {100 * row['target_sd']:.1f}" in said
        assert str(row["n"]) in said and str(row["verdict"]) in said
        if row["baseline"]:
            interval = [f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high")]
            assert "{} ({} to {})".format(*interval) in said
    listed = [*DictReader(StringIO(typed("tl-report", "--format", "csv").out))]
    assert [*listed[0]] == [*table.columns] and [r["method"] for r in listed] == [*table["method"]]
    assert [float(r["target"]) for r in listed] == pytest.approx([*table["target"]])


def test_the_leaderboard_refuses_in_words(caplog):
    with pytest.raises(UserError, match="there is no folder nowhere"):
        tl_runner.leaderboard("nowhere")
    Path("empty").mkdir()
    with pytest.raises(UserError, match="no runs in empty"):
        tl_runner.leaderboard(Path("empty"))
    with pytest.raises(UserError, match="score takes headline, accuracy, balanced, macro_f1, r2, spearman, got 'f2'"):
        tl_runner.leaderboard("empty", score="f2")  # pyright: ignore[reportArgumentType]
    made_up(Path("outputs"), "mmd", 0)
    Path("empty/run.json").write_text("{")
    assert len(tl_runner.leaderboard(["outputs", "empty"])) == 1
    assert "can't be read" in caplog.text


def test_what_the_page_shows_can_be_run(mine, monkeypatch):
    """Each snippet as it stands; runs are made smaller, and a sweep's in this process."""
    Image.new("L", (8, 8)).save("photo.png")
    run, run_sweep = notebook.run, notebook.run_sweep
    monkeypatch.setattr(notebook, "run", lambda words, **named: run([*words, *QUICK], **named))
    monkeypatch.setattr(
        notebook, "run_sweep", lambda words, **named: run_sweep([*words, *QUICK, "hydra/launcher=basic"], **named)
    )
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(), re.DOTALL)
    assert len(snippets) == 7
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(snippet, names)
    assert len(names["records"]) == 6 and "ddan" not in [*names["table"]["method"]]  # which could not be read


@pytest.mark.slow
def test_a_kernel_runs_it_and_can_be_interrupted():
    """As a notebook does: an event loop runs already, streams are the kernel's, an interrupt is a signal."""
    manager = pytest.importorskip("jupyter_client").manager
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:

        def cell(code: str) -> str:
            said: list[str] = []
            client.execute_interactive(
                code,
                timeout=200,
                output_hook=lambda message: said.append(str(message["content"].get("text", message["content"]))),
            )
            return "".join(said)

        cell(f"import signal, tl_runner; before = signal.getsignal(signal.SIGINT); SMALL = {SMALL}")
        assert "step 20/20" in cell("record = tl_runner.run(SMALL)")
        assert "already complete, skipped" in cell("assert tl_runner.run(SMALL).id == record.id")
        assert "2/2" in cell("records = tl_runner.run_sweep(['seed=1,2', *SMALL])")
        assert "['ok', 'ok']" in cell("print([record.status for record in records])")
        assert "KeyboardInterrupt" in cell(
            "import os, threading\n"
            "threading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
            "tl_runner.run([*SMALL, 'train.steps=100000', 'checkpoint_every=0'])"
        )
        assert "True" in cell("print(signal.getsignal(signal.SIGINT) is before)")
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
