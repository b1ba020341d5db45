"""method=auto: by what it chooses, what it drops, and that it never needs a label to do so."""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from conftest import made
from safetensors.torch import load_file
from torch import Tensor

from tl_runner.engine import auto_trials
from tl_runner.engine.auto_trials import Trial, Trials, choose_method
from tl_runner.errors import UserError
from tl_runner.functional.divergence import Estimate
from tl_runner.functional.label_free import agreement, compare_agreement, information
from tl_runner.methods.auto import BASE, ENSEMBLE, Auto
from tl_runner.methods.distillation import Distillation
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


APART = Estimate(1.0, 0.8, 1.2)


class Told(Trials):
    """Trials whose outcome is written down; `asked` is which were made."""

    steps = 100  # type: ignore[assignment]

    def __init__(self, outcome: Mapping[str, Tensor | str], separation: Estimate = APART):
        self.outcome: Mapping[str, Tensor | str]
        self.separation: Estimate
        self.asked: list[tuple[str, int]]
        self.__dict__ |= {"outcome": outcome, "separation": separation, "asked": []}  # frozen, as its class is

    def conclude(self, method: Any, name: str, why: str, tried: list[dict[str, Any]]) -> tuple[Any, AutoInfo]:
        return method, AutoInfo(name, why, sum(each["steps"] for each in tried), tried)

    def run(self, name: str, steps: int) -> Generator[Any, None, Trial | str]:
        yield from ()
        self.asked.append((name, steps))
        said = self.outcome[name]
        return said if isinstance(said, str) else Trial(said[:80], said[80:], self.separation, 0.75)


def outcome(auto: Auto, trials: Told) -> tuple[Any, AutoInfo]:
    steps = choose_method(auto, trials)
    with pytest.raises(StopIteration) as end:
        next(steps)
    return end.value.value


def test_agreement_is_the_share_of_rows_on_which_each_says_what_the_mean_says():
    sure, unsure = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.4, 0.6], [0.3, 0.7]])
    assert agreement({"a": sure, "b": unsure}) == {"a": 1.0, "b": 0.5}  # the mean is (.65, .35), (.25, .75)


def test_a_gain_in_agreement_has_the_standard_error_of_the_rows_on_which_two_models_differ():
    predicted = {"a": says(off(0, 5)), "b": says(off(5, 35)), "c": says(TRUE)}
    gain, error = compare_agreement(predicted, "a", "b")
    d = np.array([-1.0] * 5 + [1.0] * 30 + [0.0] * 65)
    assert (gain, error) == (pytest.approx(0.25), pytest.approx(np.sqrt(d.var() / 100)))
    assert compare_agreement(predicted, "b", "a") == (pytest.approx(-0.25), pytest.approx(error))


ODD = {
    BASE: says(off(40, 70)),
    "mmd": says(off(0, 5)),
    "mcc": says(off(10, 20)),
    "dann": says((TRUE + 2) % CLASSES),
}


def test_one_model_learns_what_the_better_half_says():
    method, told = outcome(Auto(["mmd", "mcc", "dann"]), Told(ODD))
    assert isinstance(method, Distillation) and told.chosen == ENSEMBLE
    assert torch.equal(method.teacher, (ODD["mmd"] + ODD["mcc"])[:80] / 2)  # of the training rows alone
    assert "the mean prediction of mmd, mcc; mmd agrees with the mean of all 4 candidates on 95.0%" in told.why
    assert "source_only on 70.0%" in told.why
    assert {"method": "mmd", "steps": 100, "agreement": 0.95, "estimated": 0.75} in told.tried
    assert {"method": BASE, "steps": 100, "agreement": 0.7, "estimated": 0.7} in told.tried  # no more than agreement


def test_without_an_ensemble_the_candidate_that_most_agree_with_is_trained_and_not_the_odd_one():
    method, told = outcome(Auto(["mmd", "mcc", "dann"], ensemble=False), Told(ODD))
    assert isinstance(method, MMD) and told.chosen == "mmd"
    assert told.why.startswith("mmd agrees with the mean of all 4 candidates")


def test_no_adaptation_wins_unless_another_is_clearly_better():
    near = {BASE: says(off(0, 3)), "mmd": says(TRUE), "mcc": says(off(50, 51))}  # 3 of 100 rows: 1.76 standard errors
    method, told = outcome(Auto(["mmd", "mcc"], margin=2.0), Told(near))
    assert isinstance(method, SourceOnly) and told.why.endswith(f": mmd on 100.0%, {BASE} on 97.0%")
    worse = {BASE: says(TRUE), "mmd": says(off(0, 20))}  # of which source_only is itself the best
    assert outcome(Auto(["mmd"]), Told(worse))[1].why.endswith(f": {BASE} on 94.0%, mmd on 86.0%")
    method, _ = outcome(Auto(["mmd", "mcc"], margin=1.7), Told(near))
    assert isinstance(method, Distillation)


def test_each_rung_drops_the_worse_half_and_never_the_baseline():
    names = ["mmd", "mcc", "dann", "coral"]
    wrong = [off(0, 0), off(0, 10), off(10, 30), off(30, 60)]
    of_names = {name: says(labels) for name, labels in zip(names, wrong, strict=True)}
    trials = Told({BASE: says(off(60, 100)), **of_names})
    _, told = outcome(Auto(names, rungs=3), trials)
    made_of = [[name for name, steps in trials.asked if steps == at] for at in (25, 50, 100)]
    assert made_of == [[BASE, *names], [BASE, "mmd", "mcc"], [BASE, "mmd"]]
    assert told.steps == 25 * 5 + 50 * 3 + 100 * 2
    assert [each["method"] for each in told.tried] == [name for name, _ in trials.asked]


def test_a_candidate_that_refuses_is_out_and_it_is_said_why():
    trials = Told({BASE: says(off(0, 30)), "mmd": says(TRUE), "mcc": says(TRUE), "dann": "it needs more"})
    _, told = outcome(Auto(["mmd", "mcc", "dann"], ensemble=False), trials)
    assert {"method": "dann", "steps": 0, "refused": "it needs more"} in told.tried
    assert told.chosen == "mmd"


def test_domains_that_are_alike_need_no_further_trial():
    trials = Told({BASE: says(TRUE)}, Estimate(0.05, 0.0, 0.25))
    method, told = outcome(Auto(), trials)
    assert isinstance(method, SourceOnly) and trials.asked == [(BASE, 100)]
    assert told.why == "its features can't tell the domains apart: proxy A-distance 0.05 (0 to 0.25)"


def test_a_trial_is_the_same_from_the_cache():
    for trial in (Trial(says(TRUE), says(TRUE)[:7], APART, 0.5), Trial(says(TRUE), says(TRUE)[:7])):
        again = Trial.unpack(trial.pack())
        assert torch.equal(again.rows, trial.rows) and len(again.val) == 7
        assert (again.separation, again.estimated) == (trial.separation, trial.estimated)


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
    method, told = outcome(Auto([{"mmd": {"weight": 0.5}}, {"mmd": {"weight": 50}}], ensemble=False), trials)
    assert told.chosen == "mmd(weight=0.5)" and isinstance(method, MMD) and method.strength.weight == 0.5


FAST = ["dataset=blobs", "backbone=mlp", "pretrain=tiny", "train.steps=40", "method.candidates=[mmd,coral,mcc]"]


def test_moved_blobs_are_adapted_and_a_second_run_makes_no_trial_again(tmp_path, monkeypatch):
    base = made(tmp_path, "method=source_only", *FAST[:4])
    first = made(tmp_path, "method=auto", *FAST)
    assert first.scores and base.scores and first.training.auto.chosen == ENSEMBLE
    assert first.evidence and first.evidence["calibrated_norm"] is None  # the source judges no student
    assert first.training.auto.steps == 4 * 40 and all(each["estimated"] for each in first.training.auto.tried)
    assert first.scores.selected["accuracy"] > base.scores.selected["accuracy"] + 0.05
    monkeypatch.setattr(auto_trials, "train", None)  # no trial can be trained any more
    again = made(tmp_path, "method=auto", "force=true", *FAST)
    assert again.scores == first.scores and again.training.auto == first.training.auto
    with pytest.raises(TypeError):
        made(tmp_path, "method=auto", "seed=1", *FAST)  # other data: the trials of another seed are none of these


def test_a_trial_is_what_the_run_itself_would_be(tmp_path):
    """The candidate is trained as in a run of its own, from the same start and on the same batches."""
    made(tmp_path, "method=auto", *FAST)
    kept = [load_file(file)["val"] for file in (tmp_path / "cache/trials").glob("*.safetensors")]
    short = made(tmp_path, "method=mmd", *FAST[:4], "select=last")
    assert short.evidence is not None
    assert short.evidence["information"] in [pytest.approx(information(predicted), abs=1e-6) for predicted in kept]


def test_without_a_shift_it_is_no_adaptation_at_once(tmp_path):
    record = made(tmp_path, "dataset=synthetic", "dataset.shift=none", "method=auto", *FAST[1:])
    assert record.training.auto.chosen == BASE and len(record.training.auto.tried) == 1
    assert "can't tell the domains apart" in record.training.auto.why


def test_where_no_adaptation_fails_the_best_of_the_others_is_taken():
    trials = Told({BASE: "the loss is not a finite number", "mmd": says(TRUE), "mcc": says(off(0, 9))})
    method, told = outcome(Auto(["mmd", "mcc"], ensemble=False), trials)
    assert isinstance(method, MMD) and "source_only did not complete its trial" in told.why


def test_where_all_candidates_fail_that_is_said():
    trials = Told({BASE: "no", "mmd": "never", "mcc": "nor this"})
    with pytest.raises(UserError, match="source_only: no; mmd: never; mcc: nor this"):
        next(choose_method(Auto(["mmd", "mcc"]), trials))
