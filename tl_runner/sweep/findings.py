"""What a search has found so far, for its `study.json` and in words."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tl_runner.plurals import count_noun
from tl_runner.storage.atomic import write_atomically
from tl_runner.sweep.study import STATES, Study, state
from tl_runner.sweep.study_spec import OBJECTIVES


def summarise_study(study: Study, words: Sequence[str]) -> dict[str, Any]:
    """All trials of a study, and the best of them with the command that makes its runs; `words`: the command line."""
    trials, best, sought, values = study.trials(), study.best(), study.sought, study.values()
    counts = Counter(map(state, trials))
    return {
        "name": sought.folder.name,
        "folder": str(sought.folder),
        "objective": sought.objective,
        "by": study.by,
        "meaning": OBJECTIVES[study.by].meaning,
        "space": [dimension.words for dimension in sought.dimensions],
        "fixed": list(sought.fixed),
        "seeds": list(sought.seeds),
        "way": sought.way.words,
        "trials_in_all": sought.way.trials,
        "counts": {name: counts[name] for name in (*STATES, "unfinished")},
        "best": best
        and {
            "trial": best.number,
            "value": values[best.number],
            "parameters": study.typed(best),
            "runs": best.user_attrs["runs"],
            "command": _command(words, [*sought.fixed, *study.typed(best)], sought.seeds),
        },
        "trials": [
            {"trial": trial.number, "state": state(trial), "value": values.get(trial.number), "told": trial.value}
            | {"parameters": trial.params, **trial.user_attrs}
            for trial in trials
        ],
    }


def write_study(study: Study, found: dict[str, Any]) -> None:
    write_atomically(study.sought.folder / "study.json", json.dumps(found, indent=2).encode())


def format_findings(found: dict[str, Any]) -> str:
    """The findings in a few lines."""
    counts = [f"{count} {name}" for name, count in found["counts"].items() if count or name in ("ok", "failed")]
    trials = f"{len(found['trials'])} of {count_noun(found['trials_in_all'], 'trial')}"
    lines = [f"{found['name']}: {trials}, {', '.join(counts)}"]
    seeds = f"; mean of {count_noun(len(found['seeds']), 'seed')}" if found["seeds"] else ""
    if best := found["best"]:
        lines += [
            f"  best    {' '.join(best['parameters'])} (trial {best['trial']})",
            f"  {found['by']:<7} {_format_value(best['value'], found['by'])}: {found['meaning']}{seeds}",
            *(f"  run     {run}" for run in best["runs"]),
            f"  again   {best['command']}",
        ]
    return "\n".join([*lines, f"  study   {found['folder']}/study.json"])


def _format_value(value: float, objective: str) -> str:
    return f"{100 * value:.1f} %" if OBJECTIVES[objective].share else f"{value:.3f}"


def _command(words: Sequence[str], overrides: Sequence[str], seeds: Sequence[str]) -> str:
    folders = [word for word in words if word.startswith("--config-dir=")]
    folders += [part for pair in pairwise(words) if pair[0] in ("--config-dir", "-cd") for part in pair]
    several = [f"seed={','.join(seed.removeprefix('seed=') for seed in seeds)}"] if seeds else []
    kept = [word for word in overrides if word.partition("=")[0] not in ("objective", "force", "dry")]
    return shlex.join(["tl-run", *(["-m"] if len(seeds) > 1 else []), *folders, *kept, *several])
