"""Configurations composed once, before anything starts: a file edited in the middle of a sweep changes no job."""

from collections.abc import Sequence
from typing import Any


class Frozen:
    """A config loader of Hydra's that hands out, once, what was composed ahead; else it is the loader that it wraps."""

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
