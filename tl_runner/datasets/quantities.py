"""A column of numbers to be predicted: read from a table, refused where a cell is none."""

from collections.abc import Callable, Sequence

from tl_runner.datasets import notation
from tl_runner.datasets.cells import Floats, Table, format_option
from tl_runner.datasets.classes import split_off_label
from tl_runner.datasets.column_reading import explain_no_number
from tl_runner.datasets.columns import parse_numbers
from tl_runner.datasets.labelled import WhetherLabelled
from tl_runner.errors import UserError
from tl_runner.plurals import count_noun


def split_quantity(
    table: Table,
    label: str,
    missing: Sequence[str],
    literally: Callable[[str], Table],
    whether: WhetherLabelled = "yes",
) -> tuple[Table, Floats]:
    """The table's features, and the value of each row (n,), NaN where it has none; see `classes.split_off_label`."""
    features, cells = split_off_label(table, label, missing, literally, whether, quantity=True)
    values, text = parse_numbers(cells)
    if text.any():
        first = int(text.argmax())
        word = cells[first]
        form = notation.form(word)
        mend = f"{form.what}: {form.mend}" if form else format_option("missing", [*missing, word])
        stands = "it is " if form else "if it stands for a missing value, set "
        raise UserError(
            f"column {label!r}: {table.where(first)} holds {word!r}, {explain_no_number(word)}"
            f" ({text.sum()} of {count_noun(len(table), 'row')}), and dataset.task=regression predicts numbers;"
            f" {stands}{mend}; if the column holds classes, set dataset.task=classification"
        )
    return features, values


def refuse_options_of_classes(labels: str, label_set: Sequence[str]) -> None:
    """Refuse what can only be said of classes."""
    said = [f"labels={labels}"] * (labels != "same") + [format_option("label_set", label_set)] * bool(label_set)
    if said:
        raise UserError(f"{said[0]} is about classes, and dataset.task=regression predicts a quantity: leave it out")
