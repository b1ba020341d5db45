"""The articles' examples, as conf/experiment has them, against transcriptions by other libraries.

Each test composes an experiment's own words, so that a changed word fails it, and computes by hand what a run of these
words trains on. What needs hundreds of runs, the claims, is measured by scripts/bench_experiments.py.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import CONF, composed, made
from safetensors.torch import load_file
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from support.cifar import cifar_folder
from torchvision import models

from tl_runner import config, experiments
from tl_runner.config import Parts
from tl_runner.core import Batch, Method, Model, Resources, SourceModel, Stream
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Answers, Pair, Split
from tl_runner.models.features import gather_rows
from tl_runner.rng import Rng
from tl_runner.training.batches import draw_batch

CPU = torch.device("cpu")


def words_of(name: str, *telling: str) -> list[str]:
    """The words of an experiment's first line that has all of these, with the value named or the first of each key."""
    (found,) = experiments.find_experiments([f"experiment={name}"], [CONF])
    wanted = dict(word.split("=", 1) for word in telling)
    for line in found.lines:
        said = dict(word.split("=", 1) for word in line)
        values = {key: text if text.startswith("[") else text.split(",") for key, text in said.items()}
        if all(value in values.get(key, ()) for key, value in wanted.items()):
            return [f"{key}={wanted.get(key, of if isinstance(of, str) else of[0])}" for key, of in values.items()]
    raise LookupError(f"{name} has no line with {telling}")


class Ready(NamedTuple):
    parts: Parts
    pair: Pair
    answers: Answers
    model: Model

    @property
    def method(self) -> Method:
        assert isinstance(self.parts.method, Method)
        return self.parts.method

    def prepare(self) -> Pair:
        """As a run does, with the model as the source model."""
        head = SourceModel(self.model.head, self.pair.classes)
        return self.method.prepare(self.model, self.pair, Resources(Rng(0), head))[1]

    def draw(self) -> Batch:
        streams: set[Stream] = {*self.method.needs, "granted"} if self.pair.granted else {*self.method.needs}
        return draw_batch(self.pair, streams, 16, Rng(0), 0, self.parts.augment, CPU)


def ready(words: Sequence[str]) -> Ready:
    """What a run of these words begins with, at seed 0."""
    parts = config.load_parts(composed(*words)[0])
    pair, answers, _ = split_domains(parts.dataset(seed=0), 0, Budget.parse(str(parts.settings.granted)), CPU)
    with Rng(0).child("model").as_default():
        backbone, width = parts.backbone(pair.shape)
        return Ready(parts, pair, answers, Model(backbone, width, pair.classes))


SMALL = ["dataset.samples=300", "dataset.size=8"]


# logistic_make_classification


def test_two_domains_of_one_random_state_and_logistic_regression_as_scikit_learn_fits_it(tmp_path):
    """Both minimise the cross-entropy of one linear map; scikit-learn adds a ridge that 600 rows hardly feel.

    A test split has 200 rows; theirs may differ in the labels of three.
    """
    words = words_of("logistic_make_classification", "method=source_only", "granted=0")
    task = ready(words)
    x, y = make_classification(1000, n_features=20, n_informative=2, n_redundant=10, random_state=42)
    drawn = task.parts.dataset(seed=0)
    for side in (drawn.source, drawn.target):
        np.testing.assert_allclose(side.x.numpy(), x, rtol=1e-6)
        np.testing.assert_array_equal(side.y.numpy(), y)
    source, labels = task.pair.labelled_source
    fitted = LogisticRegression(max_iter=10_000).fit(gather_rows(source.train).numpy(), labels.train.numpy())
    expected = fitted.score(gather_rows(task.pair.target.test).numpy(), task.answers.open().numpy())
    carried = made(tmp_path, *words)
    tuned = made(tmp_path, *words_of("logistic_make_classification", "method=finetune", "granted=all"))
    assert carried.headline == pytest.approx(expected, abs=3.5 / 200)
    assert tuned.headline == pytest.approx(expected, abs=3.5 / 200)  # the domains are one: there is nothing to gain


# instance_weights


@pytest.mark.parametrize("mode", ["distance", "rbf", "inverse"])
def test_instance_weights_by_the_distance_to_the_nearest_target_row(mode):
    task = ready(words_of("instance_weights", f"method.mode={mode}", "method=weighted"))
    weights = task.prepare().weights
    source, _ = task.pair.labelled_source
    nearest = cdist(gather_rows(source.train).numpy(), gather_rows(task.pair.target.train).numpy()).min(1)
    expected = {
        "distance": nearest,
        "rbf": np.exp(-0.5 * (nearest / np.median(nearest)) ** 2),
        "inverse": 1 / (nearest + 0.1 * nearest.mean()),
    }[mode]
    assert weights is not None
    # Distances are in float32, by the Gram form, which loses digits of the smallest.
    np.testing.assert_allclose(weights.numpy(), expected / expected.mean(), rtol=5e-3, atol=2e-3)
    favours_far_rows = np.corrcoef(weights.numpy(), nearest)[0, 1] > 0
    assert favours_far_rows == (mode == "distance")


# mmd_regulariser, domain_similarity


def mmd2(source: np.ndarray, target: np.ndarray) -> float:
    """Mean of k within each domain minus twice that between them, k = Σ_s exp(−d²/(s·mean d²)), s = ¼, ½, 1, 2, 4."""
    joint = np.concatenate([source, target]).astype(np.float64)
    distances = squareform(pdist(joint, "sqeuclidean"))
    width = distances.sum() / (len(joint) * (len(joint) - 1))
    kernel = np.sum([np.exp(-distances / (scale * width)) for scale in (0.25, 0.5, 1, 2, 4)], axis=0)
    n = len(source)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def features_of(task: Ready, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    task.model.eval()
    with torch.no_grad():
        found = task.model.encode(batch)
    return found.source.numpy(), found.target.numpy()


@pytest.mark.parametrize(("squared", "weight"), [("true", "0.1"), ("false", "1")])
def test_the_task_s_loss_and_lambda_times_mmd_with_a_constant_lambda(squared, weight):
    words = words_of("mmd_regulariser", f"method.squared={squared}", f"method.weight={weight}", "method=mmd")
    task = ready([*words, *SMALL])
    batch = task.draw()
    source, target = features_of(task, batch)
    task.model.eval()
    expected = float(weight) * (mmd2(source, target) if squared == "true" else mmd2(source, target) ** 0.5)
    for progress in (0.0, 0.5, 1.0):
        assert task.method.terms(task.model, batch, progress)["mmd"].item() == pytest.approx(expected, rel=1e-4)


DISTANCES = {
    "mmd": mmd2,
    "coral": lambda s, t: np.square(np.cov(s.T) - np.cov(t.T)).sum() / (4 * s.shape[1] ** 2),
    "cosine": lambda s, t: 1 - s.mean(0) @ t.mean(0) / np.linalg.norm(s.mean(0)) / np.linalg.norm(t.mean(0)),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_task_s_loss_and_lambda_times_a_distance_of_the_domains(distance):
    words = words_of("domain_similarity", f"method.distance={distance}", "method=similarity")
    task = ready([*words, *SMALL])
    batch = task.draw()
    source, target = features_of(task, batch)
    weight = float(dict(word.split("=", 1) for word in words)["method.weight"])
    found = task.method.terms(task.model, batch, 1.0)
    (term,) = found.keys() - {"source"}
    assert found[term].item() == pytest.approx(weight * DISTANCES[distance](source, target), rel=1e-3)


# l2_to_source


def moved(model: Model) -> Mapping[str, torch.Tensor]:
    """What the parameters were, before each moves a little."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=Rng(1).generator()), alpha=0.01)
    return before


def test_l2_to_the_source_s_parameters():
    words = words_of("l2_to_source", "method=l2sp", "method.weight_backbone=1")
    task = ready([*words, *SMALL])
    task.prepare()
    before = moved(task.model)
    backbone = [name for name in before if name.startswith("backbone.")]
    now = dict(task.model.named_parameters())
    expected = sum(float(np.square(now[name].detach().numpy() - before[name].numpy()).sum()) for name in backbone)
    found = task.method.terms(task.model, task.draw(), 0.5)
    assert found["l2sp"].item() == pytest.approx(0.5 * expected, rel=1e-4)
    assert found["l2_head"].item() == 0  # the head is free


def test_l2_to_the_source_s_outputs():
    words = words_of("l2_to_source", "method=lwf", "method.weight=0.1")
    task = ready([*words, *SMALL])
    task.prepare()
    batch = task.draw()
    task.model.eval()
    with torch.no_grad():
        before = task.model(batch.granted.x).numpy()
    head = {name: parameter.detach().clone() for name, parameter in task.model.head.named_parameters()}
    moved(task.model)
    task.model.head.load_state_dict(head)  # the source's head is a copy, which did not move
    with torch.no_grad():
        now = task.model(batch.granted.x).numpy()
    task.method.eval()
    found = task.method.terms(task.model, batch, 0.5)["lwf"].item()
    assert found == pytest.approx(0.1 * np.square(now - before).sum(1).mean(), rel=1e-3)


# resnet18_cifar10, resnet18_features


@pytest.fixture
def published(tmp_path: Path) -> list[str]:
    """Images in CIFAR-10's own format, weights of a ResNet-18 in a file, and so few steps that a CPU makes them."""
    cifar_folder(tmp_path / "cifar", n=20)
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    files = [f"dataset.root={tmp_path / 'cifar'}", f"backbone.weights={tmp_path / 'resnet18.pth'}"]
    return [*files, "dataset.verify=false", "dataset.size=32", "train.steps=2"]


def test_resnet18_on_cifar10_is_set_as_the_article_has_it():
    config_of, _ = composed(*words_of("resnet18_cifar10", "method=finetune"))
    assert config_of["dataset"]["size"] == 224 and config_of["backbone"]["weights"] == "imagenet"
    assert config_of["backbone"]["normalise"] == "half"  # (x − 0.5) / 0.5
    assert config_of["granted"] == "all" and config_of["augment"]["_target_"].endswith("none")
    rates = {key: config_of["optimizer"][key] for key in ("lr", "momentum", "nesterov", "weight_decay", "lr_backbone")}
    assert rates == {"lr": 0.001, "momentum": 0.9, "nesterov": False, "weight_decay": 0, "lr_backbone": 1}
    train = config_of["train"]
    assert train["batch"] == 32 and train["clip"] is None and config_of["schedule"]["_target_"].endswith("constant")
    assert train["steps"] == 10 * ceil(50_000 * 0.8 * 0.8 / 32)  # a fifth for validation, a fifth of labels held out


def test_resnet18_is_fine_tuned_with_a_new_head_of_ten_classes(published, tmp_path):
    words = words_of("resnet18_cifar10", "method=finetune")
    record = made(tmp_path, *words, *published)
    assert record.status == "ok" and record.data.rows["target"][2] == 20 and len(record.data.classes) == 10


@pytest.mark.parametrize("head", ["linear", "svm", "logistic"])
def test_a_head_on_resnet18_s_features(published, head, tmp_path):
    """The network's weights are random here, and so are its answers: those of the head are compared row by row."""
    words = [*words_of("resnet18_features", f"method.head={head}", "method=feature_extract"), *published]
    record = made(tmp_path, *words)
    assert record.status == "ok" and record.scores
    if head == "linear":  # which the loop trains
        return
    task = ready(words)
    x, test = (features(task.model, split) for split in (task.pair.labels_granted[0], task.pair.target.test))
    centre, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    fitted = LinearSVC(max_iter=100_000) if head == "svm" else LogisticRegression(max_iter=10_000)
    fitted.fit((x - centre) / spread, task.pair.labels_granted[1].numpy())
    stored = load_file(record.folder / "predictions.safetensors")[f"step_{record.scores.selected['step']}"].argmax(-1)
    assert x.shape[1] == 512
    assert np.mean(fitted.predict((test - centre) / spread) == stored.numpy()) >= 0.9


def features(model: Model, split: Split) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return model.backbone(split.take(torch.arange(len(split)))).numpy()


# covariate_shift


def test_under_the_covariate_shift_a_row_s_label_does_not_depend_on_its_domain():
    """One pool is divided by x alone; re-weighted by any estimate, the source's mean is nearer to the target's."""
    for method in ("weighted", "density_ratio", "kmm", "ulsif"):
        task = ready(words_of("covariate_shift", f"method={method}"))
        weights = task.prepare().weights
        assert weights is not None
        source, target = (
            gather_rows(side).double() for side in (task.pair.labelled_source[0].train, task.pair.target.train)
        )
        plain = (source.mean(0) - target.mean(0)).norm()
        weighed = ((weights.double()[:, None] * source).mean(0) - target.mean(0)).norm()
        assert weighed < 0.8 * plain


# semi_supervised


@pytest.mark.parametrize(("granted", "rows"), [("0", 0), ("1", 10), ("5", 50), ("10%", None), ("all", None)])
def test_one_knob_from_unsupervised_to_supervised(granted, rows):
    task = ready([*words_of("semi_supervised", f"granted={granted}", "method=mmd"), "dataset.size=8"])
    train = len(task.pair.target.train)
    expected = {"10%": 0.1 * train, "all": train}.get(granted, rows)
    parts = [part for part in (task.pair.granted, task.pair.held_out) if part]  # one in five is held out, to select by
    found = sum(len(part.y) for part in parts)
    assert found == pytest.approx(expected, abs=5 if "%" in granted else 0)  # a share is rounded for each class


# bound_terms


def test_the_terms_of_the_bound_in_a_run(tmp_path):
    words = words_of("bound_terms", "method=source_only", "dataset.strength=2")
    record = made(tmp_path, *words, "train.steps=100")
    bound = record.diagnosis and record.diagnosis.bound
    assert bound and record.scores and record.scores.source and record.headline is not None
    assert bound.source_error == pytest.approx(1 - record.scores.source["accuracy"])
    # A linear classifier separates the domains.
    assert bound.half_distance is not None and 0.5 < bound.half_distance <= 1
    assert bound.joint_error is not None
    assert 1 - record.headline <= bound.source_error + bound.half_distance + bound.joint_error


# negative_transfer


@pytest.mark.parametrize("share", ["0.2", "0.4"])
def test_label_noise_is_that_share_of_the_source_s_labels_alone(share):
    words = words_of("negative_transfer", f"dataset.label_noise={share}", "method=finetune")
    noisy = ready(words).parts.dataset(seed=0)
    clean = ready([word for word in words if "label_noise" not in word]).parts.dataset(seed=0)
    assert torch.equal(noisy.source.x, clean.source.x) and torch.equal(noisy.target.y, clean.target.y)
    assert (noisy.source.y != clean.source.y).double().mean().item() == pytest.approx(float(share))


def test_a_concept_shift_changes_that_share_of_the_target_s_labels():
    words = words_of("negative_transfer", "dataset.strength=0.4", "method=finetune")
    shifted = ready(words).parts.dataset(seed=0)
    plain = ready([*(w for w in words if "dataset.s" not in w), "dataset.shift=none"]).parts.dataset(seed=0)
    assert torch.equal(shifted.target.x, plain.target.x)
    assert (shifted.target.y != plain.target.y).double().mean().item() == pytest.approx(0.4, abs=0.002)
