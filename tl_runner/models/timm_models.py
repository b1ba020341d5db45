"""Models of timm, by their name there, by the hub's, or as a folder in the hub's layout; and their weights.

The hub is asked for what is not in its local cache, once, and with a short wait: without a connection the answer is a
sentence, not minutes of attempts. Weights are read by `models.weights`, so that no pickle runs, and converted by timm's
own functions: names of earlier versions and of other libraries, positional embeddings of images of another size.
"""

import json
import logging
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tl_runner.errors import UserError, nearest
from tl_runner.models.backbones import Backbone, Pixels, Stages, check_image, narrowed, network_channels
from tl_runner.models.trained_size import trained_at
from tl_runner.models.weights import RGB, fill, find_weights_file, read_weights, strip_prefixes
from tl_runner.rng import Rng

log = logging.getLogger(__name__)

HUB = "hf-hub:"
WAIT = 5.0  # seconds for the hub's answer
WEIGHTS = "model.safetensors"  # the file that each of timm's repositories has


class Recipe(NamedTuple):
    """What makes a model: its `name` in timm, what timm says of its weights (`facts`), and arguments of its own.

    `place` is the folder, or the repository of the hub, that its weights are in; None of a model by timm's name.
    """

    name: str
    facts: Mapping[str, Any]
    arguments: Mapping[str, Any]
    place: Path | str | None

    @property
    def side(self) -> int:
        return int(self.facts.get("input_size", (3, 224, 224))[-1])

    @property
    def classifier(self) -> tuple[str, ...]:
        """The names of the modules that belong to the classes of the weights."""
        return _as_tuple(self.facts.get("classifier") or "head")

    @property
    def first(self) -> tuple[str, ...]:
        """The names of the weights of the first convolutions."""
        return tuple(f"{name}.weight" for name in _as_tuple(self.facts.get("first_conv") or ()))


def _find_side(model: str = "resnet18", **_: Any) -> int:
    return find_recipe(model).side


@trained_at(_find_side)
def timm(
    shape: tuple[int, ...], model: str = "resnet18", weights: str | None = None, bottleneck: int | None = None
) -> Backbone:
    """Any model of timm (Wightman 2019; the extra [timm]): from scratch, with its published weights, or a file's.

    `model` is a name of timm, one of the hub (hf-hub:OWNER/NAME), or the path of a folder with config.json. `weights`
    are None, `pretrained` (those of the model's name or folder), or the path of a file or of such a folder.

    It takes three channels, and grey images are repeated; of another number the first convolution takes all, see
    `weights.spread_channels`. Pixels are scaled as the model's weights want it, else to mean and deviation 0.5. A model
    that is made for one size of images is made for theirs. Its stages are its modules where one after the other they
    make the model, else the one stage `net`.
    """
    recipe = find_recipe(model)
    colours, *size = check_image("timm", shape, least=8)
    channels = colours if recipe.arguments.get("in_chans") == colours else network_channels(colours)
    net = _build(recipe, model, channels, size)
    if weights is not None:
        load(net, recipe, model, weights)
    elif recipe.place is not None:
        log.warning("backbone.model=%s at random weights: backbone.weights=pretrained takes those that it has", model)
    x = torch.rand(2, channels, *size, generator=Rng(0).generator())
    try:
        stages = _in_turn(net, x)
    except (AssertionError, RuntimeError) as error:
        raise _wrong_size(recipe, model, size, error) from error
    pixels = Pixels(channels, recipe.facts["mean"], recipe.facts["std"]) if weights is not None else Pixels(channels)
    with torch.no_grad():
        width = stages.eval()(x).shape[1]
    named = Stages(OrderedDict(pixels=pixels, **dict(stages.train().named_children())))
    if recipe.place is not None and _is_plain(net, recipe, model, x):
        named.settled = {"model": recipe.name}  # by which a saved run is rebuilt where the folder is gone
    return narrowed(named, width, bottleneck)


def find_recipe(model: str) -> Recipe:
    """What a name of timm, a name of the hub or a folder stands for; refuses what is none."""
    library = _import_library()
    said = f"backbone.model={model}"
    if model.startswith(HUB):
        repository = model.removeprefix(HUB)
        return _read_recipe(fetch_file(repository, "config.json", said), repository, said)
    if "/" in model:
        folder = Path(model).expanduser()
        if (folder / "config.json").is_file():
            return _read_recipe(folder / "config.json", folder, said)
        if folder.is_dir():
            raise UserError(f"{said} has no config.json, as a model of timm in a folder has")
        raise UserError(f"{said}: there is no such folder; a model of the hub is backbone.model={HUB}OWNER/NAME")
    if not library.is_model(model):
        hint = f"; a folder is named by its path: ./{model}" if Path(model).is_dir() else ""
        raise UserError(f"{said}: timm has no such model{nearest(model, library.list_models())}{hint}")
    try:
        facts = library.get_pretrained_cfg(model)
    except RuntimeError as error:  # a tag behind the point that there is not
        known = library.list_pretrained(f"{model.partition('.')[0]}.*")
        raise UserError(f"{said}: {error}{nearest(model, known)} (possible: {', '.join(known)})") from error
    return Recipe(model, facts.to_dict() if facts else {}, {}, None)


def _read_recipe(config: Path, place: Path | str, said: str) -> Recipe:
    """The recipe in a config.json, whose older form has all of it on one level."""
    library = _import_library()
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        name, facts = content["architecture"], content.get("pretrained_cfg", content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{said}: its config.json names no architecture, so it is no model of timm") from error
    if not library.is_model(name):
        known = nearest(str(name), library.list_models())
        raise UserError(
            f"{said}: its config.json names the architecture {name!r}, which this timm does not have{known}"
        )
    usual = default.to_dict() if (default := library.get_pretrained_cfg(name)) else {}
    fixed = bool(usual.get("fixed_input_size") or facts.get("fixed_input_size"))  # timm writes that it is not
    return Recipe(name, {**usual, **facts, "fixed_input_size": fixed}, content.get("model_args") or {}, place)


def _build(recipe: Recipe, model: str, channels: int, size: Sequence[int]) -> Any:
    """The network at random weights, without its classifier, for so many channels and images of this size."""
    arguments: dict[str, Any] = {**recipe.arguments, "num_classes": 0}
    if channels != arguments.get("in_chans", RGB):
        arguments["in_chans"] = channels
    fixed = bool(recipe.facts.get("fixed_input_size"))
    if "img_size" in arguments or (fixed and (*size,) != tuple(recipe.facts["input_size"][1:])):
        arguments["img_size"] = (*size,)
    try:
        net = _import_library().create_model(recipe.name, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _wrong_size(recipe, model, size, error) from error
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if fixed and isinstance(patch, tuple) and any(length % side for length, side in zip(size, patch, strict=True)):
        near = max(1, round(size[0] / patch[0])) * patch[0]
        raise UserError(
            f"backbone.model={model} reads patches of {patch[0]}×{patch[1]} pixels, which images of"
            f" {size[0]}×{size[1]} are no multiple of: try dataset.size={near}"
        )
    return net


def _is_plain(net: nn.Module, recipe: Recipe, model: str, x: Tensor) -> bool:
    """Whether timm makes the same network by its name alone, without the arguments of a config.json."""
    by_name = find_recipe(recipe.name)
    try:
        other = _build(by_name, model, x.shape[1], x.shape[2:])
        other.load_state_dict(net.state_dict())
        with torch.no_grad():
            return torch.equal(other.eval()(x), net.eval()(x))
    except (RuntimeError, UserError) as error:  # other parameters; a size that it does not take without the arguments
        log.info("backbone.model=%s is more than timm's %s: %s", model, recipe.name, error)
        return False
    finally:
        net.train()


def _wrong_size(recipe: Recipe, model: str, size: Sequence[int], error: Exception) -> UserError:
    return UserError(
        f"backbone.model={model} can't read images of {size[0]}×{size[1]} ({error}): try dataset.size={recipe.side}"
    )


def load(net: nn.Module, recipe: Recipe, model: str, weights: str) -> None:
    """Fill the network with the weights that `weights` names."""
    if weights == "pretrained":
        origin, state = _read_published(recipe, model)
    else:
        path = Path(weights).expanduser()
        if (config := path / "config.json").is_file():
            other = _read_recipe(config, path, f"backbone.weights={weights}").name
            if _architecture(other) != _architecture(recipe.name):
                raise UserError(
                    f"backbone.weights={weights} are of the model {other}, and backbone.model={model} is another: set"
                    f" backbone.model={other}, or backbone.model={weights} backbone.weights=pretrained"
                )
        origin, state = weights, read_weights(path, "pretrained")
    without = tuple(f"{name}." for name in recipe.classifier)
    _, inside = strip_prefixes(state, [key for key in net.state_dict() if not key.startswith(without)], origin)
    converted = _convert(inside, net, recipe.name, origin)
    fill(net, converted, origin, recipe.classifier, recipe.first, spare=weights == "pretrained")


def _convert(state: dict[str, Tensor], net: nn.Module, name: str, origin: str) -> dict[str, Tensor]:
    """The weights with the names and sizes of the network, by the function with which timm itself loads this model."""
    module = sys.modules[_import_library().model_entrypoint(name).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # timm's, of how fast it resamples
            found = dict(convert(dict(state), net))
    except Exception as error:  # whatever it meets in weights of another network, which `fill` will refuse
        log.info("%s: timm can't convert these weights: %s: %s", origin, type(error).__name__, error)
        return state
    for key in sorted(state.keys() & found.keys()):
        before, after = tuple(state[key].shape), tuple(found[key].shape)
        if before != after:
            log.warning("%s: resampled %s from %s to %s, for images of another size", origin, key, before, after)
    return found


def _read_published(recipe: Recipe, model: str) -> tuple[str, dict[str, Tensor]]:
    """What to call the model's own weights, and these: of its folder, of the hub, or of the address that timm knows."""
    said, facts = f"backbone.model={model}", recipe.facts
    if isinstance(recipe.place, Path):
        file = find_weights_file(recipe.place)
        return str(file), read_weights(file)
    if repository := recipe.place or facts.get("hf_hub_id"):
        return repository, read_weights(fetch_file(repository, facts.get("hf_hub_filename") or WEIGHTS, said))
    if not (url := facts.get("url")):
        names = _import_library().list_pretrained(f"{_architecture(recipe.name)}.*")
        there = f": {', '.join(names)} have some" if names else ""
        raise UserError(f"{said}: timm publishes no weights of it{there}. backbone.weights=null trains from scratch")
    try:
        return model, dict(
            torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
        )
    except OSError as error:
        raise UserError(
            f"{said}: its weights could not be downloaded ({error}). Fetch {url} where there is a connection, and pass"
            " the file: backbone.weights=PATH"
        ) from error


def fetch_file(repository: str, file: str, said: str) -> Path:
    """A file of the hub, from its local cache, else downloaded to it; `repository` may end in @REVISION.

    The library's own download tries for half a minute where there is no connection, so that a first question, which
    waits `WAIT` seconds at most, goes ahead of it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    name, _, revision = repository.partition("@")
    where = {"repo_id": name, "filename": file, "revision": revision or None}
    try:
        return Path(hf_hub_download(**where, local_files_only=True))
    except Exception as error:  # it is not there, or the name can't be one, which the hub's answer will say
        log.info("%s is not in the local cache of the hub: %s", repository, error)
    try:
        get_hf_file_metadata(hf_hub_url(**where), timeout=WAIT)
        return Path(hf_hub_download(**where))
    except Exception as error:  # each layer below has its own errors for a connection that there is not
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        at = f" --revision {revision}" if revision else ""
        hub_name = said.removeprefix("backbone.model=").startswith(HUB)
        use = "backbone.model=./DIR backbone.weights=pretrained" if hub_name else f"backbone.weights=DIR/{file}"
        raise UserError(
            f"{said}: {file} of {name} is not in the local cache of the Hugging Face hub, and can't be downloaded"
            f" ({reason}). Where there is a connection: hf download {name}{at} config.json {WEIGHTS} --local-dir DIR."
            f" Then copy DIR here, and set {use}"
        ) from error


def _in_turn(net: Any, x: Tensor) -> nn.Sequential:
    """The net as a sequence of its modules, if that maps x as the net does; else as the one stage `net`."""
    parts: dict[str, nn.Module] = {}
    for name, module in net.named_children():
        inner = module.named_children() if name in ("blocks", "stages") and isinstance(module, nn.Sequential) else ()
        parts |= {f"{name.removesuffix('s')}{index}": part for index, part in inner} or {name: module}
    net.eval()
    with torch.no_grad():
        expected = net(x)
        try:
            if torch.equal(nn.Sequential(OrderedDict(parts))(x), expected):
                return nn.Sequential(OrderedDict(parts))
        except Exception as error:  # whatever a module does with an input that is not meant for it
            log.info("%s is no sequence of its modules: %s", type(net).__name__, error)
    return nn.Sequential(OrderedDict(net=net))


def _architecture(name: str) -> str:
    """A name of timm without the tag of its weights."""
    return name.partition(".")[0]


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _import_library() -> Any:
    try:
        import timm as library
    except ImportError as error:
        raise UserError('backbone=timm needs the package timm: pip install "tl_runner[timm]"') from error
    return library
