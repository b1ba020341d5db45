"""Which rows of the target have a label, and what these labels are for: to be scored by, or granted."""

import logging
from typing import Literal

import numpy as np
import torch

from tl_runner.datasets.split import PARTS, Raw
from tl_runner.domains import has_label
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun, pluralize

log = logging.getLogger(__name__)

WhetherLabelled = Literal["auto", "yes", "no"]  # whether the target's labels are to be read; auto: where there are any
ScoreOn = Literal["test", "labelled"]  # the test split, or all labelled rows of the target, which become it
TRAIN, TEST = PARTS.index("train"), PARTS.index("test")


def tell_unlabelled(target: Raw, how: str, tested: bool) -> None:
    """Log how many rows of the target have a label, where not all have one, and `how` that was found.

    `tested`: its test part is another domain, whose rows do not count.
    """
    y = target.y[target.parts != TEST] if tested else target.y
    labelled = int(has_label(y).sum())
    none = "the target has no labels" + ("" if tested else ", so its accuracy stays unknown")
    some = f"{labelled} of the {count_noun(len(y), 'row')} of the target {pluralize(labelled, 'has')} a label"
    if labelled < len(y):
        log.warning("%s: %s (%s)", target.name, some if labelled else none, how)


def score_on_rows(target: Raw, score_on: ScoreOn) -> Raw:
    """The target, its labelled rows as the test part if all of them are to be scored."""
    if score_on == "test":
        return target
    labelled = has_label(target.y)
    if bool(labelled.all()) or not bool(labelled.any()):
        what = "every row has one, and none would be left to train on" if bool(labelled.all()) else "no row has one"
        raise UserError(f"dataset.score_on=labelled scores the labelled rows of {target.name}: {what}")
    if bool((target.parts == TEST).any()):
        raise UserError(
            f"dataset.score_on=labelled makes the labelled rows of {target.name} its test split, and it has one already"
        )
    return target._replace(part=torch.where(labelled, TEST, target.parts))


def with_test_rows(target: Raw, test: Raw) -> Raw:
    """The target, which nothing divides, with the rows of another domain as its test part."""
    assert target.names is not None and test.names is not None  # both are a user's
    return target._replace(
        x=torch.cat([target.x, test.x]),
        y=torch.cat([target.y, test.y]),
        part=torch.cat([target.parts, torch.full_like(test.parts, TEST)]),
        names=np.concatenate([target.names, test.names]),
        texts=None if target.texts is None or test.texts is None else np.concatenate([target.texts, test.texts]),
        group=None if target.group is None or test.group is None else np.concatenate([target.group, test.group]),
        time=None if target.time is None or test.time is None else np.concatenate([target.time, test.time]),
    )


def refuse_policy_without_labels(policy: str, unlabelled: int) -> None:
    """Refuse to read from the target's labels which classes there are, where so many rows have none."""
    if unlabelled and policy != "same":
        raise UserError(
            f"dataset.labels={policy} reads from the target's labels which classes there are, and"
            f" {count_noun(unlabelled, 'row')} of the target {pluralize(unlabelled, 'has')} none:"
            " dataset.label_set=[…] states the classes instead"
        )
