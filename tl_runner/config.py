"""From a composed configuration to the parts of a run: checked against each part's own signature, then built.

A part is a node with a `_target_`: a class, or a function whose leading parameters without a default are what
the run itself passes in. Its other parameters – name, type, default – are the schema. Imports no torch itself;
it does import the targets.
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
from omegaconf.errors import ValidationError

from tl_runner.errors import MOVED, UserError, check_range, nearest
from tl_runner.option_names import find_path, is_ours, list_names, name_parts
from tl_runner.options import NoEffect
from tl_runner.storage.sections import SharesEstimator
from tl_runner.training.checkpoint_selection import Evidence

if TYPE_CHECKING:
    from collections.abc import Set

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from tl_runner.core import Group, SourceLabels, Start, Stream
    from tl_runner.datasets.split import Drawn
    from tl_runner.evaluation.diagnosis import Diagnose
    from tl_runner.storage.record import RunRecord
    from tl_runner.tasks import TaskName
    from tl_runner.trackers.tracker import Tracker
    from tl_runner.training.loop import Train
    from tl_runner.training.plain_optimizers import PlainOptimizer
    from tl_runner.training.pretrain_options import Pretrain

log = logging.getLogger(__name__)

GROUPS = (
    "dataset", "backbone", "method", "pretrain", "optimizer", "schedule", "augment", "train",
    "select", "diagnose", "tracker",
)  # fmt: skip
RUN_ARGUMENTS = {"seed", "cache"}  # what a run passes to a dataset that names it
OMEGACONF_NODES = {bool: BooleanNode, int: IntegerNode, float: FloatNode, str: StringNode}
BOTTLENECK_MESSAGE = (
    "a bottleneck is new and learns along with the rest, and here features are computed once, by a backbone that stays"
    " as it is: set backbone.bottleneck=null"
)
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


@dataclass(frozen=True)
class Settings:
    """The keys of a configuration that belong to no group."""

    seed: int = 0
    granted: int | str = "auto"
    shares: SharesEstimator = "none"
    device: str = "auto"
    threads: int | None = None
    outputs: str = "outputs"
    save: bool = True
    force: bool = False
    dry: bool = False
    checkpoint_every: float = 30.0
    timeout: float | None = None
    objective: Literal["auto", "floor", "information", "bnm", "dev", "agreement", "oracle"] = "auto"

    def __post_init__(self) -> None:
        check_range(0, checkpoint_every=self.checkpoint_every)
        check_range(0.001, timeout=1.0 if self.timeout is None else self.timeout)
        check_range(0, 2**32 - 1, seed=self.seed)
        check_range(1, 1024, threads=1 if self.threads is None else self.threads)
        if not self.outputs.strip():
            raise UserError("outputs must name a folder")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"device takes auto, cpu, cuda or cuda:N, got {self.device!r}")


class MethodPart(Protocol):
    """A method, or what chooses one: see `core.Method`."""

    @property
    def needs(self) -> "Set[Stream]": ...
    @property
    def start(self) -> "Start": ...
    @property
    def source_labels(self) -> "SourceLabels": ...
    @property
    def tasks(self) -> "Set[TaskName]": ...


class Parts(NamedTuple):
    """A run's parts, built but for what only the run knows: the dataset's seed, the shape of the backbone's input, …"""

    settings: Settings
    dataset: "Callable[..., Drawn]"
    backbone: "Callable[..., tuple[nn.Sequential, int]]"  # of the shape of an input, and the tokenizer of texts
    method: MethodPart
    pretrain: "Pretrain"
    optimizer: "Callable[[Sequence[Group]], Optimizer | PlainOptimizer]"
    schedule: Callable[[float], float]
    augment: "Callable[[Tensor, int], Tensor]"  # inputs and a seed -> other views of them
    train: "Train"
    select: Callable[[Sequence[Evidence]], int]
    diagnose: "Diagnose"
    tracker: "Callable[[RunRecord], Tracker]"


def load_parts(config: Mapping[str, Any]) -> Parts:
    """Check and build every part; raises `UserError` before any data is touched."""
    config = name_parts(config)
    parts: dict[str, Any] = {group: build(config.get(group), group) for group in GROUPS}
    _check_contract(parts["method"], config["method"]["_target_"])
    if parts["method"].start == "scratch" and config["backbone"].get("weights") is not None:
        log.warning("this method trains from scratch: it ignores backbone.weights=%s", config["backbone"]["weights"])
        parts["backbone"] = build(drop_weights(config["backbone"]), "backbone")
    if parts["method"].start == "features" and config["augment"]["_target_"] != "none":
        raise UserError("this method computes each row's features once, so it can't use random views: set augment=none")
    if parts["method"].start == "features" and getattr(parts["backbone"], "keywords", {}).get("bottleneck"):
        raise UserError(BOTTLENECK_MESSAGE)
    if unknown := required_parameters(parts["dataset"]) - RUN_ARGUMENTS:
        raise UserError(
            f"dataset._target_={config['dataset']['_target_']}: {min(unknown)} needs a default or is seed or cache"
        )
    # Schedules and selection rules check their options when they are called.
    _try_call("schedule", parts["schedule"], 0.0)
    _try_call("select", parts["select"], [Evidence.example()])
    return Parts(check_settings(config), **parts)


def _check_contract(method: Any, target: str) -> None:
    """Refuse what a method of a user's may get wrong before it is ever called."""
    from tl_runner.core import SourceLabels, Start

    if not hasattr(method, "needs"):
        raise UserError(f"method._target_={target} is not a tl_runner.Method: it has no `needs`")
    if hasattr(type(method), "add_module") and "_modules" not in vars(method):
        raise UserError(f"{type(method).__name__}.__init__ must begin with super().__init__()")
    for name, kind in (("start", Start), ("source_labels", SourceLabels)):
        if (value := getattr(method, name)) not in get_args(kind):
            raise UserError(f"{type(method).__name__}.{name} is one of {', '.join(get_args(kind))}, got {value!r}")


def _try_call(group: str, part: Any, value: Any) -> None:
    """Call a function with its options, which it may refuse, on a value like any other."""
    try:
        part(value)
    except UserError as error:  # about one of its options, by name
        raise UserError(f"{group}.{error}") from error


def check_settings(config: Mapping[str, Any]) -> Settings:
    """The keys of no group, checked."""
    return Settings(**check_options(Settings, {key: value for key, value in config.items() if key not in GROUPS}, ""))


def build(node: Any, group: str) -> Any:
    """The part that a node describes: an instance of a class, or a function with its options bound."""
    if not isinstance(node, Mapping):
        raise UserError(f"{group} must name one of its options, as in {group}=…, got {node!r}")
    if "_target_" not in node:
        raise UserError(f"this {group} has no _target_: its YAML must name a class or function (_target_: module.name)")
    target = locate(node["_target_"], group)
    options = check_options(target, {key: value for key, value in node.items() if key != "_target_"}, f"{group}.")
    warn_of_no_effect(target, options, group)
    if not inspect.isclass(target):
        return partial(target, **options)
    try:
        return target(**options)
    except UserError as error:  # about one of its options, by name
        raise UserError(f"{group}.{error}" if str(error).partition(" ")[0] in options else str(error)) from error


def warn_of_no_effect(target: Any, options: Mapping[str, Any], group: str) -> None:
    """Log each option that was set and does nothing beside the value of another: see `options.NoEffect`."""
    for name, parameter in schema(target).items():
        for mark in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(mark, NoEffect) and options[mark.other] in mark.values and options[name] != parameter.default:
                other = f"{group}.{mark.other}={options[mark.other]}"
                log.warning("%s.%s=%s does nothing with %s", group, name, options[name], other)


def build_named(group: str, said: Any, key: str) -> Any:
    """A part of a group as another part's option says it: a name, {name: {key: value}}, or a node with a `_target_`.

    `key` is that option's, for what can't be used. Names are those of this package.
    """
    if isinstance(said, Mapping) and "_target_" in said:
        return build(said, key)
    if isinstance(said, Mapping) and len(said) == 1:
        ((name, options),) = said.items()
    else:
        name, options = said, {}
    known = list_names(group)
    if not isinstance(name, str) or name not in known or not isinstance(options, Mapping):
        raise UserError(
            f"{key} takes the name of a {group}, as in mcc or {{mcc: {{temperature: 2}}}}, or a node with a _target_,"
            f" got {said!r}{nearest(str(name), known)}"
        )
    return build({**options, "_target_": name}, key)


def required_parameters(target: Any) -> set[str]:
    """The names of a target's parameters without a default: those that the run passes in."""
    empty = inspect.Parameter.empty
    return {name for name, parameter in inspect.signature(target).parameters.items() if parameter.default is empty}


def call_with(part: Any, **offered: Any) -> Any:
    """Call a part with what it names of the things that a run offers."""
    return part(**{name: offered[name] for name in required_parameters(part)})


def drop_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The same network with random weights: an option of the name `weights` says what to start from."""
    return {**backbone, "weights": None} if "weights" in backbone else dict(backbone)


def starts_trained(backbone: Any) -> bool:
    """Whether a backbone, with its options bound, starts from trained parameters: those that `weights` names."""
    return bool(getattr(backbone, "keywords", {}).get("weights"))


def locate(target: str, group: str) -> Any:
    """The class or function that a `_target_` names: an option of this package (`mmd`), or a dotted path."""
    known = re.split(r"\W", group)[0]  # of method.parts[0] it is method
    path = find_path(known, target) if is_ours(target) else str(target)
    if path is None:
        raise UserError(
            f"{group}._target_ takes module.name or the name of an option, got {target!r}"
            f"{nearest(target, list_names(known))}"
        )
    module, _, name = path.rpartition(".")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{group}._target_={path}: there is no module {error.name!r} here."
            " Modules are looked up in the environment, the working folder and --config-dir"
        ) from error
    except Exception as error:  # whatever a module of a user's does when it is imported
        raise UserError(f"{group}._target_={path} can't be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(found, name, None)):
        known = [each for each in dir(found) if callable(getattr(found, each))]
        raise UserError(f"{group}._target_={path}: {module} has no class or function {name!r}{nearest(name, known)}")
    return getattr(found, name)


def schema(target: Any) -> dict[str, inspect.Parameter]:
    """The options of a target: its parameters with a default, as name -> parameter with evaluated annotation."""
    try:
        parameters = inspect.signature(target).parameters
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise UserError(f"the signature of {target!r} can't be read: {error}") from error
    bare = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    if inspect.isclass(target) and bare:
        raise UserError(f"{target.__name__}.__init__ must give {', '.join(bare)} a default, which the YAML repeats")
    return {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in parameters.items()
        if name not in bare
    }


def check_options(target: Any, options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The options with their types, completed by the target's defaults; unknown names and wrong types are refused."""
    known = schema(target)
    for name in options:
        if name not in known:
            if name in MOVED and prefix.startswith("method"):
                raise UserError(f"unknown key {prefix}{name}: {MOVED[name]}")
            listed = ", ".join(prefix + key for key in known) or "it has none"
            raise UserError(f"unknown key {prefix}{name}{nearest(name, known)} (possible: {listed})")
    return {
        name: convert_value(options[name], parameter.annotation, prefix + name)
        if name in options
        else parameter.default
        for name, parameter in known.items()
    }


def convert_value(value: Any, hint: Any, key: str) -> Any:
    """The value as its annotation wants it, by OmegaConf's conversions; an annotation unknown here lets it pass."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        origin, arguments = get_origin(option), get_args(option)
        if option is NoneType:
            if value is None:
                return None
        elif origin is Literal:
            if (word := _as_word(value, arguments)) in arguments:
                return word
        elif option in OMEGACONF_NODES:
            if value is None or (option is bool and not isinstance(value, str) and value not in (0, 1)):
                continue  # OmegaConf takes 2 for true
            try:
                return OMEGACONF_NODES[option](value=value)._value()
            except ValidationError:
                continue  # another member of the union may take it
        elif isinstance(origin, type) and issubclass(origin, Sequence):
            if isinstance(value, Sequence) and not isinstance(value, str):
                return tuple(convert_value(item, arguments[0], f"{key}[{index}]") for index, item in enumerate(value))
        else:
            return value
    hint = _explain_several_targets(key, value) or _nearest_literal(value, options)
    raise UserError(f"{key} takes {_in_words(options)}, got {value!r}{hint}")


def _explain_several_targets(key: str, value: Any) -> str:
    """A source may be several domains, and people expect the same of the target."""
    if key != "dataset.target" or isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return ""
    each = ",".join(map(str, value))
    return (
        f". Several targets are several runs: -m {key}={each}. A target of rows may lie in several files: name them by"
        " a pattern or their folder"
    )


def _as_word(value: Any, words: Sequence[Any]) -> Any:
    """The value, or the word that it stands for: YAML takes yes and no for true and false."""
    return ("yes" if value else "no") if isinstance(value, bool) and {"yes", "no"} <= {*words} else value


def _in_words(options: Sequence[Any]) -> str:
    words = []
    for option in options:
        if get_origin(option) is Literal:
            words += [str(choice) for choice in get_args(option)]
        else:
            words.append(TYPE_NAMES.get(option, "a list"))
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _nearest_literal(value: Any, options: Sequence[Any]) -> str:
    choices = [str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)]
    return nearest(value, choices) if choices and isinstance(value, str) else ""
