"""Several source domains in tables: files, values of a column, and texts."""

import pytest
import torch
from conftest import described, made

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.split import split_domains
from tl_runner.datasets.table import table
from tl_runner.datasets.text import text
from tl_runner.errors import UserError

CPU = torch.device("cpu")
WORDS = ["train=tiny", "pretrain=tiny", "backbone=mlp"]


def write(path, rows: int, offset: float, classes: tuple[str, ...] = ("no", "yes"), extra: str = "") -> str:
    lines = [f"x,kind{extra and ',' + extra},label"]
    for row in range(rows):
        more = ",1" if extra else ""
        lines.append(
            f"{offset + row * 37 % 101 / 10},{'red' if row % 3 else 'blue'}{more},{classes[row % len(classes)]}"
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def files(tmp_path):
    return [write(tmp_path / f"{name}.csv", 30, 1000.0 * k) for k, name in enumerate(("a", "b", "t"))]


def test_files_are_pooled_and_rows_keep_their_places(files):
    drawn = table(0, source=(files[0], files[1]), target=files[2])
    source = drawn.source
    assert source and source.members == ("a", "b") and source.name == "a + b" and source.member is not None
    assert source.names is not None and source.names[0] == f"{files[0]}:2" and source.names[30] == f"{files[1]}:2"
    assert ((source.x[:, 0] >= 1000).long() == source.member).all()
    pair, _, info = split_domains(drawn, 0, Budget.parse("0"), CPU)
    assert info.members == {"a": [18, 6, 6], "b": [18, 6, 6]} and pair.source and len(pair.source.train) == 36


@pytest.mark.parametrize("source", ["*.csv", ("a.csv", "*.csv"), ".", ("a.csv", "[ab].csv")], ids=str)
def test_a_file_is_in_one_domain_whatever_names_it(source, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"both read (a|t|\./t)\.csv, as"):
        table(0, source=source, target="t.csv")


def test_sources_must_spell_classes_alike_and_have_values_in_each_column(files, tmp_path):
    shouting = write(tmp_path / "up.csv", 30, 0.0, ("NO", "YES"))
    with pytest.raises(UserError, match=r"only in spelling: 'no' \(a\) and 'NO' \(up\), 'yes' \(a\) and 'YES'"):
        table(0, source=(files[0], shouting), target=files[2])
    empty = tmp_path / "empty.csv"
    empty.write_text("\n".join(["x,kind,label", *(f",red,{('no', 'yes')[row % 2]}" for row in range(30))]))
    with pytest.raises(UserError, match="column 'x' has no value in the source domain empty"):
        table(0, source=(files[0], str(empty)), target=files[2])


def test_values_of_a_column_are_pooled(files, tmp_path):
    whole = tmp_path / "all.csv"
    lines = ["site,x,label"]
    lines += [f"{'abct'[k]},{1000 * k + row},{'yes' if row % 2 else 'no'}" for row in range(20) for k in range(4)]
    whole.write_text("\n".join(lines))
    drawn = table(0, file=str(whole), domain="site", source=("c", "a"), target="t")
    assert drawn.source and drawn.source.member is not None and drawn.source.members == ("c", "a")
    values = drawn.source.x[:, 0]
    assert (values[drawn.source.member == 0] >= 2000).all() and (values[drawn.source.member == 1] < 1000).all()


def test_a_domain_of_several_files_is_one_member(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "1.csv", 10, 0.0)
    write(tmp_path / "a" / "2.csv", 12, 100.0)
    b, t = write(tmp_path / "b.csv", 30, 1000.0), write(tmp_path / "t.csv", 30, 2000.0)
    source = table(0, source=(str(tmp_path / "a"), b), target=t).source
    assert source and source.member is not None and source.names is not None
    assert source.member.tolist() == [0] * 22 + [1] * 30
    assert source.names[10].endswith("2.csv:2") and source.names[22].endswith("b.csv:2")


def test_a_category_is_the_same_in_all_sources(tmp_path):
    one = tmp_path / "one.csv"
    one.write_text("x,code,label\n1.5,7,no\n2,8,yes\n3,7,no\n4,8,yes\n")
    other = tmp_path / "other.csv"
    other.write_text("x,code,label\n1.5,A,no\n2,7,yes\n3,A,no\n4,7,yes\n")
    target = tmp_path / "t.csv"
    target.write_text("x,code,label\n5.5,7,no\n6,8,yes\n7,A,no\n8,A,yes\n")
    drawn = table(0, source=(str(one), str(other)), target=str(target), categorical=("code",))
    assert drawn.source and drawn.source.x.shape == (8, 2)
    codes = drawn.source.x[:, 1]
    assert codes[0] == codes[5] != codes[4]  # 7 in both files is one category


def test_a_class_that_one_source_lacks_is_told(tmp_path, caplog):
    a = write(tmp_path / "a.csv", 30, 0.0, ("no", "yes", "maybe"))
    b, t = write(tmp_path / "b.csv", 30, 1000.0), write(tmp_path / "t.csv", 30, 2000.0, ("no", "yes", "maybe"))
    drawn = table(0, source=(a, b), target=t)
    assert drawn.target.classes == ("maybe", "no", "yes")
    assert "the source domain b has no row of class maybe" in caplog.text
    shared = table(0, source=(a, b), target=t, labels="shared")
    assert shared.target.classes == ("no", "yes") and shared.source and len(shared.source.y) == 50


def test_a_missing_label_is_found_in_the_source_that_has_it(files, tmp_path):
    odd = tmp_path / "odd.csv"
    odd.write_text("x,kind,label\n1,red,no\n2,red,NA\n3,blue,yes\n")
    with pytest.raises(UserError, match=r"odd\.csv:3"):
        table(0, source=(files[0], str(odd)), target=files[2])


@pytest.mark.parametrize(
    ("source", "said"), [((0, 0), "twice"), ((0, 2), "nothing to transfer"), ((0, 3), "must have the same columns")]
)
def test_sources_that_can_not_be_pooled_are_refused(files, tmp_path, source, said):
    files = [*files, write(tmp_path / "wide.csv", 10, 0.0, extra="more")]
    with pytest.raises(UserError, match=said):
        table(0, source=tuple(files[k] for k in source), target=files[2])


def test_quantities_of_several_sources_are_pooled(tmp_path):
    for k, name in enumerate(("a", "b", "t")):
        rows = [f"{row * 37 % 101},{row * 2.5 + k}" for row in range(30)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,price", *rows]))
    named = [str(tmp_path / f"{name}.csv") for name in ("a", "b", "t")]
    drawn = table(0, source=(named[0], named[1]), target=named[2], label="price", task="regression")
    assert drawn.source and drawn.source.quantity == "price" and drawn.source.members == ("a", "b")


def test_texts_of_several_files_are_pooled(tmp_path):
    for name in ("a", "b", "t"):
        rows = [f"{name} number {row},{'good' if row % 2 else 'bad'}" for row in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    named = [str(tmp_path / f"{name}.csv") for name in ("a", "b", "t")]
    source = text(0, source=(named[0], named[1]), target=named[2]).source
    assert source and source.texts is not None and source.member is not None
    assert [words[0] for words in source.texts] == ["ab"[k] for k in source.member.tolist()]


def test_groups_are_whole_within_each_source_and_over_all(tmp_path):
    for k, name in enumerate(("a", "b", "t")):
        rows = [f"{1000 * k + row * 37 % 101},p{row // 3},{'yes' if row % 2 else 'no'}" for row in range(60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,patient,label", *rows]))
    named = [str(tmp_path / f"{name}.csv") for name in ("a", "b", "t")]
    drawn = table(0, source=(named[0], named[1]), target=named[2], group="patient")
    source = split_domains(drawn, 0, Budget.parse("0"), CPU)[0].source
    assert source and drawn.source
    rank = drawn.source.x[:, 0].argsort().argsort()  # inputs are standardised, which keeps their order
    patient_at = {int(rank[row]): row % 60 // 3 for row in range(120)}
    whole = torch.cat([split.take(torch.arange(len(split)))[:, 0] for split in (source.train, source.val, source.test)])
    order = {value: at for at, value in enumerate(sorted(whole.tolist()))}
    found = []
    for member in source.members:
        of_part = [
            {patient_at[order[value]] for value in split.take(rows)[:, 0].tolist()}
            for split, rows in ((source.train, member.train), (source.val, member.val), (source.test, member.test))
        ]
        assert sum(map(len, of_part)) == len(set.union(*of_part)) == 20
        found.append(of_part)
    assert found[0] == found[1]  # the files have the same patients, each in one part over both


def test_a_run_and_its_id_follow_the_content_of_every_source(files, tmp_path):
    words = [*WORDS, "dataset=table", f"dataset.source=[{files[0]},{files[1]}]", f"dataset.target={files[2]}"]
    record = made(tmp_path / "outputs", *words, "method=mmd")
    assert record.status == "ok" and record.data.members and [*record.data.members] == ["a", "b"]
    write(tmp_path / "b.csv", 30, 1001.0)
    assert described(tmp_path / "outputs", *words, "method=mmd").id != record.id
