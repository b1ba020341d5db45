"""Numbers that a table writes in another way than `1100.5`, where no option says so: found by their form and named."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from unicodedata import normalize

from tl_runner.datasets.cells import Cells
from tl_runner.datasets.dialect import NUMBER

FEW = 10  # different values, up to which `5 mg`, `10 mg` may well be meant as categories
SHARE = 0.9  # of the cells with a unit that must have one and the same, or one that `UNITS` knows
PLAIN = "write plain numbers such as 1100.5, with a decimal point, without units or anything between thousands"

# What NFKC leaves: long dashes that stand for a minus, a typographic apostrophe, characters without width.
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2019": "'", "\u200b": None, "\ufeff": None})
_SIGN, _EXPONENT = r"[+-]? ?", r"(?:[eE][+-]?\d+)?"
_GROUPED = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|[1-9]\d?(?:,\d\d)+,\d{3}(?:\.\d*)?"  # 1,100.00 and 1,00,000 (India)
    r"|[1-9]\d{0,2}(?:\.\d{3})+,\d*|[1-9]\d{0,2}(?:\.\d{3}){2,}"  # 1.100,00 and 1.100.000
    r"|[1-9]\d{0,2}(?:[ ']\d{3})+(?:[.,]\d*)?)"  # 1 100 and 1'100
)
_COMMA = rf"(?:\d*[,·٫]\d+|\d+,){_EXPONENT}"
_POINT = rf"(?:\d+\.?\d*|\.\d+){_EXPONENT}"
_ANY = rf"{_SIGN}(?:{_GROUPED}|{_COMMA}|{_POINT})"
_MONEY = r"(?:[€$£¥₹₽]|EUR|USD|GBP|CHF|JPY|CNY|INR|[kK]r\.?)"
_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_NAMED = r"(?:jan|feb|m[aä]r|apr|ma[yi]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]{0,6}\.?"
_TIME = r"\d{1,3}:[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?(?: ?[ap]\.?m\.?)?"
_DATE = (
    rf"(?:\d{{4}}([-/.]){_MONTH}\1{_DAY}|{_DAY}([.-]){_MONTH}\2\d{{4}}|(?=\d\d.\d\d.\d\d$){_DAY}([.-]){_MONTH}\3\d\d"
    rf"|Q[1-4][ /-]?\d{{4}}|\d{{4}}[ /-]?Q[1-4]"  # a quarter; 2004-05 may be a season, of two years
    rf"|{_DAY}/{_MONTH}/(?:\d\d)?\d\d|{_MONTH}/{_DAY}/(?:\d\d)?\d\d"
    rf"|{_DAY}\.?[ -]?{_NAMED}[ -]?,?(?:\d\d)?\d\d|{_NAMED} ?{_DAY},? \d{{4}})"
)
_ZONE = r"(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
UNITS = frozenset(
    "kg g mg µg ug ng lb lbs oz t km m cm mm µm um nm mi ft in inch yd m2 m3 km2 cm2 ha l ml dl µl cl s ms µs ns sec"
    " min h hr hrs hour hours minute minutes second seconds d day days week weeks month months y yr yrs year years"
    " jahre tage v mv kv ma w mw kw kwh wh hz khz mhz ghz pa hpa kpa mpa bar mbar mmhg atm n nm j kj cal kcal k °c °f °"
    " deg bpm rpm mol mmol mmol/l mg/dl g/dl g/l mg/l ng/ml iu iu/l u/l km/h kmh mph m/s kb mb gb tb kib mib gib px"
    " dpi pt pct percent ppm ppb db lux lx".replace("µ", "μ").split()
)

# How much of a guess a form is where a column has few different values: then it is refused, only said, or passed.
Doubt = Literal["none", "some", "much"]


@dataclass(frozen=True)
class Form:
    """A way of writing numbers: what one cell is, how likely categories look alike, and what to write instead."""

    what: str
    doubt: Doubt
    mend: str = PLAIN
    unit: str = ""


_DATES = (
    "write ISO dates such as 2024-01-31 and name the column in dataset.dates, which makes days since 1970-01-01 of them"
)
_TIMES = "write numbers instead, such as minutes"
_BOUNDS = "write the bound alone as a number, or leave such cells empty"
_BETWEEN = "a number with separators between thousands"
_SIGNS_NOT_ASCII = "a number with a sign, digits or quotes that are not plain ASCII"


def _by(keys: str) -> str:
    """What to do where keys tell how the numbers are written."""
    return f"set {keys}, which holds for all files, or {PLAIN}"


_WRITTEN: list[tuple[str, Doubt, str, str]] = [
    (_SIGNS_NOT_ASCII, "none", PLAIN, rf"(?:'|=\")?{_SIGN}{_POINT}\"?"),
    (_BETWEEN, "none", _by("dataset.thousands=comma"), rf"{_SIGN}[1-9]\d{{0,2}}(?:,\d{{3}})+(?:\.\d*)?"),
    (
        _BETWEEN,
        "none",
        _by("dataset.decimal=comma dataset.thousands=point"),
        rf"{_SIGN}[1-9]\d{{0,2}}(?:(?:\.\d{{3}})+,\d*|(?:\.\d{{3}}){{2,}})",
    ),
    (_BETWEEN, "none", _by("dataset.thousands=space"), rf"{_SIGN}[1-9]\d{{0,2}}(?: \d{{3}})+(?:\.\d*)?"),
    (_BETWEEN, "none", _by("dataset.thousands=apostrophe"), rf"{_SIGN}[1-9]\d{{0,2}}(?:'\d{{3}})+(?:\.\d*)?"),
    (
        _BETWEEN,
        "none",
        _by("dataset.decimal=comma dataset.thousands=space"),
        rf"{_SIGN}[1-9]\d{{0,2}}(?: \d{{3}})+,\d*",
    ),
    (_BETWEEN, "none", PLAIN, rf"{_SIGN}{_GROUPED}"),
    ("a number with a decimal comma", "none", _by("dataset.decimal=comma"), rf"{_SIGN}\d*,\d+{_EXPONENT}"),
    ("a number with a decimal comma", "none", PLAIN, rf"{_SIGN}{_COMMA}"),
    ("a percentage", "some", PLAIN, rf"{_ANY} ?[%‰]"),
    ("an amount of money", "some", PLAIN, rf"{_SIGN}{_MONEY} ?{_ANY}|{_ANY} ?{_MONEY}"),
    ("a date", "some", _DATES, rf"{_DATE}(?:[T ,]+{_TIME}{_ZONE})?"),
    ("a time", "some", _TIMES, rf"{_TIME}|\d{{1,2}}h\d\d|(?:\d+ ?[dhms][a-z]* ?){{2,}}"),
    ("a bound and not a number", "much", _BOUNDS, rf"[<>≤≥~≈±]=? ?{_ANY}"),
    ("a number with a remark", "much", PLAIN, rf"{_ANY} ?\([^)]*\)|{_ANY} ?[*†‡#!]+|\({_ANY}\)|{_ANY}-"),
]
_FORMS = [(Form(what, doubt, mend), re.compile(pattern, re.IGNORECASE)) for what, doubt, mend, pattern in _WRITTEN]
_UNIT = re.compile(rf"{_ANY} ?(?P<unit>[^\W\d_°]+|°[^\W\d_]?|[^\W\d_]+[^\W_]*(?:[/·^*][^\W_]+)*|[^\W\d_]+ [^\W\d_]+)")


@lru_cache(maxsize=2**16)
def form(word: str) -> Form | None:
    """The form of a cell that is a number in another notation; None for a plain number, and for anything else."""
    if NUMBER.fullmatch(word) or not any(map(str.isdigit, word)):
        return None
    plain = normalize("NFKC", word).translate(_SIGNS).strip()
    for found, pattern in _FORMS:
        if pattern.fullmatch(plain):
            return found
    if match := _UNIT.fullmatch(plain):
        unit = match["unit"].lower()
        return Form("a number with a unit", "some" if unit in UNITS else "much", unit=unit)
    return None


@dataclass(frozen=True)
class CommonForm:
    """What most cells of a column are: the commonest form, its first cell's place, how many cells are of any form."""

    what: str
    mend: str
    first: int
    count: int
    likely: bool  # False where as few different values as there are may be categories


def another_notation(cells: Cells) -> CommonForm | None:
    """What the numbers of a column (n,), None where missing, are written in, if most of its cells are numbers so.

    Codes, ranges (`3-4 years`), versions and postcodes are none; few different values that are only likely to be
    numbers are found, with `likely` False, and those that are less than that are not found.
    """
    words = Counter(cell for cell in cells.tolist() if cell is not None)
    forms = _without_codes({word: found for word in words if (found := form(word))}, words)
    count, all_cells = sum(words[word] for word in forms), sum(words.values())
    numbers = [word for word in words if NUMBER.fullmatch(word)]
    if not forms or count + sum(words[word] for word in numbers) <= all_cells / 2:
        return None
    by_form = Counter[Form]()
    for word, found in forms.items():
        by_form[replace(found, unit="")] += words[word]
    main = by_form.most_common(1)[0][0]
    few = main.doubt != "none" and len(forms) + len(numbers) <= min(FEW, all_cells / 2)
    if few and main.doubt == "much":
        return None
    first = next(i for i, cell in enumerate(cells.tolist()) if cell in forms and forms[cell].what == main.what)
    return CommonForm(main.what, main.mend, first, count, not few)


def points_between_thousands(cells: Iterable[str | None]) -> int | None:
    """Where the first cell is of a column (n,) that reads as numbers, but writes 1100 as `1.100`; None if none does so.

    Each cell with a point then has one to three digits before it and three after it, the first of them no 0. Measured
    values look so, too, but then either all have three decimals, or (as most programs write) none ends in 0.
    """
    first, whole, ends_in_0 = None, False, False
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        if "." not in cell:
            whole = whole or (cell.strip("+-") != "0" and "e" not in cell.lower())
        elif not re.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}", cell, re.ASCII):
            return None
        else:
            first, ends_in_0 = index if first is None else first, ends_in_0 or cell.endswith("0")
    return first if whole and ends_in_0 else None


def _without_codes(forms: dict[str, Form], words: Counter[str]) -> dict[str, Form]:
    """Less what only looks like numbers: units of many kinds (`12a`, `1234 AB`), codes of one length (`110 001`),
    and lists (`1,3` beside `1,2,3`).
    """
    units = Counter[str]()
    for word, found in forms.items():
        if found.unit:
            units[found.unit] += words[word]
    known = sum(count for unit, count in units.items() if unit in UNITS)
    if units and max(known, *units.values()) < SHARE * sum(units.values()):
        forms = {word: found for word, found in forms.items() if not found.unit}
    if any(re.fullmatch(r"\d+(?:, ?\d+){2,}", word) for word in words if word not in forms):
        forms = {word: found for word, found in forms.items() if "," not in word}
    codes = [word for word in forms if re.fullmatch(r"\d+(?:[ .]\d{3})+", word)]
    if len(codes) == len(words) and len({len(word) for word in codes}) == 1 and len(codes[0]) > len("99 999"):
        return {}
    return forms
