"""Who a run is: a hash of its configuration, so that the same one has the same folder. Needs no torch.

The hash takes in the source of every part that comes from outside of this package, and the content of a file of
weights that the configuration names.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

READ = 2**28  # bytes of a dataset's files that are read to tell whether they changed


def identify(config: Mapping[str, Any]) -> str:
    """A hash of a configuration, with the sources of parts from outside and the files of weights that it names."""
    return _digest([config, sorted(_sources(config))])


def stamp(dataset: Any) -> str | None:
    """A hash of the files that a dataset's options name; None where they name none.

    By their content up to `READ` bytes in all; beyond, by their names, sizes and times, which are cheap and tell that
    files may have changed, not that they have.
    """
    named = (
        [Path(value) for value in dataset.values() if isinstance(value, str)] if isinstance(dataset, Mapping) else []
    )
    files = sorted(file for path in named if path.exists() for file in ([path] if path.is_file() else path.rglob("*")))
    known = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return _content(tuple(known)) if known else None


@lru_cache(maxsize=64)  # the jobs of a sweep mostly name the same files
def _content(files: tuple[tuple[str, int, int], ...]) -> str:
    if sum(size for _, size, _ in files) > READ:
        return _digest(files)
    return _digest([(name, blake2b(Path(name).read_bytes()).hexdigest()) for name, _, _ in files])


def leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same tree of mappings and lists, its leaves changed."""
    if isinstance(value, Mapping):
        return {str(key): leaves(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [leaves(item, change) for item in value]
    return change(value)


def _canonical(leaf: Any) -> Any:
    """Numbers as floats, so that 1 and 1.0 are the same setting."""
    return float(leaf) if isinstance(leaf, int) and not isinstance(leaf, bool) else leaf


def _digest(value: Any) -> str:
    text = json.dumps(leaves(value, _canonical), sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=5).hexdigest()


def _sources(node: Any) -> Iterator[str]:
    """A hash of the source file of each `_target_` outside this package, and of each file of weights."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and not target.startswith("tl_runner."):
            yield _source(target.rpartition(".")[0])
        if isinstance(node.get("weights"), str) and Path(node["weights"]).is_file():
            yield blake2b(Path(node["weights"]).read_bytes()).hexdigest()
        for value in node.values():
            yield from _sources(value)
    elif isinstance(node, list):
        for value in node:
            yield from _sources(value)


def _source(module: str) -> str:
    try:
        spec = find_spec(module)
        return blake2b(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else module
    except (ImportError, ValueError, OSError):
        return module  # not to be found or read: the run will say so
