"""Names of categories and classes that are likely one, but are written in two ways."""

from collections.abc import Collection, Iterable, Mapping
from unicodedata import normalize

from tl_runner.datasets.dialect import NUMBER
from tl_runner.errors import list_names

EXACT = 15  # digits that a float holds
TRUE, FALSE = frozenset({"true", "t", "yes", "y", "1"}), frozenset({"false", "f", "no", "n", "0"})


def find_respelled(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Those of `names` that `others` lack but hold in another spelling -> that spelling.

    Spellings differ in case, in blanks, in how an accent is encoded, or in how a number is written (`01`); two values
    may also be true and false on the one side and yes and no, or 1 and 0, on the other. A spelling that both sides have
    is taken to be meant.
    """
    names, others = set(names), set(others)
    mine, theirs = names - others, others - names
    by_spelling = {spelling(name): name for name in sorted(theirs)}
    found = {name: by_spelling[spelling(name)] for name in sorted(mine) if spelling(name) in by_spelling}
    if not found and max(len(names), len(others)) == 2 and all(map(_truth, names | others)):
        by_truth = {_truth(name): name for name in theirs}
        found = {name: by_truth[_truth(name)] for name in sorted(mine) if _truth(name) in by_truth}
    return found


def doubles(names: Collection[str]) -> list[list[str]]:
    """Groups of names with one spelling; a single letter may well have both cases (`a` and `A` of an alphabet)."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(spelling(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1 and max(map(len, group)) > 1]


def spelling(name: str) -> str:
    """What is left of a name without regard to case, blanks, encoding of accents, and zeros around a number."""
    plain = " ".join(normalize("NFKC", name).split()).casefold()
    return repr(float(plain)) if NUMBER.fullmatch(plain) and len(plain) <= EXACT else plain


def about_respelled(pairs: Mapping[str, str], whose: tuple[str, str] = ("source", "target")) -> str:
    """`pairs` of `find_respelled`, of the second's names and the first's, as a list to be read."""

    def quoted(mine: str, theirs: str) -> str:
        alike = normalize("NFC", mine) == normalize("NFC", theirs)  # on a screen: only the codes tell them apart
        written = (ascii(name) if alike else repr(name) for name in (theirs, mine))
        return " and ".join(f"{name} ({domain})" for name, domain in zip(written, whose, strict=True))

    return list_names(quoted(*pair) for pair in pairs.items())


def _truth(name: str) -> str | None:
    word = name.casefold()
    return "true" if word in TRUE else "false" if word in FALSE else None
