"""Who a run is: a hash of names and values, so that the same configuration has the same folder. Needs no torch.

A part of this package counts by the name of its option and the value of each of its keys, a part from outside by its
source. Each file of weights counts by its content, wherever it lies, and so does the folder of a transformer. What the
files of a dataset hold is for `data_files`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tl_runner.option_names import HOLDS_METHODS, is_ours, name_methods, name_parts
from tl_runner.storage.contents import Contents
from tl_runner.storage.data_files import drop_later_options, resolve_path

# Keys, or GROUP.KEY, that came after the first runs: left alone, they are in no id.
LATER = {"shares": "none", "pretrain.transfer": "all", "method.squared": True, "method.lora_rank": 0,
         "train.balance": "none", "train.domains": "balanced", "method.wise": 1.0, "train.average": "none",
         "train.average_decay": 0.999, "augment.gain": 6.0}  # fmt: skip

# GROUP.KEY: values that came later, and the earlier ones that they stand for. Where a head may be `auto`, that is the
# logistic one for classes; for a quantity, which came later too, logistic is refused.
STANDS_FOR = {"method.head": {"auto": "logistic"}}

# Of a folder with a model, what the run reads: an encoder and its tokenizer, or a network in the hub's layout.
ENCODER = ("config.json", "*.safetensors", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
           "merges.txt", "*.model")  # fmt: skip
NETWORK = ("config.json", "*.safetensors", "*.bin", "*.pth", "*.pt")
WORDS = ("imagenet", "pretrained")  # values of a key `weights` that name no folder


def identify(config: Mapping[str, Any], contents: Contents | None = None) -> str:
    """A hash of a configuration, with the sources of parts from outside and the files that it names.

    The node of a dataset is taken as it is, see `data_files.identify_dataset`.
    """
    contents, config = contents or Contents(), drop_later_keys(name_parts(config))
    config["method"] = _settle_held(name_methods(config.get("method")))
    settled = {key: _resolve_node(value, contents) for key, value in config.items() if key != "dataset"}
    if isinstance(dataset := config.get("dataset"), Mapping):
        settled["dataset"] = drop_later_options(dataset)
    return _digest([settled, sorted(_sources(config))])


def drop_later_keys(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The configuration without the keys in `LATER` that have their defaults, and with what later values stand for.

    A user's own part stays as it is.
    """

    def is_our_part(value: Any) -> bool:
        return isinstance(value, Mapping) and not prefix and is_ours(str(value.get("_target_", "")))

    return {
        key: drop_later_keys(value, f"{key}.") if is_our_part(value) else _earlier_value(f"{prefix}{key}", value)
        for key, value in config.items()
        if (f"{prefix}{key}", value) not in LATER.items()
    }


def _earlier_value(key: str, value: Any) -> Any:
    return STANDS_FOR.get(key, {}).get(value, value) if isinstance(value, str) else value


def _settle_held(method: Any) -> Any:
    """A method's node with what later values stand for in the methods that it holds."""
    key = HOLDS_METHODS.get(str(method.get("_target_"))) if isinstance(method, Mapping) else None
    if key is None or not isinstance(method.get(key), list | tuple):
        return method

    def settle(held: Any) -> Any:
        if not isinstance(held, Mapping) or not is_ours(held.get("_target_")):
            return held
        return {name: _earlier_value(f"method.{name}", value) for name, value in held.items()}

    return {**method, key: [settle(held) for held in method[key]]}


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same tree of mappings and lists, its leaves changed."""
    if isinstance(value, Mapping):
        return {str(key): map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_leaves(item, change) for item in value]
    return change(value)


def _canonical(leaf: Any) -> Any:
    """Numbers as floats, so that 1 and 1.0 are the same setting."""
    return float(leaf) if isinstance(leaf, int) and not isinstance(leaf, bool) else leaf


def _digest(value: Any) -> str:
    text = json.dumps(map_leaves(value, _canonical), sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=5).hexdigest()


def _resolve_node(node: Any, contents: Contents, own: bool = False) -> Any:
    """The same tree, files in it by what they hold: those of weights, and what a part from outside (`own`) names.

    So are folders with a model, where a part of ours names one. Another folder stays a name: a part that is no dataset
    may well write into it.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        own = not is_ours(target) if isinstance(target, str) else own
        return {
            str(key): value
            if key == "_target_"
            else _hash_model(target, str(key), value, contents)
            or _resolve_node(value, contents, own or key == "weights")
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [_resolve_node(value, contents, own) for value in node]
    path = resolve_path(node, contents.home) if own else None
    return {"content": [found.hash for found in contents.of(path)]} if path and path.is_file() else node


def _hash_model(target: Any, key: str, value: Any, contents: Contents) -> dict[str, Any] | None:
    """The name and the hash of each file of a model, if this option names a folder with one; other files are not read.

    A model of timm is a folder where its name has a slash.
    """
    is_network = key == "weights" and is_ours(str(target)) and value not in WORDS
    if is_network or (target == "timm" and key == "model" and "/" in str(value)):
        kinds = NETWORK
    elif target == "transformer" and key == "path":
        kinds = ENCODER
    else:
        return None
    folder = resolve_path(value, contents.home)
    if folder is None or not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if any(fnmatch(file.name, kind) for kind in kinds))
    return {"content": [[file.name, found.hash] for file in files for found in contents.of(file) if file.is_file()]}


def _sources(node: Any) -> Iterator[str]:
    """A hash of the source file of each `_target_` outside this package."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and not is_ours(target):
            yield _source(target.rpartition(".")[0])
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
