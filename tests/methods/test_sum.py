"""Several methods as one: their terms, no more and no less, on features that are computed once."""

import pytest
import torch
from conftest import QUICK, made
from support.tasks import batch_of, images, prepare

from tl_runner.core import Batch, Model
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.domains import Labelled
from tl_runner.errors import UserError
from tl_runner.methods.coral import CORAL
from tl_runner.methods.mmd import MMD
from tl_runner.methods.sum import Sum
from tl_runner.models.backbones import small
from tl_runner.models.learning_rates import with_rates
from tl_runner.training.loop import begin_phase


def ready(*parts, granted: str = "0"):
    pair, model = images(granted)
    method = Sum(parts)
    model, pair = prepare(method, model, pair)
    begin_phase(method.phases(model)[0], model, method)
    return pair, model, method


@pytest.mark.parametrize("granted", ["0", "5"])
def test_the_terms_are_those_of_the_parts_and_the_supervised_ones_count_once(granted):
    pair, model, method = ready("mmd", {"coral": {"weight": 3.0}}, granted=granted)
    batch = batch_of(method, pair)
    terms = method.terms(model, batch, 0.5)
    alone = {**MMD().terms(model, batch, 0.5), **CORAL(weight=3.0).terms(model, batch, 0.5)}
    assert terms.keys() == alone.keys() == {"source", "mmd", "coral", *(["granted"] if granted != "0" else [])}
    for name, value in alone.items():
        torch.testing.assert_close(terms[name], value)


def test_the_backbone_sees_a_batch_once():
    pair, model, method = ready("mmd", "coral", "dann")
    seen = []
    model.backbone[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    method.terms(model, batch_of(method, pair), 0.5)
    assert seen == [32]
    method.terms(model, batch_of(method, pair), 0.5)
    assert seen == [32, 32]  # and the next batch anew
    x = batch_of(method, pair).source.x
    for _ in range(2):
        model.features(x)
    assert seen == [32, 32, 16, 16]  # nothing is remembered outside


@pytest.mark.parametrize(("batchnorm", "passes"), [("per_domain", [4, 4, 8, 16]), ("joint", [32])])
def test_the_backbone_sees_a_batch_of_several_sources_once(batchnorm, passes):
    """By itself, however many parts ask: each of three domains' rows, and the target's."""
    drawn = digits(0, source=("sans", "serif", "mono"), samples=60, size=8)
    pair, _, _ = split_domains(drawn, 0, Budget.parse("0"), torch.device("cpu"))
    backbone, width = small(pair.shape, width=8, channels=4)
    model, method = Model(backbone, width, pair.classes, batchnorm=batchnorm), Sum(["mmd", "coral", "source_only"])
    model, pair = prepare(method, model, pair)
    seen = []
    model.backbone[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    blocks = (4, 4, 8)
    x, y = pair.labelled_source[0].train.take(torch.arange(16)), pair.labelled_source[1].train[:16]
    domain = torch.repeat_interleave(torch.tensor(blocks))
    batch = Batch(Labelled(x, y), pair.target.train.take(torch.arange(16)), domain=domain, blocks=blocks)
    method.terms(model, batch, 0.5)
    assert seen == passes


def test_parts_with_other_streams_get_their_own():
    """`source_only` reads no target rows, `mmd` does; both are content with one batch, and one pass."""
    pair, model, method = ready("source_only", "mmd")
    batch = batch_of(method, pair)
    assert method.terms(model, batch, 0.5).keys() == {"source", "mmd"} and not batch.unread


def test_every_parameter_is_in_one_group_at_its_rate():
    _, model, method = ready("mmd", {"dann": {"lr_critic": 0.5}})
    groups = with_rates(method.phases(model)[0].groups, model)
    listed = [parameter for group in groups for parameter in group.parameters]
    assert len(listed) == len({*listed}) == len([*model.parameters(), *method.parameters()])
    assert {group.lr for group in groups} == {1.0, 0.5}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["mmd"], "two different methods or more"),
        (["mmd", "mmd"], "two different methods or more"),
        (["mmd", "feature_extract"], "FeatureExtract can't be part of a sum"),
        (["mmd", "target_only"], "TargetOnly can't be part of a sum"),
        (["mmd", "corral"], r"parts\[1\] takes the name of a method.*did you mean 'coral'"),
        (["mmd", {"coral": {"wieght": 1}}], r"unknown key method.parts\[1\]\.wieght – did you mean 'weight'"),
        (["mmd", {"coral": 3}], r"parts\[1\] takes the name of a method"),
        (["mmd", {"coral": {}, "mcc": {}}], r"parts\[1\] takes the name of a method"),
    ],
)
def test_parts_that_cannot_be_are_refused_in_words(parts, message):
    with pytest.raises(UserError, match=message):
        Sum(parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["l2sp", {"finetune": {"lr_decay": 0.5}}], r"Finetune trains the backbone at another rate.*\(lr_decay\)"),
        (["mmd", {"finetune": {"lp_ft": True}}], "Finetune is not a sum of terms"),
        (["weighted", "density_ratio"], "two of them weigh the source's rows"),
    ],
)
def test_parts_that_do_not_add_up_are_refused_in_words(parts, message):
    with pytest.raises(UserError, match=message):
        ready(*parts, granted="5")


def test_a_sum_serves_the_tasks_that_all_of_its_parts_serve():
    assert Sum(["co_tuning", "bss"]).source_labels == "unused" and Sum(["mmd", "mcc"]).source_labels == "throughout"


def test_what_counts_once_is_said(caplog):
    pair, model, method = ready("mmd", "coral")
    method.each()[1].terms = lambda model, batch, progress: {"mmd": batch.source.x.sum() + batch.target.sum()}  # pyright: ignore
    method.terms(model, batch_of(method, pair), 0.5)
    terms = method.terms(model, batch_of(method, pair), 0.5)
    assert terms.keys() == {"source", "mmd"} and caplog.text.count("another part's too, and counts once") == 1


def test_it_runs_from_the_command_line_and_names_its_parts_in_the_record(tmp_path):
    record = made(tmp_path, "method=sum", "method.parts=[mmd,{coral:{weight:2}}]", *QUICK)
    assert record.status == "ok" and record.config["method"]["parts"] == ["mmd", {"coral": {"weight": 2}}]
