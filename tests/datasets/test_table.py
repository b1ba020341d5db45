"""Tables of a user's own: read as written, encoded by the source's training rows alone, refused by line."""

import csv as writer
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, made
from hydra.core.override_parser.overrides_parser import OverridesParser
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tl_runner import config
from tl_runner.datasets import columns, table
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.cells import format_option
from tl_runner.datasets.encoding import code, encode, fit
from tl_runner.datasets.split import split_domains
from tl_runner.errors import UserError

csv: Any = table.table  # whose source is never None
CPU, NOTHING = torch.device("cpu"), Budget("count", 0)


def write(path: str, header: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> str:
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def cancer() -> tuple[list[str], list[list[Any]]]:
    """The breast cancer table, its rows divided by their mean texture."""
    data: Any = load_breast_cancer()
    sites = np.where(data.data[:, 1] < np.median(data.data[:, 1]), "smooth", "rough")
    labels = data.target_names[data.target]
    rows = [[*row, site, label] for row, site, label in zip(data.data.tolist(), sites, labels, strict=True)]
    return [*data.feature_names, "site", "diagnosis"], rows


def mixed(seed: int, n: int = 60, cities: str = "abc") -> list[list[Any]]:
    """Rows of age (with gaps), height, city (with gaps), label."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        age = "" if rng.random() < 0.2 else round(rng.normal(40, 9), 2)
        city = rng.choice(["NA", "na"]) if rng.random() < 0.1 else rng.choice(list(cities))
        rows.append([age, round(rng.normal(), 3), city, "yes" if rng.random() < 0.5 else "no"])
    return rows


MIXED = ["age", "height", "city", "label"]


def pair(source: Sequence[Sequence[Any]], target: Sequence[Sequence[Any]], **options: Any) -> Any:
    files = write("a.csv", MIXED, source), write("b.csv", MIXED, target)
    return csv(0, source=files[0], target=files[1], **options)


def scaled_by(x: np.ndarray) -> Any:
    return StandardScaler().fit(x)


def columns_of(encoding: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {column["name"]: column for column in encoding["columns"]}


def test_a_real_table_with_a_domain_column_is_scaled_as_scikit_learn_does():
    header, rows = cancer()
    file = write("all.csv", header, rows)
    drawn = csv(0, file=file, domain="site", source="smooth", target="rough", label="diagnosis")
    cut_pair: Any
    cut_pair, answers, data = split_domains(drawn, 0, NOTHING, CPU)
    assert data.classes == ["benign", "malignant"]
    assert data.domains == {"source": "smooth", "target": "rough"}
    assert cut_pair.shape == (30,) and sum(data.rows["source"]) == sum(row[-2] == "smooth" for row in rows)
    wanted = {tuple(row[:-2]): row[-1] for row in rows}
    assert [wanted[tuple(row)] for row in drawn.source.x.tolist()] == [drawn.source.classes[y] for y in drawn.source.y]
    train = cut_pair.source.train.take(torch.arange(len(cut_pair.source.train)))
    assert train.dtype == torch.float32
    facts = data.encoding["columns"]
    mean, sd = (np.array([column[key] for column in facts]) for key in ("mean", "sd"))
    scaler = scaled_by(train.double().numpy() * sd + mean)  # of the training rows, scaled back
    np.testing.assert_allclose(scaler.mean_, mean, rtol=1e-5)
    np.testing.assert_allclose(scaler.scale_, sd, rtol=1e-4)
    everything = scaled_by(np.array([row[:-2] for row in rows]))
    assert np.abs(everything.mean_ / mean - 1).max() > 0.01  # not fitted on all
    assert set(answers.open().tolist()) == {0, 1}


def test_the_test_rows_are_known_by_their_lines_beside_the_answers():
    header, rows = cancer()
    write("all.csv", header, rows)
    drawn = csv(0, file="all.csv", domain="site", source="smooth", target="rough", label="diagnosis")
    pair, answers, data = split_domains(drawn, 0, NOTHING, CPU)
    x, labels = pair.target.test.take(torch.arange(len(pair.target.test))), answers.open().tolist()
    for name, row, label in zip(answers.places.of_test, x, labels, strict=True):
        file, _, line = name.rpartition(":")
        cells = rows[int(line) - 2]
        assert file == "all.csv" and cells[-2] == "rough" and cells[-1] == data.classes[label]
        assert torch.equal(row, encode(torch.tensor([cells[:-2]], dtype=torch.double), data.encoding or {})[0])
    sides = [side.train.take(torch.arange(len(side.train))) for side in (pair.source, pair.target) if side is not None]
    assert data.range == [min(x.min().item() for x in sides), max(x.max().item() for x in sides)]


def test_gaps_and_categories_are_encoded_as_scikit_learn_does():
    source, target = mixed(0), mixed(1, cities="abcd")
    drawn = pair(source, target)
    rows = torch.arange(40)
    encoding = drawn.encoding(drawn.source.x[rows])
    read = [
        [[None if cell in ("", "NA", "na") else cell for cell in row[:3]] for row in side] for side in (source, target)
    ]
    known, other = (np.array(side, dtype=object) for side in read)
    number = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    seen: Any = [["a", "b", "c"]]
    category = OneHotEncoder(categories=seen, handle_unknown="ignore")
    reference = ColumnTransformer([("n", number, [0, 1]), ("c", category, [2])])
    reference.fit(np.where(known == None, np.nan, known)[:40])  # noqa: E711
    for raw, side in ((drawn.source.x, known), (drawn.target.x, other)):
        mine = encoding.apply(raw)
        theirs = np.asarray(reference.transform(np.where(side == None, np.nan, side)), dtype=float)  # noqa: E711
        np.testing.assert_allclose(mine[:, [0, 2, 3, 4, 5]], theirs, atol=1e-6)
        np.testing.assert_array_equal(mine[:, 1], side[:, 0] == None)  # noqa: E711
        assert mine.dtype == torch.float32


def test_what_is_encoded_can_be_encoded_again_from_the_record():
    drawn = pair(mixed(0), mixed(1))
    encoding = drawn.encoding(drawn.source.x)
    facts = json.loads(json.dumps(encoding.facts))
    assert torch.equal(encode(drawn.target.x, facts), encoding.apply(drawn.target.x))


def test_only_training_rows_of_the_source_are_in_the_encoding():
    source = mixed(0)
    facts = [
        split_domains(pair(source, mixed(1, **o)), 0, NOTHING, CPU)[2].encoding
        for o in ({}, {"cities": "ABZ", "n": 30})
    ]
    assert facts[0] == facts[1]  # other target rows, with categories that the source does not have

    def fitted(changed: int) -> Mapping[str, Any]:
        rows = [list(row) for row in source]
        rows[changed] = [99.5, 7.5, "Z", rows[changed][3]]
        drawn = pair(rows, mixed(1))
        return drawn.encoding(drawn.source.x[:40]).facts

    assert fitted(40) == fitted(59) != fitted(39)
    assert columns_of(fitted(39))["city"]["categories"] == ["Z", "a", "b", "c"]


def test_a_category_has_the_same_code_in_every_process_and_whatever_else_there_is():
    assert code("blue") == 168810328316465  # the order of rows, and so the splits, rest on it


def test_a_column_without_variation_in_training_is_zero_everywhere():
    rows = [[0.1, row[1], *row[2:]] for row in mixed(0)]
    drawn = pair(rows, mixed(1))
    encoding = drawn.encoding(drawn.source.x)
    assert columns_of(encoding.facts)["age"]["sd"] == 0
    assert encoding.apply(drawn.target.x)[:, 0].abs().max() == 0
    unseen = drawn.encoding(torch.full_like(drawn.source.x, torch.nan))  # a column that training has nothing of
    assert torch.isfinite(unseen.apply(drawn.target.x)).all()


def test_the_order_of_columns_and_the_way_they_are_written_do_not_matter():
    rows, other = mixed(0), mixed(1)
    plain = pair(rows, other)
    write("d.csv", [f" {name} " for name in MIXED[::-1]], [row[::-1] for row in other], ";")
    Path("d.csv").write_text(Path("d.csv").read_text().replace("yes", '  "yes"'))
    text = "\r\n\r\n".join(",".join(f'"{cell}"' for cell in line) for line in [MIXED, *rows])
    Path("e.csv").write_text("\ufeff" + text, encoding="utf-8", newline="")
    quoted = csv(0, source="e.csv", target="b.csv")
    torch.testing.assert_close(quoted.source.x, plain.source.x, equal_nan=True, rtol=0, atol=0)
    write("f.csv", MIXED, rows, ";")
    turned = csv(0, source="f.csv", target="d.csv", separator="semicolon")
    torch.testing.assert_close(turned.target.x, plain.target.x, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(turned.target.y, plain.target.y)


def test_whole_numbers_are_one_category_and_one_class_however_written():
    header = ["x", "grade", "label"]
    source = [[i / 7, i % 3, f"{i % 2 * 9 + 1}.0"] for i in range(12)]
    target = [[i / 5, f"{i % 3}.0", i % 2 * 9 + 1] for i in range(12)]
    files = write("a.csv", header, source), write("b.csv", header, target)
    drawn = csv(0, source=files[0], target=files[1], categorical=("grade",))
    assert drawn.source.classes == drawn.target.classes == ("1", "10")
    encoding = drawn.encoding(drawn.source.x)
    assert columns_of(encoding.facts)["grade"]["categories"] == ["0", "1", "2"]
    assert encoding.apply(drawn.target.x)[:, 1:].sum(1).tolist() == [1.0] * 12


def test_classes_are_in_the_order_of_their_numbers():
    files = [
        write(f"{name}.csv", ["x", "label"], [[i / k, i % 11] for i in range(33)]) for name, k in (("a", 7), ("b", 5))
    ]
    assert csv(0, source=files[0], target=files[1]).source.classes == tuple(map(str, range(11)))


def test_label_sets_that_differ():
    data: Any = load_wine()
    rows = [[*x, f"cultivar {y}"] for x, y in zip(data.data.tolist(), data.target.tolist(), strict=True)]
    header = [*data.feature_names, "label"]
    source = write("a.csv", header, [row for row in rows[::2] if row[-1] != "cultivar 2"])
    target = write("b.csv", header, rows[1::2])
    with pytest.raises(UserError, match=r"does not have: 'cultivar 2'. dataset.labels=shared keeps"):
        csv(0, source=source, target=target)
    differ = csv(0, source=source, target=target, labels="differ")
    assert (len(differ.source.classes), len(differ.target.classes)) == (2, 3)
    shared = csv(0, source=source, target=target, labels="shared")
    assert shared.source.classes == shared.target.classes == ("cultivar 0", "cultivar 1")
    assert shared.notes == {
        "written": {role: {"separator": "comma", "encoding": "utf-8"} for role in ("source", "target")},
        "left_out": {"source": 0, "target": int((differ.target.y == 2).sum())},
        "label_knowledge": {"by": "target labels", "left_out": {"source": [], "target": ["cultivar 2"]}},
    }
    stated = csv(0, source=target, target=source, label_set=("cultivar 2", "cultivar 0"))
    assert stated.source.classes == stated.target.classes == ("cultivar 0", "cultivar 2")
    assert 2 not in stated.target.y and set(stated.source.y.tolist()) == {0, 1} and set(stated.target.y.tolist()) == {0}
    assert stated.notes["label_knowledge"] == {"by": "label_set", "classes": ["cultivar 0", "cultivar 2"]}
    with pytest.raises(UserError, match=r"no domain has a class 'cultivar 3' – did you mean 'cultivar \d'\?"):
        csv(0, source=source, target=target, label_set=("cultivar 0", "cultivar 3"))
    assert torch.equal(shared.target.x, differ.target.x[differ.target.y < 2])
    turned = csv(0, source=target, target=source, labels="shared")
    assert torch.equal(turned.source.x, shared.target.x) and torch.equal(turned.source.y, shared.target.y)


def test_what_is_only_in_the_target_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        source = mixed(0)
        pair(source, [*mixed(1, cities="abZ"), *source[:3]])
    assert "column 'city': the source has none of the target's Z" in caplog.text
    assert "3 of the 63 rows of the target also occur in the source, with the same label" in caplog.text


def test_rows_of_no_domain_are_said(caplog):
    rows = [[i / 7, i // 2 % 2, f"{i % 2}.0" if i > 2 else ""] for i in range(20)]
    file = write("all.csv", ["x", "label", "site"], rows)
    with caplog.at_level(logging.WARNING):
        drawn = csv(0, file=file, domain="site", source="0", target="1")
    assert len(drawn.source.x) + len(drawn.target.x) == 17
    assert "all.csv: ignored 3 rows without a value in column 'site'" in caplog.text


GOOD = "x,c,label\n" + "".join(f"{i / 7},{'uv'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(1, 13))
OTHER = GOOD.replace("0.", "3.")


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        # Text among numbers
        (GOOD + "abc,u,no\n", OTHER, {}, r"column 'x': line 14 of a.csv holds 'abc', which is no finite number"),
        (GOOD + "abc,u,no\n", OTHER, {}, r"dataset.missing=\"\['NA', .*'abc'\]\"; if .*dataset.categorical=\[x\]"),
        (GOOD, OTHER + "1.5.2,u,no\n", {}, r"column 'x': line 14 of b.csv holds '1.5.2'"),
        (GOOD + '"9\n9",u,no\ninf,u,no\n', OTHER, {"missing": ("9\n9",)}, r"line 16 of a.csv holds 'inf'"),
        (GOOD + "1e999,u,no\n", OTHER, {}, r"holds '1e999', which is beyond ±1e\+30, more than .* \(1 of 13 rows\)"),
        (GOOD, OTHER, {"numeric": ("c",)}, r"column 'c': line 2 of a.csv holds 'v'"),
        (GOOD.replace("0.", "0,").replace("1.", "1,"), OTHER, {}, r"line 2 of a.csv has 4 cells, the header 3"),
        # The file's form
        ("", OTHER, {}, "a.csv is empty: its first line must name the columns"),
        ("x,c,label\n", OTHER, {}, "a.csv has a header and no rows"),
        (GOOD[:-5] + "\n5,u\n", OTHER, {}, "of a.csv has 2 cells, the header 3: is it cut off"),
        (GOOD + '1,"u,no\n', OTHER, {}, "the row at line 14 of a.csv can't be read: .*are its quotes closed"),
        (GOOD, OTHER.replace(",", ";"), {"separator": "comma"}, r"b.csv has one column .* set dataset.separator=semi"),
        ("label\nyes\n", OTHER, {}, "a.csv has one column: a label and one more are needed"),
        (GOOD.replace("x,c", "x,x"), OTHER, {}, "a.csv has 2 columns of the name 'x'"),
        (GOOD.replace("x,c", ",c"), OTHER, {}, r"column 1 of a.csv has no name.*dataset.drop=\"\[''\]\""),
        # Labels
        (GOOD, OTHER, {"label": "lable"}, r"dataset.label=lable: a.csv has no .* did you mean 'label'\? \(it has x, c"),
        (GOOD + "1,u,\n2,u,NA\n", OTHER, {}, r"2 of the 14 rows of a have no label .*a.csv, lines 14, 15"),
        (GOOD.replace("yes", "no"), OTHER.replace("yes", "no"), {}, "leaves the source one class, 'no'"),
        (GOOD, OTHER.replace("yes", "Yes"), {}, "that the source does not have: 'Yes'. These differ only in spelling"),
        (GOOD, OTHER.replace("yes", "Y").replace("no", "N"), {"labels": "shared"}, "leaves the source no class"),
        (GOOD, OTHER, {"drop": ("x", "c")}, "a.csv has no column but the label 'label'"),
        # Columns
        (GOOD, OTHER.replace("x,c", "x,cc"), {}, r"a.csv has columns that b.csv does not have: c – did you mean 'cc'"),
        (GOOD, OTHER, {"drop": ("y",)}, r"dataset.drop: there is no column 'y' in a.csv and b.csv"),
        (GOOD, OTHER, {"categorical": ("X",)}, r"no column 'X' .* did you mean 'x'\? \(possible: c, x\)"),
        (GOOD, OTHER, {"categorical": ("x",), "drop": ("x",)}, "twice, in dataset.categorical and in dataset.drop"),
        (GOOD.replace(",u,", ",,").replace(",v,", ",?,"), OTHER, {}, r"'c' has no value .* dataset.drop=\[c\]"),
        # The domains
        (GOOD, GOOD, {}, "a and b hold the same rows: there is nothing to transfer"),
        (GOOD, OTHER, {"target": "d/../a.csv"}, "hold the same rows, as 'a.csv' and 'd/../a.csv'"),
        (GOOD, OTHER, {"target": "bb.csv"}, r"target=bb.csv: there is no such file – did you mean 'b.csv'\? \(in /.*a"),
        (GOOD, OTHER, {"target": None}, r"takes two files \(.*\), or one .*; given: dataset.source=a.csv$"),
        (GOOD, OTHER, {"file": "a.csv"}, r"given: dataset.source=a.csv dataset.target=b.csv dataset.file=a.csv$"),
        (GOOD, OTHER, {"file": "a.csv", "domain": "d"}, "dataset.domain=d: a.csv has no such column"),
        (GOOD, OTHER, {"file": "a.csv", "domain": "c"}, r"dataset.source=a.csv: there is no such value in column 'c'"),
        (GOOD, OTHER, {"file": "a.csv", "domain": "c", "source": None}, r"source must name a value .*\(it has u, v\)"),
        (GOOD, OTHER, {"file": "a.csv", "domain": "c", "source": "u", "target": "u"}, "are both u: there is nothing"),
        (GOOD, OTHER, {"domain": "label", "file": "a.csv"}, "named twice, in dataset.label and in dataset.domain"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words(source, target, options, message):
    Path("a.csv").write_text(source)
    Path("b.csv").write_text(target)
    with pytest.raises(UserError, match=message):
        csv(0, **{"source": "a.csv", "target": "b.csv", **options})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            GOOD.encode() + b'1,"' + b"u" * 200_000,
            "the row at line 14 of a.csv can't be read: unexpected end of data",
        ),
    ],
)
def test_bytes_that_are_no_table_are_refused(data, message):
    Path("a.csv").write_bytes(data)
    Path("b.csv").write_text(OTHER)
    with pytest.raises(UserError, match=message):
        csv(0, source="a.csv", target="b.csv")


def sides(column: Sequence[Any], **options: Any) -> Any:
    """Two files with this column named `it`, beside a number and a label."""
    for name, k in (("a", 7), ("b", 5)):
        write(f"{name}.csv", ["it", "x", "label"], [[cell, i / k, i % 2] for i, cell in enumerate(column)])
    return csv(0, source="a.csv", target="b.csv", **options)


@pytest.mark.parametrize(
    ("column", "message", "keeps"),
    [
        ([f"case {i:03}" for i in range(150)], "150 different texts in 150 rows, like 'case 000'", "categorical"),
        (list(range(30)), r"column 'it' of a.csv numbers the rows \(0, 1, …\)", "numeric"),
        ([f"{i % 9},5" for i in range(30)], r"holds '0,5', a number with a decimal comma", "categorical"),
        (["3+" if i % 4 == 0 else i % 4 for i in range(30)], r"line 2 of a.csv holds '3\+'", "categorical"),
    ],
)
def test_a_column_that_is_likely_a_mistake_is_refused_unless_it_is_named(column, message, keeps):
    with pytest.raises(UserError, match=message) as refused:
        sides(column)
    assert f"dataset.{keeps}=[it]" in str(refused.value)
    assert sides(column, **{keeps: ("it",)}).source.x.shape == (len(column), 2)
    assert sides(column, drop=("it",)).source.x.shape == (len(column), 1)


def test_numbers_beyond_what_is_computed_with_are_refused_as_such():
    huge = [f"{i - 3}.5e299" for i in range(60)]
    told = r"column 'it': line 2 of a.csv holds '-3.5e299', which is beyond ±1e\+30, more than is computed with: divide"
    for options in ({}, {"numeric": ("it",)}):
        with pytest.raises(UserError, match=told) as refused:
            sides(huge, **options)
        assert "dataset.drop=[it]" in str(refused.value) and "missing" not in str(refused.value)
    assert sides(huge, categorical=("it",)).source.x.shape == (60, 2)
    many = [*["a", "b", "c", "d"] * 10, *huge[:20]]  # a column of words, of which some look so
    assert sides(many).source.x.shape == (60, 2)


def test_numbers_too_close_to_compute_with_are_said(caplog):
    facts = fit(np.array([[i * 1e-310, i] for i in range(9)]), {"it": "numeric", "x": "numeric"}, {})
    assert facts["columns"][0]["sd"] == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("column 'it': its numbers differ by 8e-310 at most") and "dataset.drop=[it]" in said
    caplog.clear()
    fit(np.array([[0.1], [0.1]]), {"it": "numeric"}, {})  # a constant is another matter
    assert not caplog.records


def test_a_date_for_each_day_is_no_number_of_the_row():
    days = [f"2024-01-{day:02}" for day in range(1, 31)]
    assert sides(days, dates=("it",)).source.x.shape == (30, 2)


def test_more_texts_than_one_hot_is_for_are_refused_however_often_they_repeat(monkeypatch):
    monkeypatch.setattr(columns, "TOO_MANY", 110)
    with pytest.raises(UserError, match="111 different texts in 333 rows"):
        sides([f"zip {i % 111}" for i in range(333)])


@pytest.mark.parametrize("labels", [3 * [f"{i / 8 + 0.01:.2f}" for i in range(60)], [f"case {i}" for i in range(60)]])
def test_a_measurement_or_an_identifier_is_no_label(labels):
    rows = [[i / 7, label] for i, label in enumerate(labels)]
    files = write("a.csv", ["x", "label"], rows), write("b.csv", ["x", "label"], rows[::-1])
    with pytest.raises(UserError, match=r"column .label. of a.csv has 60 different values .* dataset.task=regression"):
        csv(0, source=files[0], target=files[1])


@pytest.mark.parametrize("words", [["id"], ["mean radius"], [""], ["NA", "N/A", "NaN", "NULL", "?", "a-b"], ["null"]])
def test_what_is_proposed_can_be_typed(words):
    typed_words = format_option("drop", words).replace('"', "")  # as a shell passes it on
    value = OverridesParser.create().parse_override(typed_words).value()
    assert config.convert_value(value, tuple[str, ...], "dataset.drop") == tuple(words)


def test_a_run_on_tables(tmp_path):
    header, rows = cancer()
    write("all.csv", header, rows)
    options = ["dataset.file=all.csv", "dataset.domain=site", "dataset.source=smooth", "dataset.target=rough"]
    overrides = [
        "dataset=table",
        *options,
        "dataset.label=diagnosis",
        "backbone=mlp",
        "train=tiny",
        "method=source_only",
    ]
    record = made(tmp_path, *overrides)
    assert record.status == "ok" and record.headline > 0.8
    assert composed(*overrides)[0]["dataset"]["missing"] == ["NA", "N/A", "NaN", "NULL", "?"]
