"""Counts in messages, and that no message spells one in another way."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tl_runner
from tl_runner.plurals import count_noun, pluralize

ROOT = Path(tl_runner.__file__).parent
NOUNS = ("candidate", "cell", "file", "folder", "image", "job", "prediction", "run", "seed", "setting", "step", "trial")
# A count whose noun is a plural in any case, as in f"{n} runs" or "%d runs"; \x00 stands for a replacement field.
# After "of" it is a total, of which a message names a part: these are checked by eye.
SPELLED = re.compile(rf"(?<!of )(?:\x00|%d) (?:{'|'.join(NOUNS)})s\b")
ROOMS = ("cli", "datasets", "inference", "preprocessing", "report", "sweep", "trackers")
# Of what is printed for two or more alone.
SEVERAL = (
    *("\x00 has \x00 images and", "for the \x00 images of", "\x00 \x00 settings in common", "runs on different rows"),
    "pairs of domains, of the \x00 settings",
    ", means of",
    "the %d folders in it",
    "\x00 files and folders",
    "\x00 to \x00 seeds",
    "\x00 images need a plugin of Pillow",  # a format's
)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and text of every string that is no docstring, a replacement field as \x00, a constant's as its name."""
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node)} - {id(node)}
            yield node.lineno, "".join(map(_part, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.FormattedValue)
    named = isinstance(value.value, ast.Name) and value.value.id.isupper()
    return "several" if named else "\x00"


@pytest.mark.parametrize("room", ROOMS)
def test_no_message_spells_a_plural_itself(room):
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in sorted((ROOT / room).rglob("*.py"))
        for line, text in literals(ast.parse(file.read_text()))
        if SPELLED.search(text) and not any(part in text for part in SEVERAL)
    ]
    assert not found, "use plurals.count_noun:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "run", "0 runs"), (1, "run", "1 run"), (2, "run", "2 runs"), (1797, "row", "1797 rows"),
        (1, "class", "1 class"), (3, "class", "3 classes"), (1, "hidden file", "1 hidden file"),
        (2, "hidden file", "2 hidden files"),
    ],
)  # fmt: skip
def test_a_count_and_its_noun(count, noun, said):
    assert count_noun(count, noun) == said


def test_verbs_agree_with_the_count():
    assert [pluralize(1, word) for word in ("is", "was", "has")] == ["is", "was", "has"]
    assert [pluralize(count, word) for count, word in [(0, "is"), (2, "was"), (3, "has")]] == ["are", "were", "have"]
