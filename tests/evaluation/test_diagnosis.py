"""The diagnosis of a run: its numbers against cases with known answers, and what it leaves in a run's folder."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QUICK, composed, made
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from support.permuted import bytes_under

from tl_runner.domains import InMemory
from tl_runner.engine.job import find_skippable
from tl_runner.evaluation.diagnosis import accuracies, joint_error, label_shift, warn_of_shares
from tl_runner.evaluation.figure_data import SIDE, components, thumbnails
from tl_runner.functional.divergence import FOLDS, SEED
from tl_runner.functional.logistic import choose_class, fit_logistic, split_folds
from tl_runner.storage.record import describe_run
from tl_runner.storage.sections import ClassShares

RNG = np.random.default_rng(0)


def test_accuracies_by_class():
    predicted = torch.eye(3)[[0, 0, 1, 1]]
    assert accuracies(predicted, torch.tensor([0, 1, 1, 1])) == [1.0, pytest.approx(2 / 3), None]


@pytest.mark.parametrize("target", [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
def test_label_shift_come_back_from_a_classifier_that_errs(target):
    """Black-box shift estimation: the same confusion on both sides, other shares; 20,000 rows make ±0.01."""
    confusion = np.array([[0.8, 0.1, 0.2], [0.1, 0.7, 0.1], [0.1, 0.2, 0.7]])  # column y: P(ŷ | y)

    def rows(shares) -> tuple[torch.Tensor, torch.Tensor]:
        y = RNG.choice(3, p=shares, size=20_000)
        said = np.array([RNG.choice(3, p=confusion[:, c]) for c in y])
        return torch.tensor(said), torch.tensor(y)

    source = [0.4, 0.3, 0.3]
    said, y = rows(source)
    found = label_shift(torch.eye(3)[rows(target)[0]], torch.eye(3)[said], y)
    assert found.low and found.high and all(a <= b <= c for a, b, c in zip(found.low, target, found.high, strict=True))
    assert found.estimated == pytest.approx(target, abs=0.03)
    assert found.source == pytest.approx(source, abs=0.02)
    assert found.shift == pytest.approx(0.5 * np.abs(np.subtract(source, target)).sum(), abs=0.03)


def test_a_class_that_is_never_said_has_no_estimate():
    found = label_shift(torch.eye(3)[[0, 0]], torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]))
    assert found.estimated == pytest.approx([1.0, 0.0, 0.0]) and found.shift == pytest.approx(0.5)


def test_a_run_warns_of_class_shares_that_differ_by_more_than_chance(caplog):
    far = ClassShares([0.5, 0.3, 0.2], [0.1, 0.3, 0.6], 0.4, [0.0, 0.2, 0.5], [0.2, 0.4, 0.7])
    warn_of_shares(far, ("ant", "bee", "fly"))
    assert "differ from the source's: 'ant' 50 % -> 10 %, 'fly' 20 % -> 60 % (estimated" in caplog.text
    caplog.clear()
    warn_of_shares(replace(far, low=[0.0] * 3, high=[1.0] * 3), ("ant", "bee", "fly"))  # it may be chance
    warn_of_shares(replace(far, shift=0.1), ("ant", "bee", "fly"))  # little
    assert not caplog.text


def test_the_joint_error_is_0_where_one_line_serves_both_and_1_where_the_labels_are_swapped():
    """Swapped labels on the same inputs: ε_s(h) + ε_t(h) = 1 for every h."""
    x = torch.tensor(RNG.normal(size=(300, 2))).float()
    y = (x[:, 0] > 0).long()
    far = x + torch.tensor([0.0, 8.0])
    served = joint_error(x, y, far, y)
    assert served is not None and served < 0.1
    assert joint_error(x, y, x, 1 - y) == pytest.approx(1.0, abs=0.15)  # held-out rows lean to the other side of 1
    assert joint_error(x[:3], y[:3], x, y) is None


def test_the_joint_error_counts_what_a_fit_of_the_other_folds_gets_wrong():
    """One fold at a time; class 3 has one row, which no fold can fit and hold out."""
    rng = np.random.default_rng(1)
    x, y = torch.tensor(rng.normal(size=(140, 5))).float(), torch.tensor(rng.integers(0, 3, 140))
    x[:, 0] += y
    y[7] = 3
    weights = torch.where(torch.arange(140) < 90, 140 / 180, 140 / 100).double()
    fold_of, wrong = torch.from_numpy(split_folds(140, FOLDS, SEED)), torch.zeros(140).double()
    for fold in range(FOLDS):
        fitted, held_out = fold_of != fold, fold_of == fold
        present, known = y[fitted].unique(return_inverse=True)
        found = fit_logistic(x[fitted], known, len(present), 0.1, weights[fitted])
        wrong[held_out] = (present[choose_class(found.logits(x[held_out]))] != y[held_out]).double()
    expected = float(wrong[:90].mean() + wrong[90:].mean())
    assert joint_error(x[:90], y[:90], x[90:], y[90:]) == pytest.approx(expected, abs=1e-12)


def test_both_domains_have_half_the_weight_however_many_rows_they_have():
    """Inputs that tell nothing; 30 % of 900 source rows and all of 100 target rows are of class 1.

    To say 1 costs .7 and 0, to say 0 costs .3 and 1: the first is the least sum, the second what most rows would have.
    """
    x = torch.tensor(RNG.normal(size=(1000, 1))).float()
    y = (torch.arange(1000) % 10 < 3) | (torch.arange(1000) >= 900)
    found = joint_error(x[:900], y[:900].long(), x[900:], y[900:].long())
    assert found == pytest.approx(0.7, abs=0.1)


def test_components_are_the_principal_ones_of_both_sides_together():
    source, target = (
        torch.tensor(RNG.normal(size=(30, 5))).float(),
        torch.tensor(RNG.normal(2, 3, size=(20, 5))).float(),
    )
    points = torch.cat(components(source, target))
    expected = PCA().fit_transform(torch.cat([source, target]).numpy())
    assert points.abs().numpy() == pytest.approx(np.abs(expected), abs=1e-4)
    assert torch.equal(torch.cat(components(source, target)), points)


def test_thumbnails_are_bytes_of_the_images():
    image = torch.rand(2, 3, 80, 40)
    small = thumbnails(InMemory(image), torch.tensor([1]))
    assert small.shape == (1, 3, SIDE, SIDE // 2) and small.dtype == torch.uint8
    as_is = thumbnails(InMemory((image[:, :, :8, :8] * 255).to(torch.uint8)), torch.tensor([0]))
    assert torch.equal(as_is[0], (image[0, :, :8, :8] * 255).to(torch.uint8))


def test_a_run_says_how_far_the_domains_were_and_are(tmp_path):
    record = made(tmp_path, "method=mmd", *QUICK)
    assert record.diagnosis is not None and record.evidence is not None and record.scores is not None
    assert record.diagnosis.before and record.diagnosis.after and record.diagnosis.histogram
    before, after = record.diagnosis.before.a_distance, record.diagnosis.after.a_distance
    assert before and after
    assert 0 <= before.low <= before.value <= before.high <= 2
    assert after.value == record.evidence["a_distance"]  # the same rows, the same checkpoint
    bound = record.diagnosis.bound
    assert bound and record.scores.source and bound.joint_error is not None
    assert bound.source_error == pytest.approx(1 - record.scores.source["accuracy"])
    assert bound.half_distance == after.value / 2 and 0 <= bound.joint_error <= 2
    assert sum(record.diagnosis.histogram) == pytest.approx(1)
    exhibits = load_file(record.folder / "diagnosis.safetensors")
    predicted = load_file(record.folder / "predictions.safetensors")[f"step_{record.scores.selected['step']}"]
    right = (predicted.argmax(-1) == exhibits["labels"]).double().mean().item()
    assert right == record.scores.selected["accuracy"]
    m = len(exhibits["target_predicted"])
    assert torch.equal(exhibits["target_predicted"].long(), predicted[:m].argmax(-1))
    assert exhibits["source_samples"].dtype == torch.uint8
    assert (record.folder / "diagnosis.safetensors").stat().st_size < 500_000


def test_full_adds_inputs_and_stages_and_none_leaves_all_out(tmp_path):
    full = made(tmp_path / "full", "method=source_only", "diagnose=full", *QUICK)
    assert full.diagnosis and full.diagnosis.inputs and full.diagnosis.inputs.a_distance and full.diagnosis.after
    assert full.diagnosis.inputs.a_distance.value > 0
    stages = full.diagnosis.stages
    assert stages and [*stages.before] == [*stages.after] and len(stages.after) > 2
    last = list(stages.after.values())[-1]
    assert last == full.diagnosis.after.a_distance  # the features are what the last stage makes
    none = made(tmp_path / "none", "method=source_only", "diagnose=none", *QUICK)
    assert none.diagnosis is None and not (none.folder / "diagnosis.safetensors").exists()
    assert none.scores == full.scores and none.id == full.id


def test_a_run_is_made_again_for_a_fuller_diagnosis_and_for_no_lesser_one(tmp_path):
    first = made(tmp_path, "method=source_only", "diagnose=none", *QUICK)
    again = made(tmp_path, "method=source_only", *QUICK)
    assert first.diagnosis is None and again.diagnosis is not None
    asked = describe_run(*composed("method=source_only", "diagnose=none", *QUICK, f"outputs={tmp_path}", "device=cpu"))
    kept = find_skippable(asked)
    assert kept is not None and kept.diagnosis == again.diagnosis
    asked.config["diagnose"]["level"] = "full"
    assert find_skippable(asked) is None


def test_weights_are_shown_at_their_extremes(tmp_path):
    record = made(tmp_path, "method=weighted", *QUICK)
    exhibits = load_file(record.folder / "diagnosis.safetensors")
    heavy, light = exhibits["heaviest_weights"], exhibits["lightest_weights"]
    assert (heavy.diff() <= 0).all() and (light.diff() >= 0).all() and heavy[-1] > light[-1]
    assert len(exhibits["heaviest"]) == len(heavy)


def test_the_diagnosis_opens_no_door_to_the_labels(tmp_path):
    """Permuted answers change the diagnosis, and no weight or prediction."""
    plain, _ = bytes_under("mmd", "honest", tmp_path, "basic")
    permuted, _ = bytes_under("mmd", "mislabelled", tmp_path, "basic")
    told = [json.loads(next((tmp_path / name).rglob("run.json")).read_text()) for name in ("honest", "mislabelled")]
    assert plain == permuted
    assert told[0]["diagnosis"]["after"] == told[1]["diagnosis"]["after"]
    assert told[0]["diagnosis"]["priors"] == told[1]["diagnosis"]["priors"]
    assert told[0]["diagnosis"]["bound"] != told[1]["diagnosis"]["bound"]
