"""The YAML files and the signatures say the same; a wrong configuration is refused in words."""

import inspect
from collections.abc import Sequence
from typing import Literal

import pytest
import yaml
from conftest import CONF, YAMLS, composed
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from tl_runner import config, option_names
from tl_runner.core import Method
from tl_runner.errors import UserError, check_range, nearest


def test_every_yaml_is_known_to_these_tests():
    """As Hydra lists them; a glob that finds too little can't pass for success."""
    with initialize_config_module("tl_runner.conf", version_base="1.3"):
        listed = GlobalHydra.instance().config_loader()
        groups = [group for group in listed.list_groups("") if group not in ("hydra", "experiment")]
        assert {f"{group}/{name}.yaml" for group in groups for name in listed.get_group_options(group)} == set(YAMLS)
    assert len(YAMLS) >= 47


OTHER_VALUES = {  # is their purpose
    *("train/tiny.yaml", "train/long.yaml", "pretrain/tiny.yaml", "pretrain/none.yaml"),
    *("diagnose/full.yaml", "diagnose/none.yaml"),
    *("train/transformer.yaml", "pretrain/transformer.yaml", "optimizer/transformer.yaml"),
}


EARLIER_NAMES = {"dataset/csv.yaml": "dataset/table.yaml"}


@pytest.mark.parametrize("path", sorted({*YAMLS} - {*EARLIER_NAMES}))
def test_a_yaml_says_what_its_target_says(path):
    text = (CONF / path).read_text()
    node = yaml.safe_load(text)
    assert text.startswith("# ") and text.splitlines()[0].endswith(".")
    target = config.locate(node.pop("_target_"), path)
    options = config.schema(target)
    assert list(node) == list(options)
    assert inspect.getdoc(target)
    checked = config.check_options(target, node, "")
    if path not in OTHER_VALUES:
        assert checked == {name: parameter.default for name, parameter in options.items()}


@pytest.mark.parametrize("path", EARLIER_NAMES)
def test_an_earlier_name_is_the_same_part(path):
    (group, earlier), (_, name) = (each.removesuffix(".yaml").split("/") for each in (path, EARLIER_NAMES[path]))
    assert composed(f"{group}={earlier}")[0] == composed(f"{group}={name}")[0]
    assert option_names.rename(group, earlier) == name and option_names.find_path(group, earlier)


def test_the_top_level_says_what_settings_says():
    content, _ = composed()
    assert content.keys() - set(config.GROUPS) == config.schema(config.Settings).keys()
    assert {key: content[key] for key in config.schema(config.Settings)} == vars(config.Settings())


@pytest.mark.parametrize("path", YAMLS)
def test_every_option_composes_and_builds(path):
    group, name = path.removesuffix(".yaml").split("/")
    parts = config.load_parts(composed(f"{group}={name}")[0])
    assert getattr(parts, group) is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+method.wieght=2", r"unknown key method.wieght – did you mean 'weight'\? \(possible: method.weight"),
        ("+train.step=1", r"unknown key train.step – did you mean 'steps'\?"),
        ("+sede=1", r"unknown key sede – did you mean 'seed'\?"),
        ("method.weight=abc", "method.weight takes a number, got 'abc'"),
        ("method.weight=null", "method.weight takes a number, got None"),
        ("method.weight=-1", r"method\.weight must be at least 0, got -1"),
        ("method.weight=nan", r"method\.weight must be at least 0, got nan"),
        ("method.weight=inf", r"method\.weight must be finite, got inf"),
        ("method.normalise=2", "method.normalise takes true or false, got 2"),
        ("method.schedule=null", "takes ramp, linear, constant or cosine, got None$"),
        ("train.steps=1.5", "train.steps takes a whole number, got 1.5"),
        ("train.steps=0", "steps must be at least 1"),
        ("train.compile=maybe", "train.compile takes true or false, got 'maybe'"),
        ("train.clip=some", "train.clip takes a number or null, got 'some'"),
        ("method.estimator=biasd", r"takes biased, unbiased, linear or rff, got 'biasd' – did you mean 'biased'\?"),
        ("seed=-1", "seed must be between 0"),
        ("seed=abc", "seed takes a whole number"),
        ("device=gpu", "device takes auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("threads=0", "threads must be between 1 and 1024"),
        ("method._target_=nowhere.Mine", "there is no module 'nowhere' here"),
        ("method._target_=tl_runner.methods.mmd.MDM", r"has no class or function 'MDM' – did you mean 'MMD'\?"),
        ("method._target_=corl", r"takes module.name or the name of an option, got 'corl' – did you mean 'coral'\?"),
        ("schedule.warmup=2", "warmup must be between 0 and 1"),
        ("select.collapse=2", "collapse must be between 0 and 1"),
        ("train.clip=0", r"train\.clip must be at least"),
        ("outputs=''", "outputs must name a folder"),
        ("method._target_=builtins.dict", "can't be read|is not a tl_runner.Method"),
        ("method._target_=tl_runner.models.backbones.mlp", "unknown key|is not a tl_runner.Method"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(override, message):
    with pytest.raises(UserError, match=message):
        config.load_parts(composed(override)[0])


def test_several_targets_are_several_runs():
    told = r"dataset.target takes text or null, .* Several targets are several runs: -m dataset.target=w.csv,e.csv\. A"
    with pytest.raises(UserError, match=told):
        config.convert_value(["w.csv", "e.csv"], str | None, "dataset.target")


def test_a_group_without_an_option_is_refused():
    content, _ = composed()
    with pytest.raises(UserError, match=r"method must name one of its options"):
        config.load_parts({**content, "method": None})


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        ("1e-3", float, 1e-3),
        (None, int | None, None),
        ("a", Literal["a", "b"], "a"),
        ([1, 2], Sequence[float], (1.0, 2.0)),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ("anything", object, "anything"),
        ("5", int | str, 5),
        ("10%", int | str, "10%"),
    ],
)
def test_values_become_what_the_annotation_says(value, hint, expected):
    result = config.convert_value(value, hint, "key")
    assert result == expected and type(result) is type(expected)


def test_a_bool_is_no_number():
    with pytest.raises(UserError):
        config.convert_value(True, int, "key")


def test_names_from_elsewhere_are_understood():
    options = ["mmd", "source_only", "finetune"]
    assert "'finetune'" in nearest("fine-tune", options)
    assert all("'mmd'" in nearest(name, options) for name in ("ddan", "DAN", "ddc"))
    assert "'source_only'" in nearest("erm", options)
    assert "'feature_extract' is its name here, but this version does not have it" in nearest("linear_probe", options)
    assert "'mmd'" in nearest("MMD", options)
    assert nearest("zzz", options) == ""


def test_a_range_includes_its_ends_and_no_nan():
    check_range(0, 1, a=0, b=1)
    with pytest.raises(UserError, match=r"b must be between 0 and 1, got 1\.1"):
        check_range(0, 1, a=0, b=1.1)
    with pytest.raises(UserError):
        check_range(0, a=float("nan"))


class NoMethod:
    """A class that builds, and is no method."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight


def test_a_target_that_is_no_method_is_refused():
    content, _ = composed()
    with pytest.raises(UserError, match=r"test_config\.NoMethod is not a tl_runner\.Method: it has no `needs`"):
        config.load_parts({**content, "method": {"_target_": "test_config.NoMethod", "weight": 1.0}})


class Unbegun(Method):
    def __init__(self, weight: float = 1.0):
        self.weight = weight


class Wishful(Method):
    start = "teacher"  # pyright: ignore[reportAssignmentType]

    def __init__(self, weight: float = 1.0):
        super().__init__()


class Mistaken(Method):
    source_labels = "kept"  # pyright: ignore

    def __init__(self, weight: float = 1.0):
        super().__init__()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mistaken", "source_labels is one of throughout, start, unused, got 'kept'"),
        ("Unbegun", r"must begin with super\(\).__init__\(\)"),
        ("Wishful", "start is one of backbone, .*, got 'teacher'"),
    ],
)
def test_a_method_that_breaks_its_contract_is_told_before_anything_is_read(name, message):
    content, _ = composed()
    with pytest.raises(UserError, match=f"{name}.*{message}"):
        config.load_parts({**content, "method": {"_target_": f"test_config.{name}", "weight": 1.0}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=feature_extract method.head=ncm method.k=9", "method.k=9 does nothing with method.head=ncm"),
        ("method=tca method.rows=9", "method.rows=9 does nothing with method.kernel=linear"),
        ("method=finetune method.freeze=head_only method.lr_decay=0.3", "method.lr_decay=0.3 does nothing with"),
        ("method=weighted method.mode=count method.bandwidth=2", "method.bandwidth=2.0 does nothing with method.mode"),
        ("method=lwf method.form=outputs method.temperature=3", "method.temperature=3.0 does nothing with method.form"),
        ("method=feature_extract method.head=knn method.k=9", ""),
        ("method=feature_extract method.head=ncm method.k=5", ""),
    ],
)
def test_an_option_that_does_nothing_beside_another_is_told(words, said, caplog):
    config.load_parts(composed(*words.split())[0])
    assert (said in caplog.text) if said else not caplog.text
