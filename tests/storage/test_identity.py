"""Who a run is: names and values, so that code may move; ten commands whose ids are pinned."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import composed

from tl_runner import config, option_names, options
from tl_runner.engine.recorder import Recording
from tl_runner.errors import UserError
from tl_runner.methods.mmd import MMD
from tl_runner.option_names import find_path, list_names, name_methods, name_part, name_parts
from tl_runner.storage.identity import drop_later_keys, identify
from tl_runner.storage.record import SCHEMA, describe_run, read_record

MOVED = "tl_runner.methods.moved.Renamed"
GOLDEN = {
    "": "240491158c",
    "method=source_only backbone=linear": "0d0dfedf11",
    "method=coral dataset=blobs backbone=mlp seed=3": "6c13758977",
    "method=sum method.parts=[mcc,{bsp:{weight:0.001}}]": "6dceffb9cb",
    "method=auto dataset=synthetic backbone=mlp": "6bbf03fe0b",
    "method=finetune granted=10 optimizer=sgd schedule=constant": "2f31d4b0f8",
    "method=dann train=tiny pretrain=tiny select=last": "5a8585e431",
    "method=fixmatch augment=weak dataset.shift=fog dataset.severity=3": "62f9529834",
    "backbone=resnet18 backbone.stem=imagenet dataset=cifar10_split train.steps=1000": "c54be8b06f",
    "dataset=csv dataset.source=a.csv dataset.target=b.csv backbone=mlp method=kmm": "4ddc6535d2",
}


def identity(words: str) -> str:
    return describe_run(*composed(*words.split())).id


@pytest.fixture
def mmd_has_moved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As after a move of the file and another name of the class: the option says another path."""
    moved = [
        each._replace(text=each.text.replace("tl_runner.methods.mmd.MMD", MOVED)) if each.name == "mmd" else each
        for each in options.list_options([options.conf()])
    ]
    monkeypatch.setattr(options, "list_options", lambda folders: moved)
    for known in (option_names._options, option_names._names, option_names._values):
        known.cache_clear()
        monkeypatch.setattr(option_names, known.__name__, known)
    yield
    for known in (option_names._options, option_names._names, option_names._values):
        known.cache_clear()


@pytest.mark.parametrize("words", GOLDEN)
def test_the_ids_of_ten_commands_are_these(words, tmp_path, monkeypatch):
    """A change here orphans every stored run: make it on purpose, and say it in the CHANGELOG."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"x,label\n1,{name}\n2,other\n")
    assert identity(words) == GOLDEN[words]


def test_keys_that_came_later_are_in_the_id_only_where_they_are_used():
    used = ["shares=bbse", "pretrain.transfer=none", "pretrain.transfer=upto:conv1", "method.squared=false"]
    assert identity("shares=none pretrain.transfer=all method.squared=true") == identity("") == GOLDEN[""]
    assert len({identity(word) for word in ("", *used)}) == 5
    content, choices = composed("pretrain=tiny")
    earlier = {**content, "pretrain": {key: value for key, value in content["pretrain"].items() if key != "transfer"}}
    assert describe_run(earlier, choices).id == describe_run(content, choices).id


def test_a_stem_that_is_chosen_is_not_the_one_that_was_the_default():
    said = [identity(f"backbone=resnet18 backbone.stem={stem}") for stem in ("auto", "imagenet", "cifar")]
    assert len({*said}) == 3 and said[0] == identity("backbone=resnet18")


def test_a_table_is_the_same_run_by_either_name_and_by_words_and_signs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"x,label\n1,{name}\n2,other\n")
    ((words, golden),) = ((words, known) for words, known in GOLDEN.items() if "dataset=csv" in words)
    table = words.replace("dataset=csv", "dataset=table")
    same = ["separator=auto", "separator=comma", "separator=','", "decimal=point", "decimal='.'", "encoding=auto"]
    assert {identity(table), *(identity(f"{table} dataset.{word}") for word in same)} == {golden}
    others = ["separator=tab", "decimal=comma", "thousands=comma", "dates=[x]", "split=x", "group=x", "time=x"]
    found = [identity(f"{table} dataset.{word}") for word in (*others, "encoding=latin-1")]
    assert len({golden, *found}) == 9
    for one, other in (("separator=';'", "separator=semicolon"), ("decimal=','", "decimal=comma")):
        assert identity(f"{table} dataset.{one}") == identity(f"{table} dataset.{other}")


def test_a_run_of_an_earlier_name_is_found_and_is_called_by_the_present_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, choices = composed("dataset=csv", "backbone=mlp", "method=kmm")
    record = describe_run(content, choices)
    assert record.choices["dataset"] == record.config["dataset"]["_target_"] == "table"
    assert record.folder.parent.name == "table"
    earlier = record.folder.parent.with_name("csv") / record.folder.name
    earlier.mkdir(parents=True)
    assert record.folder == earlier
    stored = {**vars(record), "choices": {**record.choices, "dataset": "csv"}, "found": None}
    stored["config"] = {**record.config, "dataset": {**record.config["dataset"], "_target_": "csv"}}
    (earlier / "run.json").write_text(json.dumps(stored, default=vars))
    found = read_record(earlier / "run.json")
    assert found.choices["dataset"] == found.config["dataset"]["_target_"] == "table" and found.id == record.id


def test_files_of_a_pattern_or_a_folder_count_by_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    for name in ("d/a-1.csv", "d/a-2.csv", "b.csv"):
        Path(name).write_text(f"x,label\n1,{name}\n2,other\n")

    def of(source: str) -> str:
        return identity(f"dataset=table dataset.source={source} dataset.target=b.csv backbone=mlp method=kmm")

    first = {source: of(source) for source in ("d", "d/a-*.csv", "d/a-1.csv")}
    assert len({*first.values()}) == 3 and of("d/") == first["d"]
    Path("d/README.md").write_text("no table")
    assert {source: of(source) for source in first} == first
    Path("d/a-2.csv").write_text("x,label\n5,a\n2,other\n")
    assert [source for source in first if of(source) != first[source]] == ["d", "d/a-*.csv"]


FITTED = {  # as they were where head=logistic was the default
    "method=feature_extract": "3f63578450",
    "method=coral_linear backbone=mlp": "aa392d7b5c",
    "method=sa": "27292c3d46",
    "method=tca method.kernel=rbf": "875744fe2e",
    "method=ot_map": "0b9ed6a57c",
    "method=auto method.candidates=[coral_linear,mcc]": "6cd55ad1f8",
}


@pytest.mark.parametrize("words", FITTED)
def test_a_head_chosen_by_the_task_counts_as_the_one_that_classes_had(words):
    assert identity(words) == FITTED[words]
    if "auto" not in words:
        said = [describe_run(*composed(*words.split(), f"method.head={head}")) for head in ("auto", "logistic", "svm")]
        assert said[0].id == said[1].id == FITTED[words] != said[2].id
        assert said[0].setting == said[1].setting != said[2].setting


def test_a_users_own_head_stays_what_it_says():
    own = {"method": {"_target_": "mine.Method", "head": "auto"}}
    assert drop_later_keys(own) == own
    held = {"method": {"_target_": "sum", "parts": [own["method"], "mcc"]}}
    other = {"method": {"_target_": "sum", "parts": [{**own["method"], "head": "logistic"}, "mcc"]}}
    assert identify(held) != identify(other)


def test_a_path_and_a_name_are_one_part():
    by_path, choices = composed("method=mmd")
    by_name = {**by_path, "method": {**by_path["method"], "_target_": "mmd"}}
    assert by_path["method"]["_target_"] == "tl_runner.methods.mmd.MMD"
    assert describe_run(by_path, choices).id == describe_run(by_name, choices).id == identify_again(by_path, choices)
    assert describe_run(by_path, choices).config["method"]["_target_"] == "mmd"
    assert isinstance(config.load_parts(by_name).method, MMD)


def identify_again(content: dict[str, Any], choices: dict[str, str]) -> str:
    """The id of the configuration that a record holds, as a rerun computes it."""
    return describe_run(describe_run(content, choices).config, choices).id


def test_a_class_that_moves_keeps_the_ids_of_its_runs(request):
    before = [identity(words) for words in ("method=mmd", "method=auto", "method=sum method.parts=[mmd,bsp]")]
    request.getfixturevalue("mmd_has_moved")
    assert find_path("method", "mmd") == MOVED
    content, choices = composed("method=mmd")
    moved = {**content, "method": {**content["method"], "_target_": MOVED}}
    after = [describe_run(moved, choices).id]
    after += [identity(words) for words in ("method=auto", "method=sum method.parts=[mmd,bsp]")]
    assert before == after


def test_values_are_complete():
    """A key that was left out counts with its default: were that to change, so would the id."""
    content, choices = composed("method=mmd")
    short = {**content, "method": {"_target_": "tl_runner.methods.mmd.MMD", "weight": 2}}
    assert describe_run(short, choices).id == describe_run(content, choices).id
    assert name_part("train", {"_target_": "tl_runner.training.loop.Train"}) == name_parts(composed()[0])["train"]


def test_held_methods_are_complete_too(monkeypatch):
    held = name_methods({"_target_": "sum", "parts": ["mcc", {"bsp": {"weight": 1}}, {"_target_": "own.Part"}, 3]})
    assert held["parts"][0] == name_part("method", {"_target_": "mcc"})
    assert held["parts"][1]["weight"] == 1 and {"schedule", "_target_"} < held["parts"][1].keys()
    assert held["parts"][2:] == [{"_target_": "own.Part"}, 3]
    said = [["mcc", "bsp"], [{"mcc": {}}, {"bsp": {}}], [{"mcc": {"weight": 1.0}}, {"_target_": "bsp"}]]
    ids = {identify({"method": {"_target_": "sum", "parts": parts}}) for parts in said}
    assert len(ids) == 1 and identify({"method": {"_target_": "sum", "parts": ["mcc", "bnm"]}}) not in ids


def test_options_that_share_a_class_are_told_apart_by_their_values_alone():
    assert (
        identity("train=tiny")
        == identity("train.steps=20 train.batch=32 train.evaluations=2 train.log_every=5")
        != identity("")
    )
    assert list_names("train") == ["default"] and "tiny" not in list_names("pretrain")


def test_parts_from_outside_and_what_is_no_part_stay_as_they_are():
    for node in ({"_target_": "own.Part"}, {"_target_": "nothing"}, {"weight": 1}, {"_target_": 3}, "mmd", None):
        assert name_part("method", node) == node
        assert name_methods(node) == node
    assert name_parts({"seed": {"_target_": "mmd"}}) == {"seed": {"_target_": "mmd"}}
    with pytest.raises(UserError, match=r"takes module\.name or the name of an option"):
        config.build({"_target_": "nothing"}, "method")


def test_the_schema_stands_in_the_record(tmp_path):
    record = describe_run(*composed(f"outputs={tmp_path}"))
    file = tmp_path / "run.json"
    Recording(record).open()
    text = (record.folder / "run.json").read_text()
    assert f'"schema": {SCHEMA}' in text
    for other in (text.replace(f'"schema": {SCHEMA}', '"schema": 1'), text.replace(f'"schema": {SCHEMA}', '"x": 1')):
        file.write_text(other)
        with pytest.raises(ValueError, match="schema 1"):
            read_record(file)


def test_a_users_own_part_keeps_a_key_with_the_name_of_a_later_one():
    own = {"method": {"_target_": "mine.Method", "squared": True}}
    assert drop_later_keys(own) == own
    assert drop_later_keys({"method": {"_target_": "mmd", "squared": True}}) == {"method": {"_target_": "mmd"}}
