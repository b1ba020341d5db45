"""User-facing errors: what was wrong, what is possible, and the nearest name."""

from collections.abc import Iterable
from difflib import get_close_matches

# What people call things elsewhere, and what they are called here.
ALIASES = {
    "baseline": "source_only",
    "erm": "source_only",
    "no_adaptation": "source_only",
    "from_scratch": "target_only",
    "scratch": "target_only",
    "ddc": "mmd",
    "dan": "mmd",
    "ddan": "mmd",
    "jan": "jmmd",
    "dsan": "lmmd",
    "jdot": "deepjdot",
    "cdane": "cdan",
    "cdan+e": "cdan",
    "margin_disparity": "mdd",
    "minimax_entropy": "mme",
    "batch_spectral_penalization": "bsp",
    "minimum_class_confusion": "mcc",
    "entropy": "im",
    "entropy_minimization": "im",
    "information_maximization": "im",
    "safn": "afn",
    "swd": "similarity",
    "pseudo_label": "fixmatch",
    "self_training": "fixmatch",
    "source_free": "shot",
    "test_time": "tent",
    "bn_adapt": "adabn",
    "ulmfit": "finetune",
    "learning_without_forgetting": "lwf",
    "cotuning": "co_tuning",
    "bituning": "bi_tuning",
    "kernel_mean_matching": "kmm",
    "lsif": "ulsif",
    "iwn": "density_ratio",
    "deep_coral": "coral",
    "deepcoral": "coral",
    "grl": "dann",
    "revgrad": "dann",
    "finetune": "finetune",
    "fine_tune": "finetune",
    "fine_tuning": "finetune",
    "linear_probe": "feature_extract",
    "feature_extract": "feature_extract",
    "feature_extraction": "feature_extract",
    "adam": "adamw",
    "nesterov": "sgd",
    "resnet": "resnet18",
    "cnn": "small",
}


# Keys that methods had, and what to use now.
MOVED = {
    "adversary": "use method=sum method.parts=[bsp,dann]",
    "lr_backbone": "use optimizer.lr_backbone, one key for all methods (auto, or a factor of optimizer.lr)",
}


TOLD = 20  # names that a message lists


class UserError(ValueError):
    """A configuration, a file or a request that can't be used, said in words for the person who made it."""


class DivergedError(ArithmeticError):
    """Training met a number that is not finite."""


class TimeLimitError(TimeoutError):
    """A run took longer than it was given."""


class LockedError(RuntimeError):
    """Another process is making the run."""


def nearest(name: str, options: Iterable[str]) -> str:
    """` – did you mean 'x'?`, or nothing where no option is near."""
    options = sorted(options)
    meant = ALIASES.get(name.lower().replace("-", "_"))
    if meant and meant not in options and not get_close_matches(name, options, n=1, cutoff=0.8):
        return f" – {meant!r} is its name here, but this version does not have it"
    spelled = {option.lower(): option for option in options}
    close = [meant] if meant in options else get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    return f" – did you mean {spelled.get(close[0], close[0])!r}?" if close else ""


def list_names(names: Iterable[str]) -> str:
    """The first names as a list to be read, and how many there are where it ends early."""
    names = list(names)
    return ", ".join(names[:TOLD]) + (f", … – {len(names)} in all" if len(names) > TOLD else "")


def check_range(low: float, high: float = float("inf"), **values: float) -> None:
    """Refuse, by name, any value outside [low, high]; NaN and infinity are outside of everything."""
    bounds = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
    for name, value in values.items():
        infinite = abs(value) == float("inf")
        if infinite or not low <= value <= high:
            raise UserError(f"{name} must be {'finite' if infinite else bounds}, got {value}")
