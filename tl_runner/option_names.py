"""Parts of this package by the names of their options (`mmd`), wherever their code lies. Needs no torch.

A configuration names the class or function of a part as `_target_`. Hydra composes dotted paths; runs are stored, and
their identities made, with names and complete values, so that moving a file or renaming a class orphans no run. A part
from outside this package keeps its dotted path.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from tl_runner import options

# Options that had another name: GROUP, earlier name -> name. Both can be typed; records have the later one.
RENAMED = {("dataset", "csv"): "table"}

# Options of methods that hold other methods, each as a name or as {name: {key: value}}.
HOLDS_METHODS = {"sum": "parts", "auto": "candidates"}


def is_ours(target: Any) -> bool:
    """Whether a `_target_` is the name of an option of this package, and no dotted path."""
    return isinstance(target, str) and "." not in target


def find_path(group: str, name: str) -> str | None:
    """The dotted path of the class or function behind a name; None where the group has no such option."""
    return next((path for path, known in _names(group).items() if known == rename(group, name)), None)


def rename(group: str, name: str) -> str:
    """The present name of an option that may be typed, or recorded, by an earlier one."""
    return RENAMED.get((group, name), name)


def rename_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration, its parts by their present names."""

    def rename_part(group: str, node: Any) -> Any:
        target = node.get("_target_") if isinstance(node, Mapping) else None
        return {**node, "_target_": rename(group, str(target))} if is_ours(target) else node

    return {group: rename_part(group, node) for group, node in config.items()}


def list_names(group: str) -> list[str]:
    """The names of a group's parts: of options that share a class, such as train=tiny and train=long, one."""
    return [*_names(group).values()]


def name_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration, its parts of this package by name and with a value for each of their keys."""
    groups = options.defaults()
    return {key: name_part(key, node) if key in groups else node for key, node in config.items()}


def name_part(group: str, node: Any) -> Any:
    """A part by name and with complete values, if it is one of this package; else as it is."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return node
    target = node["_target_"]
    name = rename(group, target) if is_ours(target) else _names(group).get(target)
    if name is None or name not in _names(group).values():
        return node
    return {**deepcopy(_values(group, name)), **node, "_target_": name}


def name_methods(method: Any) -> Any:
    """A method's node with the methods that it holds by name and with complete values, too."""
    key = HOLDS_METHODS.get(str(method.get("_target_"))) if isinstance(method, Mapping) else None
    if key is None or not isinstance(method.get(key), list | tuple):
        return method
    return {**method, key: [_name_held(held) for held in method[key]]}


def _name_held(held: Any) -> Any:
    if isinstance(held, Mapping) and len(held) == 1 and "_target_" not in held:
        ((name, values),) = held.items()
        return name_part("method", {**values, "_target_": name}) if isinstance(values, Mapping) else held
    return name_part("method", {"_target_": held} if is_ours(held) else held)


@cache
def _options() -> dict[tuple[str, str], options.Option]:
    return {(option.group, option.name): option for option in options.list_options([options.conf()])}


@cache
def _names(group: str) -> dict[str, str]:
    """Dotted path -> name. Of options that share one the group's default gives it, or the first."""
    default, found = options.defaults().get(group), dict[str, str]()
    for (known, name), option in sorted(_options().items(), key=lambda item: item[0][1] != default):
        if known == group and (path := re.search(r"^_target_: (\S+)$", option.text, re.MULTILINE)):
            found.setdefault(path[1], name)
    return found


@cache
def _values(group: str, name: str) -> Any:
    """The keys of an option's YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(_options()[group, name].text))
