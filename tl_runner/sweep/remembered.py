"""Configuration files read once: one that is edited in the middle of a sweep or a search changes none of its jobs."""

from copy import deepcopy
from typing import Any


class Remembered:
    """A repository of Hydra's that knows each file as it was when it was first read; else the one that it wraps."""

    def __init__(self, repository: Any):
        self._repository = repository
        self._read: dict[str, Any] = {}

    def load_config(self, config_path: str) -> Any:
        if config_path not in self._read:
            self._read[config_path] = self._repository.load_config(config_path)
        return deepcopy(self._read[config_path])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Remembered":
        return self  # Hydra copies its repository for each job, and would read all files anew

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as when it is unpickled, and has no repository yet
            raise AttributeError(name)
        return getattr(self._repository, name)
