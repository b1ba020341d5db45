"""The leaderboard from hand-written records: what it compares with what, what it warns of, and how it is written."""

from dataclasses import replace
from itertools import product
from math import inf, isnan
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats

from tl_runner.report import cells
from tl_runner.report.caveats import list_caveats
from tl_runner.report.cells import heading, remarks
from tl_runner.report.comparison import compared
from tl_runner.report.formats import format_leaderboard
from tl_runner.report.leaderboard import build_leaderboard
from tl_runner.report.ranking import rankings
from tl_runner.report.settings import cell, group_settings
from tl_runner.report.statistics import ScoreName
from tl_runner.storage.record import RunRecord, Status
from tl_runner.storage.sections import DataInfo, Diagnosis, Environment, Scores, SeedInfo

GOLDEN = Path(__file__).with_name("golden") / "leaderboard.md"


def run(
    method: str,
    seed: int,
    target: float,
    *,
    dataset: str = "digits",
    backbone: str = "small",
    granted: str = "0",
    status: Status = "ok",
    oracle: float = 0.0,
    steps: int = 300,
    versions: str = "2.11",
    fingerprint: str = "f",
    kind: Any = "independent",
    **options,
) -> RunRecord:
    """A record as a run writes it; options are those of the method."""
    accuracies = {"last": target, "selected": target, "oracle": max(target, oracle)}
    scores = {
        "source": {"accuracy": 0.9, "macro_f1": 0.9, "ece": 0.1},
        "target": {"accuracy": target, "macro_f1": target, "ece": 0.1},
        **{name: {"step": steps, "accuracy": value, "macro_f1": value} for name, value in accuracies.items()},
    }
    config = {
        "dataset": {"_target_": dataset},
        "backbone": {"_target_": backbone},
        "method": {"_target_": method, **options},
        "train": {"_target_": "Train", "steps": steps},
        "seed": seed,
        "granted": granted,
    }
    setting = f"{method}-{dataset}-{backbone}-{granted}-{steps}-{options}"
    return RunRecord(
        id=f"{setting}-{seed}",
        setting=setting,
        choices={"dataset": dataset, "backbone": backbone, "method": method},
        seed=seed,
        granted=granted,
        config=config,
        status=status,
        scores=Scores(**scores) if status == "ok" else None,
        seconds=2.0,
        environment=Environment(versions={"torch": versions}, device="cpu"),
        data=DataInfo(
            rows={"target": [600, 200, 200]},
            fingerprint={"target": fingerprint},
            seeds=SeedInfo(kind, 200, {"resplit": 1000, "fixed": 200}.get(kind)),
        ),
    )


def runs(method: str, targets, **options) -> list[RunRecord]:
    return [run(method, seed, target, **options) for seed, target in enumerate(targets)]


BASE = [0.70, 0.72, 0.69, 0.71, 0.70]
RECORDS = [
    *runs("source_only", BASE),
    *runs("mmd", [0.80, 0.83, 0.78, 0.82, 0.81], oracle=0.85),
    *runs("dann", [0.71, 0.70, 0.72, 0.69, 0.73]),
    *runs("kmm", [0.60, 0.63, 0.58, 0.62, 0.59]),
    *runs("target_only", [0.90, 0.91, 0.92, 0.91, 0.90], granted="all"),
    run("cdan", 0, 0.0, status="failed"),
]


def row(records: list[RunRecord], label: str) -> dict:
    (found,) = [row for row in build_leaderboard(records).to_dict("records") if row["label"] == label]
    return {str(key): value for key, value in found.items()}


def test_what_is_better_what_is_negative_transfer_and_what_is_not_shown():
    assert row(RECORDS, "mmd")["verdict"] == "better"
    assert row(RECORDS, "kmm")["verdict"] == "negative transfer"
    assert row(RECORDS, "dann")["verdict"] == "no difference shown"
    assert row(RECORDS, "source_only")["verdict"] == "" and isnan(row(RECORDS, "source_only")["difference"])


def test_what_holds_before_the_correction_alone_is_a_maybe():
    """A p of .017 alone, of 4 settings .07; the same for a loss, which is said in words as well."""
    up, down = (
        [b + d for b, d in zip(BASE, (0.02, 0.06, 0.01, 0.05, 0.05), strict=True)],
        [0.69, 0.68, 0.66, 0.69, 0.65],
    )
    others = [each for name in ("dann", "cdan", "coral") for each in runs(name, BASE)]
    base = runs("source_only", BASE)
    assert row([*base, *runs("mmd", up)], "mmd")["verdict"] == "better"
    assert row([*base, *others, *runs("mmd", up)], "mmd")["verdict"] == "maybe better"
    few = [*base, *others, *runs("afn", down)]
    assert row(few, "afn")["verdict"] == "maybe worse" and row([*base, *runs("afn", down)], "afn")["p"] < 0.05
    (said,) = remarks(build_leaderboard(few), [])
    assert said.startswith("digits: maybe worse, in points: afn −")


def test_the_correction_is_over_the_whole_report():
    """Twelve pairs without effect hold no more false findings than one; a p of .017 counts 1, 3, 6 or 24 times."""
    up = [0.72, 0.76, 0.70, 0.74, 0.71]
    one = [*runs("source_only", BASE), *runs("mmd", up)]
    alone = row(one, "mmd")["p"]
    for pairs in (2, 3, 12):
        more = [
            each for d in map(str, range(pairs - 1)) for name in ("source_only", "dann")
            for each in runs(name, BASE if name == "source_only" else [*reversed(BASE)], dataset=d)
        ]  # fmt: skip
        assert row([*one, *more], "mmd")["p"] == pytest.approx(min(1, pairs * alone)), pairs
    granted = [*runs("source_only", BASE, granted="5"), *runs("dann", [*reversed(BASE)], granted="5")]
    assert row([*one, *granted], "mmd")["p"] == pytest.approx(2 * alone)


def test_the_correction_is_over_the_settings():
    p = [row([*runs("source_only", BASE), *runs("mmd", [0.72, 0.76, 0.70, 0.74, 0.71])], "mmd")["p"]]
    more = [*RECORDS[:5], *runs("mmd", [0.72, 0.76, 0.70, 0.74, 0.71]), *RECORDS[10:20]]
    p.append(row(more, "mmd")["p"])
    assert p[1] == pytest.approx(2 * p[0])  # the second smallest of three; that of kmm is smaller


def test_the_gap_to_training_on_all_labels_and_the_regret():
    gain = np.mean([0.80, 0.83, 0.78, 0.82, 0.81]) - np.mean(BASE)
    assert row(RECORDS, "mmd")["closed"] == pytest.approx(gain / (0.908 - np.mean(BASE)))
    assert row(RECORDS, "kmm")["closed"] < 0
    assert row(RECORDS, "mmd")["regret"] == pytest.approx(0.85 - 0.808)


def test_best_is_what_is_not_shown_to_be_worse_with_the_same_labels():
    close = [*RECORDS, *runs("jmmd", [0.79, 0.84, 0.79, 0.80, 0.80])]
    best = {entry["label"]: entry["best"] for entry in build_leaderboard(close).to_dict("records")}
    assert {label for label, is_best in best.items() if is_best} == {"mmd", "jmmd", "target_only"}


def test_being_worse_than_the_best_is_corrected_for_how_many_are_compared():
    """Alone, dann is worse at p = .03; among three the least p must be below .05/3."""
    top, worse = [0.80, 0.81, 0.82, 0.80, 0.81], [0.78, 0.80, 0.79, 0.79, 0.805]
    two = [*runs("mmd", top), *runs("dann", worse)]
    assert not row(two, "dann")["best"]
    four = [*two, *runs("coral", [0.79, 0.82, 0.81, 0.81, 0.80]), *runs("cdan", [0.81, 0.80, 0.80, 0.82, 0.80])]
    assert row(four, "dann")["best"]


def test_a_baseline_has_the_same_data_and_backbone_and_the_budget_if_there_is_one():
    mixed = [
        *runs("source_only", [0.5] * 3),
        *runs("source_only", [0.6] * 3, granted="5"),
        *runs("source_only", [0.1] * 3, backbone="resnet18"),
        *runs("source_only", [0.2] * 3, dataset="blobs"),
        *runs("mmd", [0.7] * 3, granted="5"),
        *runs("mmd", [0.7] * 3, granted="10"),
        *runs("mmd", [0.7] * 3, backbone="mlp"),
    ]
    table = build_leaderboard(mixed)
    found = {(r["backbone"], r["granted"]): r["difference"] for r in table.to_dict("records") if r["method"] == "mmd"}
    assert found["small", "5"] == pytest.approx(0.1)
    assert found["small", "10"] == pytest.approx(0.2)  # none with ten labels: the one without, and no test
    assert isnan(found["mlp", "0"])
    rows = [r for r in table.to_dict("records") if r["method"] == "mmd"]
    verdicts = {(r["backbone"], r["granted"]): (r["verdict"], r["p"]) for r in rows}
    assert verdicts["small", "10"][0] == "other labels" and isnan(verdicts["small", "10"][1])
    assert verdicts["small", "5"][0] == "better" and verdicts["mlp", "0"][0] == ""
    (said,) = [each for each in list_caveats(mixed, table) if "label budget" in each]
    assert "for mmd granted=10: run the baseline with it" in said


def test_what_saw_labels_is_not_called_better_than_what_saw_none():
    """`-m method=source_only,finetune` gave "better, p 4e-8"."""
    found = row([*runs("source_only", BASE), *runs("finetune", [0.9, 0.92, 0.91, 0.9, 0.93], granted="10")], "finetune")
    assert found["verdict"] == "other labels" and found["difference"] == pytest.approx(0.208)
    assert isnan(found["p"]) and isnan(found["low"]) and isnan(found["high"])


def test_below_three_seeds_nothing_is_tested_and_nothing_is_best():
    two = [*runs("source_only", [0.5, 0.5]), *runs("mmd", [0.9, 0.9])]
    assert row(two, "mmd")["verdict"] == "" and isnan(row(two, "mmd")["low"])
    assert not any(build_leaderboard(two)["best"].tolist())


def test_a_maybe_says_once_how_many_seeds_it_takes_and_how_not_to_use_them():
    up = [b + d for b, d in zip(BASE, (0.02, 0.06, 0.01, 0.05, 0.05), strict=True)]
    several = [
        each
        for pair in "ab"
        for name in ("source_only", "dann", "cdan", "coral")
        for each in runs(name, BASE, dataset=pair)
    ]
    several += [each for pair in "ab" for each in runs("mmd", up, dataset=pair)]
    (said,) = [each for each in list_caveats(several, build_leaderboard(several)) if "maybe" in each]
    gains, n = np.array([0.02, 0.06, 0.01, 0.05, 0.05]), 3
    while 2 * stats.t.sf(gains.mean() / (gains.std(ddof=1) / np.sqrt(n)), n - 1) * 8 >= 0.05:
        n += 1
    assert said.startswith("2 of the findings are a maybe.") and f"a mmd {n}, b mmd {n}. Decide on a number" in said
    assert not any("more seeds would tell" in each for each in list_caveats(several, build_leaderboard(several)))
    assert set(build_leaderboard(several)["needed"].dropna()) == {float(n)}


def test_what_no_number_of_seeds_would_show_is_said():
    """Where seeds re-split one pool, part of the uncertainty stays however many there are."""
    board = build_leaderboard(RECORDS)
    board.loc[0, ["verdict", "needed"]] = "maybe better", inf
    (said,) = [each for each in list_caveats(RECORDS, board) if "maybe" in each]
    assert f"{board.loc[0, 'label']} more than 1,000" in said


@pytest.mark.parametrize(("kind", "widens"), [("independent", 1), ("resplit", np.sqrt(1 + 5 * 200 / 800))])
def test_the_interval_fits_how_seeds_differ(kind, widens):
    up = [0.72, 0.76, 0.70, 0.74, 0.75]
    found = row([*runs("source_only", BASE, kind=kind), *runs("mmd", up, kind=kind)], "mmd")
    gains = np.array(up) - BASE
    half = stats.t.ppf(0.975, 4) * gains.std(ddof=1) / np.sqrt(5) * widens
    assert (found["low"], found["high"]) == pytest.approx((gains.mean() - half, gains.mean() + half))
    assert found["p"] == pytest.approx(2 * stats.t.sf(gains.mean() * stats.t.ppf(0.975, 4) / half, 4))


def test_a_heading_says_how_seeds_differ():
    for kind, told in (
        ("independent", "new data per seed"),
        ("resplit", "seeds re-split 1,000 rows"),
        ("fixed", "one test set of 200 rows"),
    ):
        board = build_leaderboard(runs("mmd", BASE, kind=kind))
        assert heading("digits", board.to_dict("records")).endswith(told)


def test_records_that_do_not_say_how_seeds_differ_are_taken_to_share_a_test_set():
    old, up = [*runs("source_only", BASE), *runs("mmd", [b + 0.04 for b in BASE])], 0.04
    new = row(old, "mmd")
    for each in old:
        each.data.seeds = None
    found = row(old, "mmd")
    assert found["seed_kind"] == "unknown" and found["by_rows"] is False
    assert new["verdict"] == "better" and found["verdict"] == "no difference shown"
    # by hand, as if both erred independently: Σ a(1 − a)/200, with Student's quantiles of 4 and of 199
    chance = np.mean([(b * (1 - b) + (b + up) * (1 - b - up)) / 200 for b in BASE])
    least = (1 / 200) ** 2 / 6
    half = np.sqrt(stats.t.ppf(0.975, 4) ** 2 * least / 5 + stats.t.ppf(0.975, 199) ** 2 * chance)
    assert (found["low"], found["high"]) == pytest.approx((up - half, up + half))
    said = list_caveats(old, build_leaderboard(old))
    assert any("how seeds differ is not on record for digits mmd" in each for each in said)
    assert any("predictions or labels of the same test rows are not kept for digits mmd" in each for each in said)
    mixed = [*runs("source_only", BASE), *old[5:]]
    assert row(mixed, "mmd")["seed_kind"] == "unknown"


def test_a_run_below_the_most_frequent_class_is_flagged():
    several = runs("source_only", [0.31, 0.72, 0.41])
    for each in several:
        assert each.scores
        each.scores.majority = {"class": 0, "accuracy": 0.7, "balanced": 0.5, "macro_f1": 0.41}
    board = build_leaderboard(several)
    assert any("below always saying the target's most frequent class: source_only (2 of 3 runs)" in said
               for said in list_caveats(several, board))  # fmt: skip
    assert "always the most frequent class 70.0 %" in heading("digits", board.to_dict("records"))
    assert any(
        "class: source_only (1 of 3 runs)" in said
        for said in list_caveats(several, build_leaderboard(several, score="macro_f1"))
    )


def test_a_score_is_chosen_for_all_tables():
    several = [*runs("source_only", BASE), *runs("mmd", BASE)]
    for each in several[5:]:
        assert each.scores
        for name in ("target", "last", "selected", "oracle"):
            getattr(each.scores, name).update({"balanced": 0.9 + each.seed / 100, "macro_f1": 0.8})
    for each in several[:5]:
        assert each.scores
        for name in ("target", "last", "selected", "oracle"):
            getattr(each.scores, name).update({"balanced": 0.5, "macro_f1": 0.8})
    found = {
        score: build_leaderboard(several, score=score).set_index("label").loc["mmd"] for score in get_args(ScoreName)
    }
    assert found["accuracy"]["verdict"] == found["macro_f1"]["verdict"] == "no difference shown"
    assert found["balanced"]["verdict"] == "better" and found["balanced"]["target"] == pytest.approx(0.92)
    assert found["balanced"]["difference"] == pytest.approx(0.42)
    assert cells.legend(build_leaderboard(several, score="balanced")).startswith("Balanced accuracy")


def test_of_several_baselines_the_one_made_most_alike():
    mixed = [*runs("source_only", [0.5] * 3, steps=20), *runs("source_only", [0.6] * 3), *runs("mmd", [0.7] * 3)]
    assert row(mixed, "mmd")["difference"] == pytest.approx(0.1)


def test_datasets_of_one_name_are_pairs_of_their_own():
    shifted = [run("mmd", seed, 0.5) for seed in range(2)]
    for each, shift in zip(shifted, ("covariate", "none"), strict=True):
        each.config["dataset"] |= {"shift": shift, "samples": 100}
        each.setting += shift
    assert sorted(build_leaderboard(shifted)["pair"]) == ["digits shift=covariate", "digits shift=none"]


def test_settings_are_named_by_what_tells_them_apart():
    swept = [run("mmd", 0, 0.5, weight=w, layers=["x"]) for w in (0.1, 1.0)] + [run("dann", 0, 0.5)]
    found = build_leaderboard(swept)
    assert sorted(found["label"]) == ["dann", "mmd method.weight=0.1", "mmd method.weight=1"]
    assert set(build_leaderboard([run("mmd", 0, 0.5), run("mmd", 0, 0.5, backbone="mlp")])["label"]) == {
        "mmd small",
        "mmd mlp",
    }


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (runs("mmd", [0.5, 0.6]), "digits: fewer than 3 seeds of mmd"),
        (runs("mmd", [0.5] * 3), "no run of a baseline"),
        ([*runs("mmd", [0.5] * 3, steps=100), *runs("source_only", [0.5] * 3)], "mmd 100 (baseline 300)"),
        ([*runs("mmd", [0.5] * 3), *runs("dann", [0.5] * 3, versions="2.12")], "runs of different torch: 2.11, 2.12"),
        (
            [*runs("mmd", [0.5] * 3), *runs("dann", [0.5] * 3, fingerprint="g")],
            "the data changed between runs: 3 pairs of dataset and seed have runs",
        ),
        ([*runs("mmd", [0.5] * 4), *runs("dann", [0.5] * 3)], "seeds are missing of 4: dann lacks 1"),
    ],
)
def test_a_caveat_is_told(records, said):
    assert any(said in caveat for caveat in list_caveats(records, build_leaderboard(records)))


def test_settings_that_differ_in_their_rule_of_selection_are_told_apart():
    rules = [run("mmd", 0, 0.5) for _ in range(2)]
    for each, rule in zip(rules, ("last", "im"), strict=True):
        each.config["select"] = {"_target_": rule}
        each.setting += rule
    assert sorted(build_leaderboard(rules)["variant"]) == ["select=im", "select=last"]


def test_why_runs_failed_is_told_by_method():
    failed = [run("mmd", seed, 0.0, status="failed") for seed in range(2)]
    for each in failed:
        each.error = "it was refused\nfor a long reason"
    (said,) = [caveat for caveat in list_caveats(failed, build_leaderboard(failed)) if "failed" in caveat]
    assert said == "2 runs failed: 2 of mmd: it was refused (their run.log has more)"


def test_a_command_that_could_not_be_read_is_told_and_is_no_setting():
    (found,) = runs("mmd", [0.5])
    attempts = [
        replace(found, id=str(n), status="failed", config={"overrides": ["a=b=c"], "outputs": "outputs"}, scores=None)
        for n in range(3)
    ]
    unread = "'a=b=c' can't be read: Hydra needs its own quotes around such text. Paste this instead:\n  'a=\"b=c\"'"
    attempts[0].error = attempts[1].error = unread
    attempts[2].error = f"unknown key dat (possible: {', '.join(f'dataset.key{n}' for n in range(99))})"
    board = build_leaderboard([found, *attempts])
    assert list(board["label"]) == ["mmd"] and list(board["failed"]) == [0]
    (said,) = [caveat for caveat in list_caveats([found, *attempts], board) if "command" in caveat]
    assert said.startswith(
        "3 commands could not be read, and made no run: 'a=b=c' can't be read: Hydra needs its own quotes around such"
        " text (2 times); unknown key dat (possible: dataset.key0, "
    )
    assert said.endswith("dataset.key5, …")
    assert not [caveat for caveat in list_caveats([found, *attempts], board) if "failed" in caveat]


def test_a_label_set_that_was_read_from_the_targets_labels_is_told():
    found = runs("mmd", [0.5] * 3)
    for each, by in zip(found, ("target labels", "target labels", "label_set"), strict=True):
        each.data.label_knowledge = {"by": by}
    (said,) = [caveat for caveat in list_caveats(found, build_leaderboard(found)) if "label set" in caveat]
    assert said.startswith("2 of 3 runs were granted the label set: dataset.labels=shared (digits) left out rows by")


def test_nothing_is_said_against_a_clean_table():
    clean = [*runs("source_only", BASE), *runs("mmd", BASE)]
    assert list_caveats(clean, build_leaderboard(clean)) == []


def test_ranks_over_pairs_leave_out_what_a_pair_lacks():
    several = [
        *(each for d, up in product("abcde", (0, 0.1)) for each in runs("mmd" if up else "sa", [0.5 + up], dataset=d)),
        *runs("dann", [0.9], dataset="a"),
    ]
    (found,) = rankings(several)
    assert found.ranks and found.ranks.average == {"mmd": 1.0, "sa": 2.0} and found.ranks.pairs == 5
    assert found.left_out == ("dann",)
    assert list(rankings(RECORDS)) == []  # one pair has no ranks over pairs


def test_below_five_pairs_there_are_no_ranks_and_that_is_said():
    four = [each for d, up in product("abcd", (0, 0.1)) for each in runs("mmd" if up else "sa", [0.5 + up], dataset=d)]
    found = list(rankings(four))
    assert [(each.ranks, each.pairs) for each in found] == [(None, 4)]
    assert remarks(build_leaderboard(four), found) == [
        "No ranks: 4 pairs have settings in common, granted=0; at least 5 pairs are needed to rank methods."
    ]


def test_ranks_are_of_configurations_and_never_of_labels():
    """weight=0.1 on some pairs and weight=100 on others are two configurations, though each is called mmd there."""
    several = [*(each for d in "abcde" for each in runs("sa", [0.5], dataset=d))]
    several += [each for d in "abcde" for each in runs("bnm", [0.4], dataset=d)]
    several += [each for d in "abc" for each in runs("mmd", [0.9], dataset=d, weight=0.1)]
    several += [each for d in "de" for each in runs("mmd", [0.9], dataset=d, weight=100)]
    (found,) = rankings(several)
    assert found.ranks and found.ranks.average == {"sa": 1.0, "bnm": 2.0}
    assert found.left_out == ("mmd method.weight=0.1", "mmd method.weight=100")
    several += [each for d in "de" for each in runs("mmd", [0.1], dataset=d, weight=0.1)]
    (found,) = rankings(several)
    assert found.ranks and found.ranks.average["mmd method.weight=0.1"] == pytest.approx((3 * 1 + 2 * 3) / 5)


def test_ranks_compare_on_the_seeds_that_all_have():
    """mmd is ahead on every seed that both have; a seed that sa alone has, an easy one, would turn it round."""
    several = [each for d in "abcde" for each in [*runs("sa", [0.5, 0.5, 0.95], dataset=d)]]
    several += [each for d in "abcde" for each in runs("mmd", [0.6, 0.6], dataset=d)]
    (found,) = rankings(several)
    assert found.ranks and found.ranks.average == {"mmd": 1.0, "sa": 2.0}


def test_a_network_that_each_pair_has_its_own_of_belongs_to_the_pair():
    several = [
        each
        for (d, net), up in product(zip("abcde", ("small", "mlp", "mlp", "small", "mlp"), strict=True), (0, 0.1))
        for each in runs("mmd" if up else "sa", [0.5 + up], dataset=d, backbone=net)
    ]
    (found,) = rankings(several)
    assert found.ranks and found.ranks.average == {"mmd": 1.0, "sa": 2.0} and not found.left_out
    both = [*several, *runs("sa", [0.5], dataset="a", backbone="mlp")]
    assert list(rankings(both)) == []  # now a network is a choice, and no configuration is on all pairs


def test_what_auto_costs_is_said_against_the_best_other_setting_on_the_same_seeds():
    loser = "digits: negative transfer, in points: kmm −10.0 (−11.2 to −8.8)."
    last = ", the best other with the same labels, on"
    mixed = [*RECORDS, *runs("auto", [0.79, 0.82, 0.77, 0.81, 0.80])]
    assert remarks(build_leaderboard(mixed), []) == [loser, f"digits: auto is 1.0 points below mmd{last} 5 seeds."]
    one = [*RECORDS, run("auto", 1, 0.83)]  # mmd's mean is .808, but on this seed it has as much
    assert remarks(build_leaderboard(one), []) == [loser, f"digits: auto is level with mmd{last} 1 seed."]
    alone = [*RECORDS[:5], run("auto", 7, 0.1)]
    assert remarks(build_leaderboard(alone), []) == []
    assert remarks(build_leaderboard(RECORDS), []) == [loser]


def test_long_values_are_told_as_far_as_they_differ():
    lists = [["mmd", "coral", "dann", "cdan", "mcc", last] for last in ("bnm", "im")]
    several = [run("auto", 0, 0.5, candidates=each) for each in lists]
    assert sorted(build_leaderboard(several)["variant"]) == [
        "method.candidates=[mmd,coral,dann,cdan,mcc,b…",
        "method.candidates=[mmd,coral,dann,cdan,mcc,i…",
    ]
    several.append(run("auto", 0, 0.5, candidates=["mcc", "mmd", "coral", "dann", "cdan", "bnm", "im"]))
    assert "method.candidates=[mcc,mmd,coral,dann,cdan…" in [*build_leaderboard(several)["variant"]]


def test_data_in_long_folders_are_different_pairs():
    folder = "/a/long/way/to/the/data/of/clinic_"
    several = [run("mmd", 0, 0.5, fingerprint=name) for name in "ab"]
    for each, name in zip(several, "ab", strict=True):
        each.config["dataset"] = {"_target_": "csv", "target": f"{folder}{name}.csv"}
        each.setting += name
    assert sorted(build_leaderboard(several)["pair"]) == [f"digits target={folder}{name}…" for name in "ab"]


def test_data_that_was_moved_is_the_same_pair_and_other_data_is_not():
    several = [run("mmd", seed, 0.5) for seed in range(3)]
    for each, place, files in zip(several, ("/a", "b/c", "/a"), ("aa", "aa", "bb"), strict=True):
        each.config["dataset"] = {"_target_": "image_folder", "root": place, "target": "t"}
        each.data.files = files
    assert cell(several[0]) == cell(several[1]) != cell(several[2])


def test_failed_settings_alone_are_told_apart_too():
    wrong = [run("auto", 0, 0.0, status="failed", margin=margin) for margin in (2, 3)]
    assert sorted(build_leaderboard(wrong)["variant"]) == ["method.margin=2", "method.margin=3"]


def test_runs_that_say_one_class_of_everything_are_named():
    found = runs("mmd", [0.9] * 3)
    for each, shares in zip(found, ([1.0, 0.0], [0.9, 0.1], None), strict=True):
        each.diagnosis = Diagnosis(histogram=shares) if shares else None
    said = list_caveats(found, build_leaderboard(found))
    assert "one class is predicted for all of the target's test rows by runs of mmd (1)" in said


def test_files_that_changed_are_said_and_no_seed_is_missed_for_it():
    old, new = runs("mmd", [0.5] * 3), [run("mmd", seed, 0.6) for seed in (3, 4, 5)]
    for each, files in [*((run, "aa") for run in old), *((run, "bb") for run in new)]:
        each.data.files = files
    said = list_caveats([*old, *new], build_leaderboard([*old, *new]))
    assert any("the files of digits changed between runs (aa, bb)" in each for each in said)
    assert not any("seeds are missing" in each for each in said)


def test_the_highest_of_several_settings_of_a_method_is_a_choice_by_test_labels():
    several = [*RECORDS[:5], *(run("mmd", 0, 0.7, weight=weight) for weight in (1, 2, 3))]
    said = [each for each in list_caveats(several, build_leaderboard(several)) if "several settings" in each]
    assert len(said) == 1 and "(3 of mmd): choosing the highest uses the test labels" in said[0]
    assert not any("several settings" in each for each in list_caveats(RECORDS, build_leaderboard(RECORDS)))


def test_the_markdown_is_the_golden_one():
    """After a change that is meant: `python tests/test_leaderboard.py` writes it anew."""
    assert markdown() == GOLDEN.read_text()


def test_in_latex_nothing_of_a_name_is_a_command():
    text = format_leaderboard("latex", build_leaderboard([run("a_b%", 0, 0.5)]), [], ["100 % & more"])
    assert r"a\_b\%" in text and "\n% warning: 100 % & more" in text


def test_without_effect_hardly_anything_is_called_better():
    """1,000 sweeps of 4 methods and 5 seeds that all share one accuracy: at most 5 % may call any method better.

    Accuracies are of 200 rows, and share a draw by seed, as runs on the same split do.
    """
    rng = np.random.default_rng(1)
    claims = {"better": 0, "negative transfer": 0}
    for _ in range(1000):
        share = np.clip(0.7 + 0.05 * rng.normal(size=5), 0, 1)
        names = ("source_only", "mmd", "dann", "coral", "cdan")
        sweep = [each for name in names for each in runs(name, rng.binomial(200, share) / 200)]
        verdicts = {found.verdict for found in compared(group_settings(sweep))}
        for claim in claims:
            claims[claim] += claim in verdicts
    assert claims["better"] <= 50, claims
    assert claims["negative transfer"] <= 50, claims
    assert sum(claims.values()) > 10, claims  # the test is no mere silence


def markdown() -> str:
    table = build_leaderboard(RECORDS)
    return format_leaderboard("markdown", table, list(rankings(RECORDS)), list_caveats(RECORDS, table))


if __name__ == "__main__":
    GOLDEN.write_text(markdown())


def test_a_network_with_other_options_is_another_network():
    """Without that the one with a bottleneck would take the place of the one without, unsaid."""
    several = []
    for dataset, width in product("abcde", (None, 256)):
        for each in [*runs("sa", [0.5], dataset=dataset), *runs("mmd", [0.6], dataset=dataset)]:
            several.append(replace(each, id=f"{each.id}{width}", setting=f"{each.setting}{width}"))
            several[-1].config = {**each.config, "backbone": {"_target_": "small", "bottleneck": width}}
    (found,) = rankings(several)
    assert found.ranks and len(found.ranks.average) == 4 and not found.left_out


def test_what_could_not_be_compared_is_not_shown_to_be_worse():
    apart = [*runs("mmd", [0.8, 0.82, 0.81]), *(run("coral", seed, 0.79) for seed in (3, 4, 5))]
    frame = build_leaderboard(apart)
    assert {str(label): bool(best) for label, best in zip(frame["label"], frame["best"], strict=True)} == {
        "mmd": True, "coral": True,
    }  # fmt: skip


def test_pairs_whose_files_differ_are_called_by_their_domains():
    several = [run("mmd", 0, 0.5, fingerprint=name) for name in "ab"]
    for each, name in zip(several, "ab", strict=True):
        each.config["dataset"] = {"_target_": "csv", "source": "/data/s.csv", "target": f"/data/{name}.csv"}
        each.data.domains = {"source": "s", "target": name}
        each.setting += name
    assert sorted(build_leaderboard(several)["pair"]) == ["digits s → a", "digits s → b"]
