"""method=auto: by what it chooses, what it drops, and that it never needs a label to do so."""

from collections.abc import Generator
from typing import Any

import pytest
import torch
from conftest import made
from safetensors.torch import load_file
from torch import Tensor

from tl_runner.engine import auto_trials
from tl_runner.engine.auto_trials import agreement, choose_method
from tl_runner.errors import UserError
from tl_runner.functional.label_free import information
from tl_runner.methods.auto import BASE, Auto
from tl_runner.methods.mmd import MMD
from tl_runner.methods.source_only import SourceOnly
from tl_runner.storage.sections import AutoInfo

CLASSES = 3
TRUE = torch.arange(100) % CLASSES


def says(labels: Tensor) -> Tensor:
    """Probabilities that are fairly sure of these labels."""
    return torch.eye(CLASSES)[labels] * 0.8 + 0.2 / CLASSES


def off(first: int, past: int) -> Tensor:
    """The true labels, but on these rows, on which it says the next class."""
    rows = torch.arange(100)
    return torch.where((first <= rows) & (rows < past), (TRUE + 1) % CLASSES, TRUE)


class Told:
    """Trials whose outcome is written down; `asked` is which were made."""

    def __init__(self, outcome: dict[str, Tensor | str], alike: str = ""):
        self.outcome, self.reason, self.asked = outcome, alike, []
        self.steps = 100
        self.source_steps = 10

    def alike(self) -> Generator[Any, None, str]:
        yield from ()
        return self.reason

    def trial(self, name: str, steps: int) -> Generator[Any, None, Tensor | str]:
        yield from ()
        self.asked.append((name, steps))
        return self.outcome[name]


def outcome(auto: Auto, trials: Told) -> tuple[Any, AutoInfo]:
    steps = choose_method(auto, trials)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as end:
        next(steps)
    return end.value.value


def test_agreement_is_the_share_of_rows_on_which_each_says_what_the_mean_says():
    sure, unsure = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.4, 0.6], [0.3, 0.7]])
    assert agreement({"a": sure, "b": unsure}) == {"a": 1.0, "b": 0.5}  # the mean is (.65, .35), (.25, .75)


def test_the_candidate_that_most_agree_with_is_chosen_and_not_the_odd_one():
    trials = Told(
        {BASE: says(off(40, 70)), "mmd": says(off(0, 5)), "mcc": says(off(10, 20)), "dann": says((TRUE + 2) % CLASSES)}
    )
    method, told = outcome(Auto(["mmd", "mcc", "dann"]), trials)
    assert isinstance(method, MMD) and told.chosen == "mmd"
    assert "mmd agrees with the mean of all 4 candidates" in told.why


def test_no_adaptation_wins_unless_another_is_clearly_better():
    near = Told({BASE: says(off(0, 2)), "mmd": says(TRUE), "mcc": says(off(50, 51))})
    method, told = outcome(Auto(["mmd", "mcc"], margin=0.02), near)
    assert isinstance(method, SourceOnly) and "by 2% more" in told.why
    method, _ = outcome(Auto(["mmd", "mcc"], margin=0.0), near)
    assert isinstance(method, MMD)


def test_each_rung_drops_the_worse_half_and_never_the_baseline():
    names = ["mmd", "mcc", "dann", "coral"]
    wrong = [off(0, 0), off(0, 10), off(10, 30), off(30, 60)]
    of_names = {name: says(labels) for name, labels in zip(names, wrong, strict=True)}
    trials = Told({BASE: says(off(60, 100)), **of_names})
    _, told = outcome(Auto(names, rungs=3), trials)
    made_of = [[name for name, steps in trials.asked if steps == at] for at in (12, 25, 50)]
    assert made_of == [[BASE, *names], [BASE, "mmd", "mcc"], [BASE, "mmd"]]
    assert told.steps == 12 * 5 + 25 * 3 + 50 * 2 + 10  # and the source model that nothing else starts from
    assert [each["method"] for each in told.tried] == [name for name, _ in trials.asked]


def test_a_candidate_that_refuses_is_out_and_it_is_said_why():
    trials = Told({BASE: says(off(0, 30)), "mmd": says(TRUE), "mcc": says(TRUE), "dann": "it needs more"})
    _, told = outcome(Auto(["mmd", "mcc", "dann"]), trials)
    assert {"method": "dann", "steps": 0, "refused": "it needs more"} in told.tried
    assert told.chosen == "mmd"


def test_domains_that_are_alike_need_no_trial():
    trials = Told({}, alike="nothing tells them apart")
    method, told = outcome(Auto(), trials)
    assert isinstance(method, SourceOnly) and told.why == "nothing tells them apart" and not trials.asked


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        (["auto"], "auto can't be a candidate"),
        (["finetune"], "finetune learns from granted target labels"),
        ([{"mmd": {"wieght": 2}}], r"unknown key method.candidates: mmd\(wieght=2\).wieght"),
        (["mdm"], "did you mean"),
        (["mmd", "mmd"], "different methods"),
        ([], "one or more"),
    ],
)
def test_what_can_be_no_candidate_is_refused(candidates, said):
    with pytest.raises(UserError, match=said):
        Auto(candidates)


def test_two_settings_of_one_method_are_two_candidates():
    trials = Told({BASE: says(off(0, 40)), "mmd(weight=0.5)": says(TRUE), "mmd(weight=50)": says(off(70, 90))})
    method, told = outcome(Auto([{"mmd": {"weight": 0.5}}, {"mmd": {"weight": 50}}]), trials)
    assert told.chosen == "mmd(weight=0.5)" and isinstance(method, MMD) and method.strength.weight == 0.5


FAST = ["dataset=blobs", "backbone=mlp", "pretrain=tiny", "train.steps=40", "method.candidates=[mmd,coral,mcc]"]


def test_moved_blobs_are_adapted_and_a_second_run_makes_no_trial_again(tmp_path, monkeypatch):
    base = made(tmp_path, "method=source_only", *FAST[:4])
    first = made(tmp_path, "method=auto", *FAST)
    assert first.scores and base.scores and first.training.auto.chosen != BASE
    assert first.scores.selected["accuracy"] > base.scores.selected["accuracy"] + 0.05
    monkeypatch.setattr(auto_trials, "train", None)  # no trial can be trained any more
    again = made(tmp_path, "method=auto", "force=true", *FAST)
    assert again.scores == first.scores and again.training.auto == first.training.auto
    with pytest.raises(TypeError):
        made(tmp_path, "method=auto", "seed=1", *FAST)  # other data: the trials of another seed are none of these


def test_a_trial_is_what_the_run_itself_would_be_cut_short(tmp_path):
    """The candidate is trained as in a run of so many steps, from the same start and on the same batches."""
    made(tmp_path, "method=auto", *FAST)
    kept = [load_file(file)["predicted"] for file in (tmp_path / "cache/trials").glob("*.safetensors")]
    short = made(tmp_path, "method=mmd", *FAST[:3], "train.steps=10", "select=last")
    assert short.evidence is not None
    assert short.evidence["information"] in [pytest.approx(information(predicted), abs=1e-6) for predicted in kept]


def test_without_a_shift_it_is_no_adaptation_at_once(tmp_path):
    record = made(tmp_path, "dataset=synthetic", "dataset.shift=none", "method=auto", *FAST[1:])
    assert record.training.auto.chosen == BASE and record.training.auto.tried == []
    assert "can't be told apart" in record.training.auto.why


def test_where_no_adaptation_fails_the_best_of_the_others_is_taken():
    trials = Told({BASE: "the loss is not a finite number", "mmd": says(TRUE), "mcc": says(off(0, 9))})
    method, told = outcome(Auto(["mmd", "mcc"]), trials)
    assert isinstance(method, MMD) and "source_only did not complete its trial" in told.why


def test_where_all_candidates_fail_that_is_said():
    trials = Told({BASE: "no", "mmd": "never", "mcc": "nor this"})
    with pytest.raises(UserError, match="source_only: no; mmd: never; mcc: nor this"):
        next(choose_method(Auto(["mmd", "mcc"]), trials))  # type: ignore[arg-type]
