"""How a table's columns become a network's inputs: fitted once, kept as facts, applied to any rows."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_runner.datasets.cells import Floats, Table, format_option, map_words, normalise_categories
from tl_runner.datasets.columns import ColumnKind, parse_numbers

log = logging.getLogger(__name__)


@lru_cache(maxsize=2**16)
def code(name: str) -> float:
    """A whole number of 48 bits that stands for a category among floats.

    It is a hash of the name alone: were it a position among the names, a new one in the target would renumber the
    source's, and so move its rows from one split to another.
    """
    return float(int.from_bytes(blake2b(name.encode(), digest_size=6).digest(), "big"))


def matrix(table: Table, kinds: Mapping[str, ColumnKind]) -> Floats:
    """The raw inputs (n, columns): numbers as they are, categories by `code`, NaN where missing."""

    def column(name: str, kind: ColumnKind) -> Floats:
        cells = table.cells[name]
        if kind == "numeric":
            return parse_numbers(cells)[0]
        names = normalise_categories(cells)
        codes = {name: np.nan if name is None else code(name) for name in set(names.tolist())}
        return map_words(names, codes, np.float64)

    return np.column_stack([column(name, kind) for name, kind in kinds.items()])


def fit(raw: Floats, kinds: Mapping[str, ColumnKind], words: Mapping[float, str]) -> dict[str, Any]:
    """All that `encode` needs to know, in JSON's words, from the rows (n, columns) that it is fitted on.

    Of a numeric column the median of what is observed, the mean and the deviation (over n) once that fills the gaps,
    and whether there were gaps; of a categorical one its categories. `words` are the names behind the codes.
    """

    def facts(name: str, kind: ColumnKind, values: Floats) -> dict[str, Any]:
        present = values[~np.isnan(values)]
        if kind == "categorical":
            return {"name": name, "kind": kind, "categories": sorted(words[value] for value in np.unique(present))}
        median = float(np.median(present)) if len(present) else 0.0
        filled = np.where(np.isnan(values), median, values)
        constant = np.ptp(filled) == 0  # exactly: the deviation of 0.1, 0.1, … is not 0 in floats
        mean, sd = (float(filled[0]), 0.0) if constant else (float(filled.mean()), float(filled.std()))
        if sd == 0 and not constant:
            log.warning(
                "column %r: its numbers differ by %.3g at most, which is too little to compute with: it tells nothing"
                " until you multiply it by a constant. %s leaves it out",
                name, np.ptp(filled), format_option("drop", [name]),
            )  # fmt: skip
        gaps = len(present) < len(values)
        return {"name": name, "kind": kind, "median": median, "mean": mean, "sd": sd, "gaps": gaps}

    return {"columns": [facts(name, kind, raw[:, index]) for index, (name, kind) in enumerate(kinds.items())]}


def encode(raw: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """Raw rows (n, columns) as inputs (n, d) float32, by the facts of `fit`; column after column:

    numeric: (x − mean) / sd, the median where x is missing, 0 everywhere where sd is 0; then, if it had gaps, 1 where
    x is missing, else 0. categorical: 1 at x's category, else 0; all 0 for a missing one and one that `fit` never met.
    """
    blocks = []
    for x, column in zip(raw.double().T, facts["columns"], strict=True):
        if column["kind"] == "categorical":
            codes = torch.tensor([code(name) for name in column["categories"]], dtype=torch.double)
            blocks.append(x[:, None] == codes)
            continue
        missing, sd = x.isnan(), column["sd"]
        scaled = (torch.where(missing, column["median"], x) - column["mean"]) / sd if sd else torch.zeros_like(x)
        blocks.append(torch.stack([scaled, missing.double()] if column["gaps"] else [scaled], 1))
    return torch.cat([block.float() for block in blocks], 1)
