"""What people call the parts of a domain that its makers divided: train, Test, validation, seg_train and seg_test."""

import re
from collections import defaultdict
from collections.abc import Iterable

PARTS = ("train", "val", "test")

# Word -> its position in `PARTS`; None: a part for sure, and no telling which.
WORDS: dict[str, int | None] = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), 0),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "dev"), 1),
    **dict.fromkeys(("test", "testing", "testset", "tst"), 2),
    **dict.fromkeys(("eval", "evaluation", "holdout"), None),
}
FILLERS = {"set", "split", "data", "dataset", "images", "image", "imgs", "img", "folder"}


def parts_among(names: Iterable[str]) -> dict[str, int | None]:
    """The names that are parts, with their position in `PARTS` (None: unclear); {} where they are classes.

    Capitals, digits and words like `set` do not count: `Training_Set`, `val2017`. Two siblings or more are parts if
    their names differ in the part's word alone; so is a folder without siblings. One among others is a class: a
    vehicle may be a train.
    """
    names = list(names)
    alike: dict[tuple[str, ...], dict[str, int | None]] = defaultdict(dict)
    for name in names:
        words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word and word not in FILLERS]
        said = [word for word in words if word in WORDS]
        if len(said) == 1:
            alike[tuple(word for word in words if word not in WORDS)][name] = WORDS[said[0]]
    plain = alike.get((), {})
    if len(plain) > 1 or len(plain) == len(names) == 1:
        return plain
    groups = [group for group in alike.values() if len(set(group.values())) > 1]
    return max(groups, key=len, default={})
