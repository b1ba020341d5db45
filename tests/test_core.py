"""The nouns keep their promises."""

import pytest
import torch
from torch import nn

from tl_runner.core import Batch, Model, Resources, SourceModel
from tl_runner.domains import Answers, Domain, InMemory, Labelled, Labels, Pair
from tl_runner.errors import UserError
from tl_runner.methods import requirements
from tl_runner.methods.frozen_copy import FrozenCopy
from tl_runner.methods.sum import OncePerInput
from tl_runner.models.backbones import small
from tl_runner.models.frozen_features import FeatureModel
from tl_runner.rng import Rng
from tl_runner.tasks import Classification


def test_a_stream_that_was_not_drawn_names_needs():
    batch = Batch(source=Labelled(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)))
    with pytest.raises(LookupError, match="add 'target' to the method's `needs`"):
        _ = batch.target
    with pytest.raises(LookupError, match="grants no target labels"):
        _ = batch.granted


def test_a_batch_knows_what_was_left_unread_and_lists_inputs_in_order():
    labelled = Labelled(torch.ones(2, 1), torch.zeros(2, dtype=torch.long))
    batch = Batch(source=labelled, target=2 * torch.ones(3, 1), granted=Labelled(3 * torch.ones(1, 1), labelled.y[:1]))
    assert batch.unread == {"source", "target", "granted"}
    _ = batch.source
    assert batch.unread == {"target", "granted"}
    assert [x[0].item() for x in batch.inputs] == [1.0, 2.0, 3.0]
    assert not batch.unread
    assert list(batch.labelled) == ["source", "granted"]
    assert len(batch) == 6


def test_answers_are_opened_once():
    answers = Answers(torch.arange(3))
    assert answers.open().tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="opened before"):
        answers.open()


def test_the_target_of_a_pair_has_no_labels_to_leak():
    split = InMemory(torch.zeros(4, 2))
    labels = Labels(*[torch.zeros(4, dtype=torch.long)] * 3)
    source = Domain("s", Classification(("a", "b")), split, split, split, labels)
    pair = Pair(source, Domain("t", Classification(("a", "b")), split, split, split))
    assert pair.target.labels is None
    assert pair.shape == (2,)


def model(batchnorm: str) -> Model:
    with Rng(0).child("model").as_default():
        backbone, width = small((1, 8, 8), width=6, channels=2)
        return Model(backbone, width, ("a", "b", "c"), batchnorm)


@pytest.mark.parametrize("batchnorm", ["joint", "per_domain"])
def test_features_are_split_by_domain_and_equal_single_passes_in_evaluation(batchnorm):
    net = model(batchnorm).eval()
    a, b = torch.rand(5, 1, 8, 8), torch.rand(3, 1, 8, 8)
    together = net.features(a, b)
    assert [f.shape for f in together] == [(5, 6), (3, 6)]
    for x, f in zip((a, b), together, strict=True):
        torch.testing.assert_close(f, net.features(x)[0])
        torch.testing.assert_close(net(x), net.head(f))


def test_batchnorm_sees_the_joint_batch_or_each_domain():
    a, b = torch.rand(32, 1, 8, 8), torch.rand(32, 1, 8, 8) * 0.1
    joint, apart = model("joint").train(), model("per_domain").train()
    alone = model("joint").train()
    torch.testing.assert_close(apart.features(a, b)[0], alone.features(a)[0])
    assert not torch.allclose(joint.features(a, b)[0], model("joint").train().features(a)[0], atol=1e-3)
    assert joint.stages == ("pixels", "conv1", "conv2", "hidden")
    assert isinstance(joint.head, nn.Linear)


@pytest.mark.parametrize("batchnorm", ["joint", "per_domain"])
@pytest.mark.parametrize("once", [False, True])
def test_maps_are_what_the_stages_make_of_each_domain(batchnorm, once):
    backbone, width = small((1, 8, 8), width=6, channels=2)
    model = Model(backbone, width, ("a", "b"), batchnorm).eval()
    xs = torch.rand(3, 1, 8, 8), torch.rand(5, 1, 8, 8)
    model = OncePerInput(model) if once else model
    found = model.maps(*xs, at=["conv1"])
    again = model.maps(*xs, at=["conv2"])
    features = model.features(*xs)
    assert found.keys() == {"conv1", "hidden"} and again.keys() == {"conv2", "hidden"}
    for x, conv1, conv2, last, plain in zip(xs, found["conv1"], again["conv2"], again["hidden"], features, strict=True):
        torch.testing.assert_close(conv1, backbone[:2](x))
        torch.testing.assert_close(conv2, backbone[:3](x))
        torch.testing.assert_close(last, backbone(x))
        torch.testing.assert_close(plain, backbone(x))
    assert (again["hidden"][0] is features[0]) == once
    with pytest.raises(UserError, match="no stage 'conv3' – did you mean"):
        model.maps(*xs, at=["conv3"])


def test_maps_of_features_that_are_computed_once_are_refused():
    backbone, width = small((1, 8, 8), width=6, channels=2)
    model = FeatureModel(Model(backbone, width, ("a", "b")))
    x = torch.rand(3, 6)
    assert model.maps(x)["hidden"] == (x,)
    with pytest.raises(UserError, match="no maps of conv1"):
        model.maps(x, at=["conv1"])


def test_the_source_head_is_a_copy():
    with pytest.raises(UserError, match="no source model"):
        requirements.source_head(Resources(Rng(0)))
    head = nn.Linear(4, 3)
    copy = requirements.source_head(Resources(Rng(0), SourceModel(head, ("a", "b", "c"))))
    assert isinstance(copy, nn.Linear) and copy.out_features == 3 and copy is not head


def test_a_part_of_a_batch_shares_what_was_read():
    labelled = Labelled(torch.ones(2, 1), torch.zeros(2, dtype=torch.long))
    batch = Batch(source=labelled, target=torch.ones(3, 1), rows={"target": torch.arange(3)})
    part = batch.only({"target", "granted"})
    assert len(part) == 3 and part.labelled == {} and batch.unread == {"source", "target"}
    _ = part.target
    assert batch.unread == {"source"} and part.rows["target"].tolist() == [0, 1, 2]


def test_what_is_fixed_stays_as_it_was():
    norm = nn.BatchNorm1d(2)
    fixed = FrozenCopy(norm)
    nn.Sequential(fixed).train()
    fixed.net(5 + torch.randn(8, 2))
    norm.weight.data.fill_(7)
    assert not fixed.net.training and fixed.net.weight.tolist() == [1, 1]
    assert fixed.net.running_mean is not None and fixed.net.running_mean.tolist() == [0, 0]
