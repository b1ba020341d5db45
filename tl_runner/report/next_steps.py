"""What a user may want after a run: its folder, what it gained over the baseline, and the command that says more."""

import shlex
from collections.abc import Sequence

from tl_runner.options import parse_words
from tl_runner.plurals import count_noun
from tl_runner.storage.record import RunRecord

FIVE_SEEDS = "0,1,2,3,4"  # enough for an interval


def list_next_steps(record: RunRecord, baseline: RunRecord | None, words: Sequence[str] = ()) -> list[str]:
    """Where the run lies, what of it is wanted first, and how to compare it; `words` are those of its command."""
    lines, method = [str(record.folder)], record.choices["method"]
    if (predictions := record.folder / "predictions.csv").exists():
        rows = count_noun(sum(record.data.rows["target"]), "row")
        what = "value" if record.data.quantity else "class"
        lines.append(f"{predictions.name} there has the {what} of each of the target's {rows}")
    if record.headline is None:
        return lines
    if method == record.baseline:
        return [*lines, f"{method} is what other methods are compared with: tl-report has the table"]
    if baseline is None or baseline.headline is None or baseline.data.granted != record.data.granted:
        labels = "" if baseline is None else " with as many labels"
        return [
            *(*lines, f"no baseline{labels} to compare with yet; to see what {method} gains:"),
            _name_command(words, record, method=record.baseline),
        ]
    gain = record.headline - baseline.headline
    gained = f"{100 * gain:+.1f} points" if record.metric == "accuracy" else f"{gain:+.3g} of R²"
    lines.append(f"{gained} over {record.baseline}, with one seed. To test that with five:")
    swept = ["-m", *words]
    if any(key.startswith("method.") for key in parse_words(words)):  # options that the baseline does not have
        both = [
            _name_command(swept, record, method=record.baseline, seed=FIVE_SEEDS),
            _name_command(swept, record, seed=FIVE_SEEDS),
        ]
    else:
        both = [_name_command(swept, record, method=f"{record.baseline},{method}", seed=FIVE_SEEDS)]
    return [*lines, " && ".join([*both, "tl-report"])]


def _name_command(words: Sequence[str], record: RunRecord, **instead: str) -> str:
    """The command as typed, with these values instead; another method is named without the options of this one."""
    groups = [next(iter(parse_words([word])), "").partition(".")[0] for word in words]
    kept = [word for word, group in zip(words, groups, strict=True) if group not in {*instead, "force"}]
    if "granted" not in groups and record.granted not in (0, "0") and str(record.granted).isdigit():
        kept.append(f"granted={record.granted}")  # what auto came to: a method that needs none takes none
    return shlex.join(["tl-run", *kept, *(f"{key}={value}" for key, value in instead.items())])
