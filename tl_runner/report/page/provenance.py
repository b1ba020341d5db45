"""Where every run comes from: enough to find it, to make it again, and to see why one is missing."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tl_runner.plurals import count_noun
from tl_runner.storage.record import RunRecord
from tl_runner.storage.sections import Environment


def describe_run_line(record: RunRecord) -> dict[str, Any]:
    """One run's line."""
    environment = record.environment
    commit = (environment.commit or "")[:10]
    return {
        "method": record.choices.get("method", "?"),
        "backbone": record.choices.get("backbone", "?"),
        "seed": record.seed,
        "granted": record.granted,
        "status": record.status,
        "seconds": record.seconds,
        "id": record.id,
        "folder": str(record.folder),
        "commit": (commit + (" + changes" if environment.dirty else "")) if commit else "not under git",
        "versions": ", ".join(versions(record)),
        "machine": " · ".join(part for part in (environment.device, _threads(environment), environment.engine) if part),
        "data": " → ".join(each[:8] for each in record.data.fingerprint.values()),
        "error": record.error or "",
    }


def versions(record: RunRecord) -> list[str]:
    """Of Python and the libraries, as `torch 2.15.0`."""
    named = {"python": record.environment.python, **record.environment.versions}
    return [f"{name} {version}" for name, version in named.items() if version]


def count_versions(records: Sequence[RunRecord]) -> list[str]:
    """Every version that any run was made with, and by how many where there are several of a library."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for said in versions(record):
            name, _, version = said.partition(" ")
            counted.setdefault(name, Counter())[version] += 1
    return [
        f"{name} {next(iter(found))}"
        if len(found) == 1
        else f"{name} " + ", ".join(f"{v} ({count_noun(n, 'run')})" for v, n in found.most_common())
        for name, found in counted.items()
    ]


def _threads(environment: Environment) -> str:
    return count_noun(environment.threads, "thread") if environment.threads else ""
