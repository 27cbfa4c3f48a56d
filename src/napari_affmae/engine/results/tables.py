"""Tables of measurements, for spreadsheets."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

#: Columns of equal length, by name.
Table = Mapping[str, NDArray[Any]]


def table_text(table: Table, separator: str = ",") -> str:
    """Format a table as text, with the column names in the first row.

    Parameters
    ----------
    table : Table
        Columns.
    separator : str
        Between the values of a row.

    Returns
    -------
    str
        Values that hold the separator are quoted, as CSV is.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return out.getvalue()
