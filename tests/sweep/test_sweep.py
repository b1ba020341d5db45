"""What can happen to a sweep: jobs die in every way, print garbage, hang; launcher and worker are killed; Ctrl-C."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, composed
from support import failing

from tl_runner.engine.job import Job, Outcome, run_job
from tl_runner.storage.record import describe_run, read_record, read_records
from tl_runner.sweep import workers
from tl_runner.sweep.local import DIED, TICK, run_locally
from tl_runner.sweep.slots import Slot

PLACES = [Slot(0, 1, None), Slot(1, 1, None)]
SMALL = [*QUICK, "checkpoint_every=0", "device=cpu", "threads=1"]
FAULTY = ["method=source_only", "method._target_=faulty.Faulty", "+method.how=fine", "+method.weight=1.0"]


@pytest.fixture(autouse=True)
def _faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's method in the folder that they work in, and its YAML in a folder of options."""
    Path("faulty.py").write_text(failing.FAULTY)
    Path("mine/method").mkdir(parents=True)
    Path("mine/method/faulty.yaml").write_text(failing.FAULTY_YAML)
    monkeypatch.syspath_prepend(tmp_path)


def ordered(hows: Sequence[str], **third: Any) -> list[Job]:
    """A run for each way to go wrong, by seed; the third one has settings of its own."""
    config, choices = composed(*SMALL, *FAULTY, f"outputs={Path('outputs').absolute()}")
    orders = []
    for seed, how in enumerate(hows):
        own = third if seed == 2 else {}
        orders.append(
            Job(describe_run({**config, **own, "seed": seed, "method": {**config["method"], "how": how}}, choices))
        )
    return orders


def swept(orders: Sequence[Job], **named: Any) -> dict[int, Outcome]:
    outcomes = {o.record.seed: o for o in run_locally(([job] for job in orders), PLACES, lambda: False, False, **named)}
    assert len(outcomes) == len(orders)
    return outcomes


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raises", "RuntimeError: as a user's code does"),
        pytest.param("exits", "SystemExit: 3", marks=pytest.mark.slow),
        pytest.param("ends", "its process exited with code 3", marks=pytest.mark.slow),
        pytest.param("segfaults", "its process was killed by SIGSEGV", marks=pytest.mark.slow),
        ("is_killed", "its process was killed by SIGKILL"),
        pytest.param("is_slow", "it exceeded timeout=0.2 s", marks=pytest.mark.slow),
        pytest.param("hangs", "did not stop within 0.3 s after its timeout", marks=pytest.mark.slow),
    ],
)
def test_whatever_ends_the_third_of_five_jobs_ends_no_other(how, told, monkeypatch):
    monkeypatch.setattr(workers, "GRACE", 0.3 if how == "hangs" else 100.0)
    limit = {"is_slow": 0.2, "hangs": 3.0}.get(how)  # the latter after its folder is there
    orders = ordered(["fine", "fine", how, "fine", "fine"], timeout=limit)
    outcomes = swept(orders)
    assert [outcomes[seed].failed for seed in range(5)] == [False, False, True, False, False]
    assert [outcomes[seed].record.status for seed in range(5)] == ["ok", "ok", "failed", "ok", "ok"]
    assert told in outcomes[2].message
    folder = orders[2].record.folder
    kept = read_record(folder / "run.json")
    assert kept.status == "failed" and told.partition(", with")[0] in (kept.error or "")
    assert str(folder / "run.log") in outcomes[2].message or how == "is_slow"
    if how == "segfaults":
        assert "Fatal Python error: Segmentation fault" in (folder / "run.log").read_text(errors="replace")

    again = swept([order for order in orders if order.record.seed != 2])
    assert {outcome.what for outcome in again.values()} == {"skipped"}


def test_what_kills_the_process_of_a_group_fails_alone(caplog):
    orders = ordered(["fine", "fine", "is_killed", "fine"])
    outcomes = {outcome.record.seed: outcome for outcome in run_locally(iter([orders]), PLACES, lambda: False, False)}
    assert [outcomes[seed].record.status for seed in range(4)] == ["ok", "ok", "failed", "ok"]
    assert "SIGKILL" in outcomes[2].message
    assert {outcome.alone for outcome in outcomes.values()} == {DIED}
    assert "the process of 4 runs side by side was killed by SIGKILL" in caplog.text


def test_a_killed_worker_costs_its_own_run_only_and_that_goes_on(tmp_path):
    orders = ordered(["waits", "fine", "fine", "fine"])
    hit: list[int] = []

    def kill(_: Sequence[Job]) -> None:
        for file in tmp_path.glob("here-*"):
            hit.append(int(file.name.removeprefix("here-")))
            file.unlink()
            os.kill(hit[-1], signal.SIGKILL)

    outcomes = swept(orders, under_way=kill)
    assert len(hit) == 1 and failing.until(lambda: failing.gone(hit[0]))
    assert [outcomes[seed].record.status for seed in range(4)] == ["failed", "ok", "ok", "ok"]
    assert "SIGKILL" in outcomes[0].message
    Path("go").touch()
    again = swept(ordered(["waits", "fine", "fine", "fine"]))
    assert [again[seed].what for seed in range(4)] == ["ran", "skipped", "skipped", "skipped"]
    assert again[0].record.status == "ok" and again[0].record.environment.resumed == 10
    assert steps(orders[0].record.folder) == [5, 10, 15, 20]


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_runs_that_both_want():
    def one(seeds: range) -> list[Outcome]:
        return [*run_locally(iter([[orders[seed]] for seed in seeds]), PLACES, lambda: False, False)]

    orders = ordered(["fine"] * 8)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, [range(6), range(2, 8)])
    assert (len(first), len(second)) == (6, 6)
    whats = [(outcome.record.seed, outcome.what) for outcome in [*first, *second]]
    assert sorted(seed for seed, what in whats if what == "ran") == [*range(8)]
    assert {what for _, what in whats} <= {"ran", "skipped", "locked"}
    assert all(steps(order.record.folder) == [5, 10, 15, 20] for order in orders)


@pytest.mark.slow
def test_a_source_model_that_two_runs_want_at_once_is_trained_once():
    config, choices = composed(*SMALL, "method=finetune", "pretrain.steps=100", "outputs=outputs")
    other = composed(*SMALL, "method=l2sp", "pretrain.steps=100", "outputs=outputs")
    orders = [Job(describe_run(config, choices)), Job(describe_run(*other))]
    outcomes = [*run_locally(([job] for job in orders), PLACES, lambda: False, False)]
    assert [outcome.record.status for outcome in outcomes] == ["ok", "ok"]
    assert sorted(outcome.record.training.source_model.shared for outcome in outcomes) == [False, True]
    assert len({outcome.record.training.source_model.id for outcome in outcomes}) == 1


# From here on: the command as it is typed.

WORDS = ["-m", "--config-dir", "mine", "method=faulty", *SMALL, "hydra.launcher.n_jobs=2"]


class Typed:
    """`tl-run` with these words, under way in a session of its own."""

    def __init__(self, *words: str):
        self.out, self.err = Path("out.txt"), Path("err.txt")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            environment = {**os.environ, "HYDRA_FULL_ERROR": "0", "COLUMNS": "250"}
            self.process = subprocess.Popen(
                failing.command(*words), stdout=out, stderr=err, start_new_session=True, env=environment
            )

    def here(self, jobs: int) -> list[int]:
        """The processes of so many jobs that wait."""

        def waiting() -> list[Path]:
            assert self.process.poll() is None, self.err.read_text()
            return [*Path().glob("here-*")]

        failing.until(lambda: len(waiting()) == jobs)
        return [int(file.name.removeprefix("here-")) for file in waiting()]

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def said(self, words: str) -> bool:
        return words in self.err.read_text()

    def ended(self) -> int:
        return self.process.wait(100)


@pytest.fixture
def cleaned() -> Iterator[None]:
    yield
    for file in Path().glob("here-*"):
        if not failing.gone(pid := int(file.name.removeprefix("here-"))):
            os.kill(pid, signal.SIGKILL)


def forget() -> None:
    for file in Path().glob("here-*"):
        file.unlink()


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_a_sweep_whose_launcher_was_killed_or_interrupted_goes_on():
    words = [*WORDS, "method.how=waits", "seed=0,1,2"]
    typed = Typed(*words)
    jobs = typed.here(2)
    typed.process.kill()
    assert typed.ended() == -9
    for pid in jobs:  # workers die with their launcher
        failing.until(lambda pid=pid: failing.gone(pid))
    forget()

    typed = Typed(*words)
    jobs = typed.here(2)
    typed.interrupt()
    failing.until(lambda: typed.said("stopping at the next point"))
    assert typed.process.poll() is None
    typed.interrupt()  # again: at once, though its jobs come to no point
    assert typed.ended() == 130 and typed.said("terminated")
    for pid in jobs:
        failing.until(lambda pid=pid: failing.gone(pid))
    forget()

    typed = Typed(*words)
    typed.here(2)
    typed.interrupt()
    failing.until(lambda: typed.said("stopping at the next point"))
    time.sleep(10 * TICK)  # until the workers are told; where that takes longer, their runs may end before
    Path("go").touch()
    assert typed.ended() == 130, typed.err.read_text()
    found, faults = read_records([Path("outputs")])
    assert faults == [] and len(found) == 2 and {record.status for record in found} <= {"running", "ok"}
    stopped = {record.seed for record in found if record.status == "running"}
    assert all((record.folder / "checkpoint.pt").exists() for record in found if record.seed in stopped)

    typed = Typed(*words)
    assert typed.ended() == 0, typed.err.read_text()
    found, faults = read_records([Path("outputs")])
    assert faults == [] and {record.seed: record.status for record in found} == {0: "ok", 1: "ok", 2: "ok"}
    gone_on = {record.seed: record.environment.resumed for record in found if record.environment.resumed is not None}
    assert gone_on.keys() == stopped and all(step >= 15 for step in gone_on.values())
    for record in found:
        assert steps(record.folder) == [5, 10, 15, 20]
        whole = describe_run({**record.config, "outputs": "whole"}, record.choices)
        assert run_job(Job(whole), lambda: False, failing.exhausted).what == "ran"
        for name in ("model", "predictions"):
            one, other = (folder / f"{name}.safetensors" for folder in (record.folder, whole.folder))
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_a_sweep_as_typed_with_garbage_a_segfault_and_a_yaml_that_is_edited_meanwhile():
    typed = Typed(*WORDS, "hydra.launcher.n_jobs=1", "method.how=waits,prints,segfaults,fine,exits")
    typed.here(1)
    Path("mine/method/faulty.yaml").write_text(failing.FAULTY_YAML.replace("weight: 1.0", "weight: 7.0"))
    Path("go").touch()
    assert typed.ended() == 1
    out, err = typed.out.read_bytes(), typed.err.read_bytes()
    found, faults = read_records([Path("outputs")])
    assert faults == []
    by = {record.config["method"]["how"]: record for record in found}
    assert {how: record.status for how, record in by.items()} == {
        "waits": "ok",
        "prints": "ok",
        "segfaults": "failed",
        "fine": "ok",
        "exits": "failed",
    }
    assert {record.config["method"]["weight"] for record in found} == {1.0}
    for how in ("segfaults", "exits"):
        assert str(by[how].folder.relative_to(Path.cwd()) / "run.log") in err.decode()
    assert "SIGSEGV" in err.decode() and "SystemExit: 3" in err.decode()
    assert b"GARBAGE" not in out + err and b"\x1b[2J" not in out + err
    log = (by["prints"].folder / "run.log").read_bytes()
    times = 10  # steps from the half on
    assert log.count(b"\x1b[2J\x1b[31mGARBAGE \xff\x00\r half a line") == 2 * times
    assert log.count(b"GARBAGE from print\n") == log.count(b"GARBAGE from stderr\n") == times
    assert not any(b"GARBAGE" in (by[how].folder / "run.log").read_bytes() for how in by if how != "prints")


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_the_basic_launcher_skips_resumes_and_keeps_what_was_composed():
    words = [*WORDS[:-1], "hydra/launcher=basic", "method.how=waits,fine"]
    typed = Typed(*words)
    assert typed.here(1) == [typed.process.pid]
    Path("mine/method/faulty.yaml").write_text(failing.FAULTY_YAML.replace("weight: 1.0", "weight: 7.0"))
    typed.interrupt()
    Path("go").touch()
    assert typed.ended() == 130, typed.err.read_text()
    (left,) = read_records([Path("outputs")])[0]
    assert left.status == "running" and (left.folder / "checkpoint.pt").exists()
    forget()
    Path("go").unlink()
    Path("mine/method/faulty.yaml").write_text(failing.FAULTY_YAML)

    typed = Typed(*words)
    typed.here(1)
    Path("mine/method/faulty.yaml").write_text(failing.FAULTY_YAML.replace("weight: 1.0", "weight: 7.0"))
    Path("go").touch()
    assert typed.ended() == 0, typed.err.read_text()
    found = read_records([Path("outputs")])[0]
    assert {record.config["method"]["how"]: record.status for record in found} == {"waits": "ok", "fine": "ok"}
    assert {record.config["method"]["weight"] for record in found} == {1.0}
    assert {record.config["method"]["how"]: record.environment.resumed for record in found} == {
        "waits": 15,
        "fine": None,
    }


def importing(typed: Typed) -> int:
    """The fork server, once it is amid its imports."""

    def found() -> int | None:
        assert typed.process.poll() is None, typed.err.read_text()
        children = Path(f"/proc/{typed.process.pid}/task/{typed.process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if "libtorch" in Path(f"/proc/{pid}/maps").read_text()), None)

    return failing.until(found)


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_ctrl_c_while_the_fork_server_still_imports_stops_in_order():
    typed = Typed(*WORDS, "seed=0,1,2")
    importing(typed)
    typed.interrupt()
    assert typed.ended() == 130, typed.err.read_text()
    assert "Traceback" not in typed.err.read_text() and not typed.said("error: ")
    assert {record.status for record in read_records([Path("outputs")])[0]} <= {"running"}


@pytest.mark.slow
@pytest.mark.usefixtures("cleaned")
def test_a_fork_server_that_is_killed_while_it_imports_is_started_anew():
    typed = Typed(*WORDS, "seed=0,1,2")
    os.kill(importing(typed), signal.SIGKILL)
    assert typed.ended() == 0, typed.err.read_text()
    assert [record.status for record in read_records([Path("outputs")])[0]] == ["ok"] * 3
