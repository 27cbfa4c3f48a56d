"""Objects of a result that is too large for memory: they are found, and stay, on the disk."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_affmae.config import ObjectsConfig
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine.results.tables import Table

if TYPE_CHECKING:
    from napari_affmae.widgets.segment.job import ResultReady

#: Rows that napari's table gets; the file has all.
MOST_ROWS = 50_000
# In the file lengths are nanometres, in the dock micrometres.
_UNITS = {"_nm": ("_um", 1e-3), "_nm2": ("_um2", 1e-6), "_nm3": ("_um3", 1e-9)}
_PLACES = ("plane", "row", "column")


@dataclass(frozen=True)
class ObjectsStored(ev.Event):
    """Objects that are numbered in an OME-Zarr folder and measured in a file.

    Attributes
    ----------
    levels : list of array
        The numbers, at the full resolution and smaller.
    table : Table
        Measures of the first `MOST_ROWS` objects, which are numbered from 1 without gaps.
    count : int
        Number of all objects.
    folder, file : Path
        The OME-Zarr folder, and the table of all objects.
    """

    levels: list[Any]
    table: Table
    count: int
    folder: Path
    file: Path

    def words(self) -> str:
        """Say how many there are, and where."""
        shown = len(self.table["label"])
        part = "" if shown == self.count else f" The table here shows the first {shown:,}."
        return (
            f"{self.count:,} objects were found. They are kept in {self.folder}, and all their "
            f"measures in {self.file}, until you delete them.{part}"
        )


def find_stored(
    values: Sequence[int], config: ObjectsConfig, ready: "ResultReady", classes: Path
) -> Generator[ev.Event, None, None]:
    """Find the objects of a complete result on the disk beside it, or show those found before.

    Parameters
    ----------
    values : sequence of int
        Classes.
    config : ObjectsConfig
        How objects are found.
    ready : ResultReady
        The segmentation.
    classes : Path
        Its folder.

    Yields
    ------
    Event
        `ObjectsProgress`, and `ObjectsStored` at the end.

    Raises
    ------
    AffmaeError
        As `objects_to_file`.
    """
    from napari_affmae.data import open_source
    from napari_affmae.engine import objects_to_file
    from napari_affmae.engine.objects.out_of_core import table_path
    from napari_affmae.engine.results.growing import levels_for_viewer
    from napari_affmae.engine.results.tables import count_rows
    from napari_affmae.engine.results.volume import Place, Volume, is_complete

    facts = (sorted(values), config)
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
    target = classes.with_name(f"{classes.stem} objects {digest}.zarr")
    file = table_path(target)
    if not (target.exists() and is_complete(target) and file.exists()):
        source = open_source(classes, labels=True)
        image = _like(ready.image, source)
        with closing(objects_to_file(source, values, config, target, image=image)) as events:
            for event in events:
                if isinstance(event, ev.ObjectsProgress):
                    yield event
    levels = levels_for_viewer(Volume(Place(target)), ready.result.shape[:-2])
    names = {item.value: item.name for item in ready.result.classes}
    table = _read(file, names, ready.origin)
    yield ObjectsStored(levels, table, count_rows(file), target, file)


def _like(image: ImageSource, source: ImageSource) -> ImageSource | None:
    """Return an image whose grey values can be measured; its planes may be in another order."""
    same = image.layout.plane_axes == source.layout.plane_axes or len(image.plane_shape) < 2
    return image if same else None


def _read(file: Path, names: Mapping[int, str], origin: tuple[int, int, int]) -> Table:
    """Read the first rows of a table, as the dock shows it: with places in the whole image."""
    import pandas as pd  # not earlier: it takes as long as all else of a dock

    table: dict[str, Any] = {}
    for name, column in pd.read_csv(file, nrows=MOST_ROWS).items():
        values = column.to_numpy()
        stem, _, unit = str(name).rpartition("_")
        other, factor = _UNITS.get(f"_{unit}", (None, 1.0))
        for axis, first in zip(_PLACES, origin, strict=True):
            if str(name).split("_")[0] == axis:
                values = values + first
        table[str(name) if other is None else stem + other] = values * factor if other else values
    classes = table.pop("class")
    table["class"] = np.array([names.get(int(value), str(value)) for value in classes], str)
    return table
