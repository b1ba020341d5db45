"""Counts in messages: `1 run`, `2 runs`."""

# Nouns of our messages whose plural is not the noun with an s.
IRREGULAR = {"class": "classes", "is": "are", "has": "have", "was": "were", "lies": "lie"}


def pluralize(count: int, word: str) -> str:
    """The noun or verb in the number that `count` asks for; of a phrase, such as `hidden file`, the last word."""
    if count == 1:
        return word
    first, space, last = word.rpartition(" ")
    return f"{first}{space}{IRREGULAR.get(last, f'{last}s')}"


def count_noun(count: int, noun: str) -> str:
    """A count with its noun: `1 run`, `0 runs`, `2 hidden files`."""
    return f"{count} {pluralize(count, noun)}"
