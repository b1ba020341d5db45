"""The tables of sources against targets, by hand."""

from typing import Any

import pytest
from rich.console import Console

from tl_runner.report import tables
from tl_runner.report.domain_matrix import build_matrices
from tl_runner.report.settings import _format_list, group_settings
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import DataInfo, Scores


def made_run(source: str, target: str, accuracy: float | None, seed: int = 0, method: str = "mmd") -> RunRecord:
    """A run on the domains of one dataset; `a + b` is a pool, and no accuracy is a failure."""
    of = {"accuracy": accuracy or 0.0}
    members = {name: [1, 1, 1] for name in source.split(" + ")} if "+" in source else None
    config: dict[str, Any] = {"method": {"_target_": method}, "dataset": {"source": source, "target": target}}
    return RunRecord(
        id=f"{method}{source}{target}{seed}",
        setting=f"{method}{source}{target}",
        choices={"dataset": "office", "backbone": "small", "method": method},
        seed=seed,
        granted="0",
        config=config,
        status="failed" if accuracy is None else "ok",
        data=DataInfo(domains={"source": source, "target": target}, members=members),
        scores=None if accuracy is None else Scores(None, of, {"step": 1, **of}, {"step": 1, **of}, None),
    )


PAIRS = {("a", "b"): (0.5, 0.7), ("a", "c"): (0.8, 0.8), ("b", "a"): (0.4, 0.4), ("b", "c"): (0.9, 0.9)}


def test_all_pairs_are_a_square_with_means_over_seeds():
    runs = [made_run(s, t, each, seed) for (s, t), found in PAIRS.items() for seed, each in enumerate(found)]
    (matrix,) = build_matrices(runs)
    assert matrix.columns == ["source \\ target", "a", "b", "c", "mean"]
    assert matrix.rows == [
        ["a", "–", "60.0 ± 14.1", "80.0 ± 0.0", "70.0"],
        ["b", "40.0 ± 0.0", "–", "90.0 ± 0.0", "65.0"],
    ]
    assert "2 seeds" in matrix.title and matrix.note.endswith("8 runs, 0 failed.")


def test_what_failed_is_in_its_cell_and_in_the_count():
    runs = [made_run(s, t, None if (s, t) == ("b", "c") else found[0]) for (s, t), found in PAIRS.items()]
    (matrix,) = build_matrices(runs)
    assert matrix.rows[1] == ["b", "40.0", "–", "failed", "–"] and matrix.note.endswith("4 runs, 1 failed.")


def test_methods_have_a_square_each():
    runs = [made_run(s, t, 0.5, method=method) for s, t in PAIRS for method in ("mmd", "dann")]
    titles = [matrix.title for matrix in build_matrices(runs)]
    assert [title.partition(":")[0] for title in titles] == ["office mmd", "office dann"]


def test_domains_held_out_are_columns_and_methods_rows():
    held = {"a": "b + c", "b": "a + c", "c": "a + b"}
    runs = [
        made_run(source, target, accuracy, method=method)
        for method, accuracy in (("mmd", 0.9), ("groupdro", 0.6))
        for target, source in held.items()
    ]
    (matrix,) = build_matrices(runs)
    assert matrix.columns == ["method", "a", "b", "c", "mean"]
    assert [row[0] for row in matrix.rows] == ["mmd", "groupdro"] and matrix.rows[0][-1] == "90.0"
    other = made_run("b + d", "a", 0.1)  # some of the domains, and no table of its own
    assert [each.rows for each in build_matrices([*runs, other])] == [matrix.rows]
    assert "office, one domain held out:" in matrix.title


def test_a_block_of_the_report_is_named_by_its_domains_where_source_and_target_differ():
    held = [made_run("b + c", "a", 0.5), made_run("a + c", "b", 0.5)]
    assert {setting.pair for setting in group_settings(held)} == {"office b + c → a", "office a + c → b"}
    one_source = [made_run("a", "b", 0.5), made_run("a", "c", 0.5)]
    assert {setting.pair for setting in group_settings(one_source)} == {"office target=b", "office target=c"}


def test_runs_on_one_pair_make_no_table():
    assert build_matrices([made_run("a", "b", 0.5, seed) for seed in range(3)]) == []
    assert build_matrices([made_run("a", "b", 0.5), made_run("c", "d", 0.5)])[0].rows == [
        ["a", "50.0", "–", "–"],
        ["c", "–", "50.0", "–"],
    ]


def test_the_table_is_printed_with_its_note():
    pairs = [("a", "[b]"), ("[b]", "a"), ("a", "x[/b]")]  # names, and no markup
    runs = [made_run(source, target, 0.5) for source, target in pairs]
    console = Console(width=100, record=True)
    with console.capture() as captured:
        console.print(*map(tables.render_matrix, build_matrices(runs)))
    assert all(name in captured.get() for name in ("[b]", "x[/b]"))
    assert "source \\ target" in captured.get() and "A row is a source, a column a target." in captured.get()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["mmd", "coral"], "[mmd,coral]"),
        (["studio", "web, old"], "[studio,'web, old']"),
        (["it's", "x[b]"], """["it's",'x[b]']"""),
        ([{"coral": {"weight": 3.0}}, "mmd"], "[{coral: {weight: 3.0}},mmd]"),
        ("web, old", "web, old"),
    ],
    ids=str,
)
def test_names_in_a_list_are_told_apart(value, said):
    assert _format_list(str(value)) == said
