"""Tables written in another way than 1100.5, in a run and in predicting: the same detection, notation and dates."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import made

from tl_runner.inference.load import load

TINY = ["train=tiny", "backbone=linear", "method=source_only", "device=cpu", "threads=1", "outputs=outputs"]

PARTS = ("train", "val", "test")


def german(seed: int, n: int = 60) -> str:
    """Semicolons, decimal commas, points between thousands, dates, umlauts."""
    rng = np.random.default_rng(seed)
    lines = ["größe;tag;stadt;label"]
    for i in range(n):
        size = f"{rng.normal(2000, 700) + 500 * (i % 2):,.2f}".translate(str.maketrans(",.", ".,"))
        lines.append(f"{size};2024-{1 + i % 12:02}-{1 + i % 28:02};{['Köln', 'Ulm'][i % 2]};{['nein', 'ja'][i % 2]}")
    return "\n".join(lines) + "\n"


KEYS = ["dataset.decimal=comma", "dataset.thousands=point", "dataset.dates=[tag]"]


def sheet(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_on_german_exports_predicts_them_again_and_others_alike(typed):
    Path("a.csv").write_bytes(german(0).encode("cp1252"))
    Path("d").mkdir()
    Path("d/b-1.csv.gz").write_bytes(gzip.compress(german(1).encode("utf-16")))
    Path("d/b-2.csv").write_text(german(2).replace(";", "\t"), encoding="utf-8-sig")
    record = made(Path("outputs"), "dataset=table", "dataset.source=a.csv", "dataset.target=d/b-*", *KEYS, *TINY[:-1])
    assert record.status == "ok", record.error
    assert record.data.notes["written"] == {
        "source": {"separator": "semicolon", "encoding": "latin-1"},
        "target": {"separator": "semicolon, tab", "encoding": "utf-16, utf-8"},
    }
    again = typed("tl-predict", record.folder, "--test", "--out", "again.csv")
    assert again.code == 0 and "24 of 24" in again.err, again
    predicted = {row["path"]: row for row in sheet(record.folder / "predictions.csv")}
    assert {name.partition(":")[0] for name in predicted} == {"d/b-1.csv.gz", "d/b-2.csv"}
    assert typed("tl-predict", record.folder, "d", "--out", "all.csv").code == 0
    for row in sheet(Path("all.csv")):
        assert float(row["ja"]) == pytest.approx(float(predicted[row["path"]]["ja"]), abs=1e-5)
    trained = load(record.folder)
    one = {"größe": "1.999,50", "tag": "2024-03-01", "stadt": "Köln"}
    same = {"größe": 1999.5, "tag": 19783.0, "stadt": "Köln"}
    torch.testing.assert_close(trained.preprocessing(one), trained.preprocessing(same), rtol=0, atol=0)


@pytest.mark.parametrize("option", ["dataset.split=teil", "dataset.group=wer", "dataset.time=tag"])
def test_columns_that_divide_rows_are_no_inputs_and_need_not_be_there_in_predicting(option, typed):
    for name, shift in (("a", 0), ("b", 10)):
        rows = [
            f"{i / 7 + shift},{PARTS[max(0, i % 10 - 7)]},p{i % 12},2024-01-{1 + i % 28:02},{i // 3 % 2}"
            for i in range(80)
        ]
        Path(f"{name}.csv").write_text("\n".join(["x,teil,wer,tag,label", *rows]))
    column = option.partition("=")[2]
    dropped = ",".join(each for each in ("teil", "wer", "tag") if each != column)
    words = ["dataset=table", "dataset.source=a.csv", "dataset.target=b.csv", f"dataset.drop=[{dropped}]", option]
    record = made(Path("outputs"), *words, *TINY[:-1])
    assert record.status == "ok", record.error
    assert [each["name"] for each in record.data.encoding["columns"]] == ["x"]
    assert typed("tl-predict", record.folder, "--test").code == 0
    Path("new.csv").write_text("x\n1\n2\n")
    new = typed("tl-predict", record.folder, "new.csv")
    assert new.code == 0 and "ignored" not in new.err
    whole = typed("tl-predict", record.folder, "b.csv")
    assert whole.code == 0 and "ignored" not in whole.err
