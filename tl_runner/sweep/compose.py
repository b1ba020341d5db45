"""Configurations of a sweep's jobs: composed before anything starts, and by Hydra only once per choice of groups.

A file that is edited in the middle of a sweep changes no job. Hydra takes 80 ms for a job; a job that differs from an
earlier one in plain values alone is a copy of it with these values.
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from tl_runner import options

PLAIN_KEY = re.compile(r"\w+(\.\w+)*")


class Composed(NamedTuple):
    """A job's configuration in plain types, the option of each group, and the job's overrides of it."""

    config: dict[str, Any]
    choices: Mapping[str, Any]
    overrides: list[str]


def read_composed(composed: Any, hydra: Any) -> Composed:
    """A composed configuration with all values resolved; `hydra` is Hydra's own part of it."""
    from omegaconf import OmegaConf

    plain = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    config = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return Composed({str(key): value for key, value in config.items()}, hydra.runtime.choices, [*hydra.overrides.task])


class Composer:
    """Composes the jobs of a sweep, whose master configuration is Hydra's."""

    def __init__(self, loader: Any, master: Any):
        self._loader, self._master = loader, master
        self._bases: dict[tuple[str, ...], Composed | None] = {}

    def compose(self, overrides: Sequence[str]) -> Composed:
        """A job's configuration; raises as Hydra does where it can't be composed."""
        values, others = [], []
        for word in overrides:
            (values if _is_value(parsed := _parse(word)) else others).append((word, parsed))
        if base := self._get_base(tuple(word for word, _ in others)):
            config = deepcopy(base.config)
            if all(_set(config, parsed.key_or_group, parsed.value()) for _, parsed in values):
                named = [word for word in overrides if not word.startswith("hydra.")]
                return Composed(config, base.choices, named)
        composed = self._loader.load_sweep_config(self._master, list(overrides))
        return read_composed(composed, composed.hydra)

    def _get_base(self, words: tuple[str, ...]) -> Composed | None:
        """What these overrides make without the others; None where that can't be told, or would follow from them."""
        if words not in self._bases:
            self._bases[words] = self._compose_base(words)
        return self._bases[words]

    def _compose_base(self, words: tuple[str, ...]) -> Composed | None:
        from omegaconf import OmegaConf

        try:
            composed = self._loader.load_sweep_config(self._master, list(words))
            raw = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            if _interpolates(OmegaConf.to_container(raw, resolve=False)):
                return None
            return read_composed(composed, composed.hydra)
        except Exception:  # the job's own composition says what is wrong, in its own words
            return None


@cache
def _parse(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def _is_value(override: Override) -> bool:
    """Whether it sets one plain value of a key, and chooses no option of a group."""
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override():
        return False
    if override.package is not None or not PLAIN_KEY.fullmatch(key):
        return False
    if key.partition(".")[0] == "hydra" or key in options.defaults():
        return False
    value = override.value()
    return not isinstance(value, dict | list) and not _interpolates(value)


def _set(config: dict[str, Any], key: str, value: Any) -> bool:
    """Put the value in the place of one that is there; False where there is none, or more than a plain one."""
    *path, last = key.split(".")
    node: Any = config
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict | list):
        return False
    node[last] = value
    return True


def _interpolates(value: Any) -> bool:
    """Whether anything in it refers to another value, or is still to be given."""
    if isinstance(value, dict):
        return any(map(_interpolates, value.values()))
    if isinstance(value, list):
        return any(map(_interpolates, value))
    return isinstance(value, str) and ("${" in value or value == "???")


class FrozenLoader:
    """Wraps Hydra's config loader: returns, once, what was composed before; else asks the loader."""

    def __init__(self, loader: Any):
        self._loader = loader
        self._ahead: dict[tuple[str, ...], Any] = {}

    def compose(self, master: Any, overrides: Sequence[str], keep: bool) -> Any:
        """A job's configuration; `keep`: to be handed out when it is loaded."""
        composed = self._loader.load_sweep_config(master, list(overrides))
        if keep:
            self._ahead[tuple(overrides)] = composed
        return composed

    def load_sweep_config(self, master_config: Any, sweep_overrides: list[str]) -> Any:
        ahead = self._ahead.pop(tuple(sweep_overrides), None)
        return self._loader.load_sweep_config(master_config, sweep_overrides) if ahead is None else ahead

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as when it is unpickled, and has no loader yet
            raise AttributeError(name)
        return getattr(self._loader, name)


class RememberingRepository:
    """Wraps Hydra's config repository: remembers each file as it was when it was first read."""

    def __init__(self, repository: Any):
        self._repository = repository
        self._read: dict[str, Any] = {}

    def load_config(self, config_path: str) -> Any:
        if config_path not in self._read:
            self._read[config_path] = self._repository.load_config(config_path)
        return deepcopy(self._read[config_path])

    def __deepcopy__(self, memo: dict[int, Any]) -> "RememberingRepository":
        return self  # Hydra copies its repository for each job, and would read all files anew

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as when it is unpickled, and has no repository yet
            raise AttributeError(name)
        return getattr(self._repository, name)
