"""Tables of measurements, for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_affmae.engine.results.new_file import NewFile
from napari_affmae.files import write_errors

#: Columns of equal length, by name.
Table = Mapping[str, NDArray[Any]]


def table_text(table: Table, separator: str = ",", *, names: bool = True) -> str:
    """Format a table as text, with the column names in the first row.

    Parameters
    ----------
    table : Table
        Columns.
    separator : str
        Between the values of a row.
    names : bool
        Whether there is a row of names.

    Returns
    -------
    str
        Values that hold the separator are quoted, as CSV is.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    if names:
        writer.writerow(table)
    writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return out.getvalue()


def write_table(path: Path, parts: Iterable[Table]) -> None:
    """Write a table as CSV, part by part; it appears when it is complete.

    Parameters
    ----------
    path : Path
        File to create or replace.
    parts : iterable of Table
        At least one; all with the same columns.

    Raises
    ------
    UnwritableError
        If it cannot be written, or another process writes it.
    """
    with NewFile(path) as new, write_errors(path):
        file = new.open()
        for number, part in enumerate(parts):
            file.write(table_text(part, names=number == 0).encode())
        new.commit()


def count_rows(path: Path) -> int:
    """Count the rows of a table that `write_table` has written, without the names."""
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1
