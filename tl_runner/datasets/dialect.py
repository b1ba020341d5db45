"""How the tables of a user's own are written: what divides cells, which signs numbers have, which words stand for none.

Most keys take a word, or the sign that it stands for.
"""

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tl_runner.errors import UserError, nearest

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
DECIMALS = {"point": ".", "comma": ","}
THOUSANDS = {"none": "", "point": ".", "comma": ",", "space": " ", "apostrophe": "'"}
MISSING = ("NA", "N/A", "NaN", "NULL", "?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# What stands for a blank or an apostrophe between thousands where programs set numbers in type.
_LIKE_THOUSANDS = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'"})


def name_category(word: str) -> str:
    """One name for each category: `1.0` is `1`, as pandas writes whole numbers where some are missing."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", word)


@dataclass(frozen=True)
class Dialect:
    """Words for the separator (`auto`: found in each file), the encoding (likewise) and the signs of numbers.

    `missing` are words for a missing value, besides an empty cell: in any case, and numbers by their value. `dates` are
    columns of ISO dates.
    """

    separator: str = "auto"
    encoding: str = "auto"
    decimal: str = "point"
    thousands: str = "none"
    missing: Sequence[str] = ()
    dates: Sequence[str] = ()

    @classmethod
    def parse(
        cls,
        separator: str = "auto",
        encoding: str = "auto",
        decimal: str = "point",
        thousands: str = "none",
        missing: Sequence[str] = (),
        dates: Sequence[str] = (),
    ) -> "Dialect":
        """The dialect that a dataset's options name; refuses, by the key, what they can't be."""
        found = cls(
            "auto" if separator == "auto" else _word("separator", separator.replace("\\t", "\t"), SEPARATORS, ["auto"]),
            encoding if encoding == "auto" else _codec(encoding),
            _word("decimal", decimal, DECIMALS),
            _word("thousands", thousands, THOUSANDS),
            tuple(missing),
            tuple(dates),
        )
        if DECIMALS[found.decimal] == THOUSANDS[found.thousands]:
            raise UserError(
                f"dataset.decimal={found.decimal} and dataset.thousands={found.thousands} are the same sign: a number"
                " such as 1.100,50 has decimal=comma and thousands=point"
            )
        return found

    @property
    def is_plain(self) -> bool:
        """Whether numbers are written as `1100.5`."""
        return self.decimal == "point" and self.thousands == "none"

    @cached_property
    def absent(self) -> frozenset[str]:
        """The words for a missing value in lower case, the empty one too."""
        return frozenset({"", *(word.strip().lower() for word in self.missing)})

    @cached_property
    def absent_values(self) -> frozenset[float]:
        """The numbers among these words."""
        plain = ((self.to_plain(word), word) for word in self.absent)  # as in a cell, or as the configuration has it
        return frozenset(float(own or word) for own, word in plain if own or NUMBER.fullmatch(word))

    @cached_property
    def absent_categories(self) -> frozenset[str]:
        """These words as names of categories."""
        return frozenset(map(name_category, self.absent))

    def is_absent(self, word: str, literal: bool = False) -> bool:
        """Whether a cell, without blanks around it, has no value.

        Numbers are compared by value, `-999.0` and `-9.99e2` with -999; in columns that are read `literal` they are
        compared as categories, so that only the first of these two is the same.
        """
        if word.lower() in self.absent:
            return True
        if literal:
            return name_category(word.lower()) in self.absent_categories
        number = self.to_plain(word) if self.absent_values else None
        return number is not None and float(number) in self.absent_values

    def describe_numbers(self) -> str:
        """The keys that say how numbers are written."""
        return f"dataset.decimal={self.decimal}" + (
            f" dataset.thousands={self.thousands}" if self.thousands != "none" else ""
        )

    @cached_property
    def to_plain(self) -> Callable[[str], str | None]:
        """What makes `1100.5` of a number in this notation, and None of anything else: `1.5` is no number with
        decimal=comma."""
        if self.is_plain:
            return lambda word: word if NUMBER.fullmatch(word) else None
        point, group = re.escape(DECIMALS[self.decimal]), re.escape(THOUSANDS[self.thousands])
        grouped = rf"|\d{{1,3}}(?:{group}\d{{3}})+" if group else ""
        pattern = re.compile(rf"([+-]?)(?:(\d+{grouped})(?:{point}(\d*))?|{point}(\d+))([eE][+-]?\d+)?", re.ASCII)
        sign = THOUSANDS[self.thousands]

        def plain(word: str) -> str | None:
            match = pattern.fullmatch(word.translate(_LIKE_THOUSANDS) if sign in (" ", "'") else word)
            if match is None:
                return None
            minus, whole, decimals, alone, exponent = match.groups()
            whole = (whole or "0").replace(sign, "") if sign else whole or "0"
            decimals = decimals or alone
            return f"{minus}{whole}{f'.{decimals}' if decimals else ''}{exponent or ''}"

        return plain


def _word(key: str, value: str, words: Mapping[str, str], others: Sequence[str] = ()) -> str:
    """The word that an option says, or that stands for the sign that it says."""
    by_sign = {sign: word for word, sign in words.items() if sign}
    found = by_sign.get(value, value)
    if found not in words:
        known = [*others, *words]
        signs = ", ".join(f"{word} ({sign!r})" if sign else word for word, sign in words.items())
        raise UserError(
            f"dataset.{key} takes {', '.join([*others, signs])}, got {value!r}{nearest(value, known)}. Where a shell or"
            " Hydra takes a sign for its own, write the word"
        )
    return found


def _codec(name: str) -> str:
    """An encoding's name as Python knows it; refuses what does not make text of bytes."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise UserError(
            f"dataset.encoding={name}: there is no such encoding"
            f"{nearest(name, ['utf-8', 'utf-16', 'utf-32', 'latin-1', 'cp1252', 'cp1250', 'mac-roman', 'shift-jis'])}"
            " (such as utf-8, utf-16, latin-1 or cp1252; auto finds it)"
        ) from error
    return found.name
