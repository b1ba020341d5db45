"""Whether two folders of runs hold the same numbers to the last bit: before a change of the code and after.

    tl-run -m method=… train=tiny outputs=BEFORE      # with the code before
    tl-run -m method=… train=tiny outputs=AFTER       # with the code after
    python scripts/compare_runs.py BEFORE AFTER

Runs are matched by dataset, backbone, method, seed, label budget and the values of their configuration. Compared are
the status, the scores, the evidence, the curve without its seconds, and the bytes of `predictions` and `model`. Records
are read as they are, since those of before may have another schema.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TIMES = {"seconds"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    said = parser.parse_args()
    before, after = find_runs(said.before), find_runs(said.after)
    if not before or not after:
        raise SystemExit(f"no runs in {said.after if before else said.before}")
    different = 0
    for key in sorted(before.keys() | after.keys()):
        if key not in before or key not in after:
            faults = [f"only in {said.before if key in before else said.after}"]
        else:
            faults = [*list_differences(before[key], after[key])]
        if faults:
            different += 1
            print(f"{' '.join(key[:5])}: {'; '.join(faults)}")
    print(f"{len(before)} runs before, {len(after)} after, {different} different")
    raise SystemExit(different > 0)


def find_runs(outputs: Path) -> dict[tuple[str, ...], Path]:
    """The folders of runs by what they were told to do."""
    found = {}
    for file in outputs.rglob("run.json"):
        run = json.loads(file.read_text())
        choices = [run["choices"][group] for group in ("dataset", "backbone", "method")]
        config = {key: value for key, value in run["config"].items() if key != "outputs"}
        values = json.dumps(without(config, {"_target_"}), sort_keys=True)
        found[(*choices, str(run["seed"]), str(run["granted"]), values)] = file.parent
    return found


def list_differences(before: Path, after: Path) -> Iterator[str]:
    """What differs between two runs."""
    one, other = (json.loads((folder / "run.json").read_text()) for folder in (before, after))
    for name in ("status", "scores", "evidence"):
        if one[name] != other[name]:
            yield f"{name} {one[name]} -> {other[name]}"
    curves = [read_curve(folder / "curve.jsonl") for folder in (before, after)]
    if curves[0] != curves[1]:
        yield "curve"
    for name in ("predictions", "model"):
        files = [folder / f"{name}.safetensors" for folder in (before, after)]
        if files[0].exists() != files[1].exists():
            yield f"{name} only once"
        elif files[0].exists() and files[0].read_bytes() != files[1].read_bytes():
            yield name


def read_curve(file: Path) -> list[Any]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [without(json.loads(line), TIMES) for line in lines]


def without(node: Any, names: set[str]) -> Any:
    """The same tree without the keys of these names."""
    if isinstance(node, Mapping):
        return {key: without(value, names) for key, value in node.items() if key not in names}
    return [without(value, names) for value in node] if isinstance(node, list) else node


if __name__ == "__main__":
    main()
