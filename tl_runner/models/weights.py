"""Files of weights: read without running code in them, and loaded only where they fit."""

import logging
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from tl_runner.errors import UserError

log = logging.getLogger(__name__)

# Entries of a checkpoint that hold the state dict, as Lightning, timm, MMCV, the training scripts of papers name them.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "encoder", "backbone")
# What a name begins with where the network was a part of another module: DataParallel, torch.compile, a Trainer.
PREFIXES = ("module.", "model.", "net.", "encoder.", "backbone.", "_orig_mod.")
# Entries with the moving average of the weights, which scores better than these as a rule, and is what timm reads, too.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
COUNTER = ".num_batches_tracked"  # of BatchNorm, since PyTorch 0.4.1; it decides nothing where momentum is a number
ENDINGS = (".safetensors", ".bin", ".pth", ".pt")
NAMES = ("model.safetensors", "pytorch_model.bin")  # of a file of weights in the hub's layout
RGB = 3
LISTED = 8


def read_weights(path: Path, word: str | None = None) -> dict[str, Tensor]:
    """The state dict in a safetensors file, or in a torch file that holds tensors and plain values only.

    Of a folder it is that of the file of weights there. A torch file may hold the arguments of a script, too, as parsed
    by argparse: a namespace, which runs nothing. `word` is what the backbone takes in place of a path.
    """
    if re.match(r"\w{2,}:/", str(path)):  # a Path has made one slash of two
        url = str(path).replace(":/", "://", 1)
        raise UserError(f"backbone.weights={url}: addresses are not read: download the file, and name it")
    path = path.expanduser()
    if path.is_dir():
        path = find_weights_file(path)
    if not path.is_file():
        also = f" (possible: null and {word}, too)" if word else ""
        raise UserError(f"backbone.weights={path}: there is no such file or folder{also}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has its own errors for a file that is not what it says
        why = _explain_unreadable(path, error)
        raise UserError(f"backbone.weights={path} can't be read as a file of weights: {why}") from error
    state, wrappers = unwrap(content, f"backbone.weights={path}")
    if wrappers:
        log.warning("%s: using the weights in its entry %s", path, " -> ".join(map(repr, wrappers)))
    return state


def _explain_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file of weights: the code that it names, else what its first bytes are not."""
    if isinstance(error, UnpicklingError) and "global" in str(error).lower():
        named = re.search(r"GLOBAL (\S+)", str(error))
        code = named[1] if named else "of a class"
        return f"it names code ({code}), as a whole model does: save model.state_dict() instead"
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "it is empty"
    if path.suffix == ".safetensors":
        return "it is damaged, or no file of safetensors"
    archive = start == b"PK\x03\x04"  # which torch.save writes, and before PyTorch 1.6 a pickle
    if archive and not is_zipfile(path):
        return "it is cut off: copy or download it again"
    if archive or start.startswith(b"\x80"):
        return type(error).__name__
    return "it is no file of torch.save or safetensors"


def peek_weights(path: Path) -> dict[str, Tensor]:
    """As `read_weights`, in silence: who looks at weights before they are loaded need not say twice what they are."""
    log.disabled = True
    try:
        return read_weights(path)
    finally:
        log.disabled = False


def find_weights_file(folder: Path) -> Path:
    """The file of weights in a folder: by the hub's names for it, else the only one that there is."""
    found = sorted(file for file in folder.iterdir() if file.suffix in ENDINGS and file.is_file())
    by_name = [file for name in NAMES for file in found if file.name == name]
    if by_name or len(found) == 1:
        return (by_name or found)[0]
    why = (
        f"{len(found)} files of weights ({_shortened([file.name for file in found])}): name one"
        if found
        else (f"no file of weights ({NAMES[0]}, or one that ends in {', '.join(ENDINGS)})")
    )
    raise UserError(f"{folder} has {why}")


def unwrap(content: Any, origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in a checkpoint, and the names of the entries that lead to it, of those in `WRAPPERS`."""
    wrappers: list[str] = []
    while not _is_state(content):
        if not isinstance(content, Mapping):
            raise UserError(f"{_at(origin, wrappers)} holds no state dict: names and tensors are expected")
        inside = {name: value for name, value in content.items() if isinstance(value, Mapping) and value}
        averages, plain = ([name for name in names if name in inside] for names in (AVERAGES, WRAPPERS))
        known = averages or plain
        if len(known) != 1:
            why = f"holds more than one state dict ({', '.join(known)})" if known else "holds no state dict"
            last = sorted(content.items(), key=lambda entry: isinstance(entry[1], Tensor))  # tensors are no surprise
            found = _shortened([f"{name} ({_described(value)})" for name, value in last]) or "nothing"
            raise UserError(
                f"{_at(origin, wrappers)} {why}: it has {found}. Expected are names with tensors, or one entry of"
                f" {', '.join(WRAPPERS)}; save the state dict alone"
            )
        rivals = {name for name, value in inside.items() if name != known[0] and _are_equal(value, inside[known[0]])}
        if averages:
            rivals -= {*plain}
            beside = f" and not {' or '.join(map(repr, plain))}: to use that, save it alone" if plain else ""
            log.warning("%s: using the moving average in its entry %r%s", _at(origin, wrappers), known[0], beside)
        if rivals:
            names = ", ".join([known[0], *sorted(rivals)])
            raise UserError(
                f"{_at(origin, wrappers)} holds several states of one network ({names}): save the one you mean alone"
            )
        wrappers.append(known[0])
        content = inside[known[0]]
    return dict(content), wrappers


def fill(
    net: nn.Module,
    state: Mapping[str, Tensor],
    origin: str,
    classifier: Sequence[str] = ("fc",),
    first: Sequence[str] = (),
    spare: bool = False,
) -> None:
    """Load all but the classifier, which belongs to the classes of the weights; anything else must match.

    `origin` is what to call the weights, `classifier` the names of the modules that are left out, `first` those of the
    first convolutions' weights, which are spread where the images have more channels. With `spare` the weights may have
    names that the network lacks, such as a second classifier's.
    """
    without = tuple(f"{name}." for name in classifier)
    own = {key: value for key, value in net.state_dict().items() if not key.startswith(without)}
    prefix, inside = strip_prefixes(state, own.keys(), origin)
    state = {key: value for key, value in inside.items() if not key.startswith(without)}
    if left := inside.keys() - state.keys():
        log.info("%s: its classifier is left out (%s)", origin, _shortened(_list_shapes(inside, left)))
    kinds = sorted(f"{key} {_name_kind(state[key])}" for key in own.keys() & state.keys() if _differs(own, state, key))
    for name in own.keys() & state.keys() & {*first}:
        channels = own[name].shape[1]
        if channels != state[name].shape[1] == RGB:
            state[name] = spread_channels(state[name], channels)
            log.warning(
                "%s: the weights read 3 channels, these images have %d: %s is repeated over them, times 3/%d",
                origin, channels, name, channels,
            )  # fmt: skip
    if spare and (others := state.keys() - own.keys()):
        log.info("%s: names that this network lacks are ignored (%s)", origin, _shortened(sorted(others)))
        state = {key: value for key, value in state.items() if key in own}
    absent = own.keys() - state.keys()
    uncounted = {key for key in absent if key.endswith(COUNTER)}
    faults = {
        "missing": sorted(absent - uncounted),
        "unexpected": sorted(state.keys() - own.keys()),
        "not of floating point": kinds,
        "of another shape": sorted(
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in own.keys() & state.keys()
            if state[key].shape != own[key].shape
        ),
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {_shortened(keys)}" for kind, keys in faults.items() if keys)
        behind = f", behind the prefix {prefix!r}" if prefix else ""
        raise UserError(
            f"backbone.weights={origin} does not fit this network{behind} – {listed}{_unknown_prefix(own, state)}"
        )
    if broken := sorted(key for key, value in state.items() if not bool(value.isfinite().all())):
        raise UserError(f"backbone.weights={origin} holds numbers that are not finite, in {_shortened(broken)}")
    net.load_state_dict(state, strict=False)
    if uncounted:
        log.info("%s: %d num_batches_tracked, which PyTorch before 0.4.1 did not save, stay 0", origin, len(uncounted))


def _differs(own: Mapping[str, Tensor], state: Mapping[str, Tensor], key: str) -> bool:
    """Whether the numbers of a tensor can't be those of the network; counters are whole numbers in both."""
    return state[key].is_complex() or (own[key].is_floating_point() and not state[key].is_floating_point())


def _name_kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def spread_channels(weight: Tensor, channels: int) -> Tensor:
    """The weights (o, 3, h, w) of a convolution on so many channels, as timm does.

    Those of red, green and blue are repeated in turn, times 3 / channels, so that outputs stay of their size.
    """
    turns = -(-channels // RGB)
    return weight.repeat(1, turns, 1, 1)[:, :channels] * (RGB / channels)


def strip_prefixes(state: Mapping[str, Tensor], own: Collection[str], origin: str) -> tuple[str, dict[str, Tensor]]:
    """The chain of `PREFIXES` behind which most names of the network `own` stand, and what stands there.

    torch.compile's `_orig_mod.` is no name of a module: it goes wherever it stands.
    """
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    if len(plain) < len(state):
        raise UserError(f"backbone.weights={origin} has names that differ in '_orig_mod.' alone")
    matches = {chain: sum(chain + key in plain for key in own) for chain in _chains(plain)}
    most = max(matches.values())
    best = [chain for chain, number in matches.items() if number == most]
    if not most or "" in best:
        prefix = ""
    elif len(best) > 1:
        raise UserError(
            f"backbone.weights={origin} holds this network more than once, behind {', '.join(map(repr, best))}:"
            " save one of them alone"
        )
    else:
        (prefix,) = best
    inside = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
    removed = [repr(prefix)] if prefix else []
    if plain.keys() != state.keys():
        removed.append("'_orig_mod.'")
    if removed:
        others = sorted(key for key in plain if not key.startswith(prefix))
        left = f"; other names are ignored ({_shortened(others)})" if others else ""
        log.warning("%s: removed %s from the names%s", origin, " and ".join(removed), left)
    return prefix, inside


def _chains(names: Mapping[str, Any]) -> list[str]:
    """All chains of `PREFIXES` that names begin with, the empty one first."""
    chains = [""]
    for chain in chains:  # which grows meanwhile, up to the length of the names
        chains += [chain + p for p in PREFIXES if any(name.startswith(chain + p) for name in names)]
    return chains


def _unknown_prefix(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What most of the names begin with that would fit without, if that is no known prefix."""
    fitting = Counter[str]()
    for key in state:
        parts = key.split(".")
        names = [".".join(parts[start:]) for start in range(1, len(parts))]
        fitting.update(key.removesuffix(name) for name in names if name in own)
    prefix, number = fitting.most_common(1)[0] if fitting else ("", 0)
    if 2 * number <= len(own):
        return ""
    return f". {number} fit behind {prefix!r}, which is none of {', '.join(PREFIXES)}: save the names without it"


def _is_state(content: Any) -> bool:
    named = isinstance(content, Mapping) and content and all(isinstance(name, str) for name in content)
    return bool(named) and all(isinstance(value, Tensor) for value in content.values())


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two entries are states of one network: a checkpoint's weights and their moving average, say."""
    return bool(_is_state(one) and _is_state(other) and one.keys() == other.keys())


def _at(origin: str, wrappers: Sequence[str]) -> str:
    return f"{origin}, in its entry {' -> '.join(map(repr, wrappers))}," if wrappers else origin


def _list_shapes(state: Mapping[str, Tensor], names: Collection[str]) -> list[str]:
    return [f"{name} {tuple(state[name].shape)}" for name in sorted(names)]


def _described(value: Any) -> str:
    if _is_state(value):
        return f"{len(value)} tensors"
    return f"{len(value)} entries" if isinstance(value, Mapping) else type(value).__name__


def _shortened(words: Sequence[str]) -> str:
    return f"{', '.join(words[:LISTED])}{' …' * (len(words) > LISTED)}"
