"""pairs=all and pairs=leave_one_out: which command lines they stand for."""

import pytest
from conftest import EXPERIMENTS

from tl_runner import options
from tl_runner.errors import UserError
from tl_runner.experiments import read_experiment
from tl_runner.pairs import expand_pairs, pair_up

LINE = ["method=mmd", "seed=0,1"]


def test_all_pairs_are_ordered_and_each_is_there_once():
    assert pair_up("abc", "all") == [(["a"], "b"), (["a"], "c"), (["b"], "a"), (["b"], "c"), (["c"], "a"), (["c"], "b")]


def test_each_domain_is_held_out_once():
    found = pair_up("abc", "leave_one_out")
    assert found == [(["b", "c"], "a"), (["a", "c"], "b"), (["a", "b"], "c")]


def test_a_line_becomes_one_for_each_pair_and_keeps_its_words():
    found = expand_pairs([*LINE, "pairs=all", "domains=[art,007,two words]"])
    assert len(found) == 6 and all(line[:2] == LINE for line in found)
    assert found[1][2:] == ["dataset.source=art", "dataset.target='two words'"]
    assert found[2][2:] == ["dataset.source='007'", "dataset.target=art"]  # a name, and no number


def test_a_line_without_pairs_stays():
    assert expand_pairs(LINE) == [LINE]


def test_held_out_domains_are_pooled():
    (first, *_) = expand_pairs(["pairs=leave_one_out", "domains=[a,b b,c]"])
    assert first == ["dataset.source=['b b',c]", "dataset.target=a"]


def test_digits_and_folders_name_their_domains(tmp_path):
    assert len(expand_pairs(["pairs=all"])) == 12
    for name in ("studio", "web", ".hidden"):
        (tmp_path / name / "cup").mkdir(parents=True)
    found = expand_pairs(["dataset=image_folder", f"dataset.root={tmp_path}", "pairs=all"])
    assert [line[-2:] for line in found] == [
        ["dataset.source=studio", "dataset.target=web"],
        ["dataset.source=web", "dataset.target=studio"],
    ]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ([], ["A", "B", "none"]),
        (["dataset.missing=[NA,none]"], ["A", "B"]),
        (["dataset.missing=['na', \"None\"]"], ["A", "B"]),
        (["dataset.missing=[]"], ["A", "B", "NA", "none"]),
        (["dataset.missing=[none,-999]"], ["A", "B", "NA"]),
    ],
    ids=str,
)
def test_a_word_for_a_missing_value_is_no_domain(tmp_path, typed, names):
    file = tmp_path / "all.csv"
    sites = ["A", "B", "NA", "none"] + (["-999.0"] if "-999" in str(typed) else [])
    file.write_text("site,x,label\n" + "".join(f"{site},{i / 7},{'ny'[i % 2]}\n" for i in range(4) for site in sites))
    found = expand_pairs(["dataset=table", f"dataset.file={file}", "dataset.domain=site", "pairs=all", *typed])
    assert [line[-1] for line in found[: len(names) - 1]] == [f"dataset.target={name}" for name in names[1:]]
    assert len(found) == len(names) * (len(names) - 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pairs=al", "did you mean 'all'"),
        ("domains=[a,b]", "say which"),
        ("pairs=all domains=a", "takes a list"),
        ("pairs=all domains=[a", "takes a list"),
        ("pairs=all dataset=table dataset.missing=NA", "dataset.missing=NA takes a list"),
        ("pairs=all domains=[a]", "needs two domains, and there are a"),
        ("pairs=leave_one_out domains=[a,b]", "needs three domains"),
        ("pairs=all domains=[a,b,a]", r"domains=\[a,b,a\] names one domain twice, as 'a' and 'a'"),
        ("pairs=all dataset=table domains=[a.csv,./a.csv]", "names one domain twice, as 'a.csv' and './a.csv'"),
        ("pairs=all dataset.target=sans", "leave dataset.target out"),
        ("pairs=all dataset=blobs", "can't be told: name them"),
        ("pairs=all dataset=digits,blobs", "of one dataset"),
        ("pairs=all dataset=image_folder dataset.root=nowhere", "no folder"),
    ],
)
def test_what_can_not_be_paired_is_refused(words, said):
    with pytest.raises(UserError, match=said):
        expand_pairs(words.split())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_counts_the_runs_of_its_pairs(name):
    found = read_experiment(options.conf() / "experiment" / f"{name}.yaml")
    assert found.runs >= len(found.lines)
