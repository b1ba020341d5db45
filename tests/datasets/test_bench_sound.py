"""scripts/bench_sound.py: its runs compose, and its page says what is kept of them."""

from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from conftest import composed
from support.scripts import import_script

from tl_runner import experiments
from tl_runner.experiments import expand_words

ROOT = Path(__file__).parents[2]
CELL = {"n": "5", "failed": "0", "target": "0.8", "target_sd": "0.02", "source": "0.9", "seconds": "7.4"}
NONE = {"difference": "", "low": "", "high": ""}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("bench_sound", monkeypatch)


def test_ten_methods_on_three_tasks_and_five_seeds_compose(bench, tmp_path):
    file = tmp_path / f"{bench.NAME}.yaml"
    file.write_text(bench.describe(tmp_path / "words"))
    found = experiments.read_experiment(file)
    listed = ",".join((bench.WITHOUT_LABELS, bench.WITH_LABELS, bench.ON_FEATURES))
    assert len({*listed.split(",")}) == 10 and found.runs == 3 * 5 * (7 + 4 + 1) and len(found.compare) == 2
    for line in expand_words([], [found]):
        split = [word.partition("=") for word in line]
        values = [[f"{key}={value}" for value in listed.split(",")] for key, _, listed in split]
        for words in product(*(dict.fromkeys((each[0], each[-1])) for each in values)):
            config, _ = composed(*words)
            assert config["dataset"]["sample_rate"] == 8000


def test_a_row_has_its_accuracy_and_its_differences_to_both_baselines(bench):
    pair = "audio target=german"
    gain = {"difference": "0.1", "low": "0.05", "high": "0.15"}
    rows = [
        {"pair": pair, "label": "finetune", "granted": "5", **CELL, **gain},
        {"pair": pair, "label": "target_only", "granted": "5", **CELL, **NONE, "failed": "1", "n": "4"},
        {"pair": "audio target=flite", "label": "source_only", "granted": "0", **CELL, **NONE},
        {"pair": "audio target=flite", "label": "finetune", "granted": "5", **CELL, **NONE},
    ]
    over = {"pair": pair, "one": "finetune", "granted": "5", "difference": "-0.02", "low": "-0.05", "high": "0.01"}
    lines = [*bench.page(rows, [over])]
    (heading,) = [line for line in lines if "→ german" in line]
    assert heading.endswith("another language (n = 4 to 5 seeds a row, 1 run failed)")
    of_german = lines[lines.index(heading) :]
    assert of_german[4] == "| `finetune` | 5 | 80.0 ± 2.0 | +10.0 (+5.0 to +15.0) | −2.0 (−5.0 to +1.0) | 90.0 | 7 |"
    assert of_german[5] == "| `target_only` | 5 | 80.0 ± 2.0 |  |  | – | 7 |"
    assert "| `source_only` | 0 | 80.0 ± 2.0 |  |  | 90.0 | 7 |" in lines
    assert "| `finetune` | 5 | 80.0 ± 2.0 |  | not measured | 90.0 | 7 |" in lines
    assert "**espeak → caribbean**, another accent: no runs are kept." in lines
