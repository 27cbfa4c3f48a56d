"""The command that counts objects: segmented images in, numbered ones and tables out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from napari_affmae.cli.batch import Batch
from napari_affmae.cli.inputs import Reading, argument_errors, open_images
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Meter, meter
from napari_affmae.cli.segment import check_results, result_paths
from napari_affmae.cli.terminal import say
from napari_affmae.config import ObjectsConfig
from napari_affmae.data import ImageSource, read_labels
from napari_affmae.data.labels import check_channels
from napari_affmae.engine import label_objects, measure_objects
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.results.tables import Table, table_text
from napari_affmae.errors import DataError
from napari_affmae.files import replace_bytes


def run_objects(
    paths: Sequence[Path],
    values: Sequence[int],
    out: Path,
    given: Given,
    *,
    axes: str | None,
    plane_distance: float | None,
    overwrite: bool,
    console: Console,
) -> None:
    """Find, number and measure the objects of every segmented image.

    Parameters
    ----------
    paths : Sequence[Path]
        Label images: files and folders; the probabilities that ``segment`` writes
        beside them are left out.
    values : Sequence[int]
        Classes whose objects are wanted.
    out : Path
        Folder of the results; for a single image also the TIFF file itself. The
        table lies beside it.
    given : dict[str, Any]
        Settings that were given, unchecked.
    axes : str or None
        Meaning of the images' axes.
    plane_distance : float or None
        Nanometres from plane to plane, if the images have none or a wrong one.
    overwrite : bool
        Whether results that are there may be replaced.
    console : rich.console.Console
        Where progress is shown.

    Raises
    ------
    typer.BadParameter
        A result would replace an input, another result, or a file that is
        there; an image holds no whole numbers; or a distance of planes is given
        for objects that lie in one plane each.
    """
    config = build(ObjectsConfig, given)
    if plane_distance is not None and not config.three_d:
        raise typer.BadParameter(
            "--plane-distance is for volumes, and objects end with their plane: add --three-d, "
            "or leave it out"
        )
    sources = _labels_among(open_images(paths, Reading(axes), console, labels=True), console)
    targets = result_paths(sources, out)
    tables = [target.with_suffix(".csv") for target in targets]
    check_results(sources, [*targets, *tables], overwrite=overwrite)
    batch = Batch(console)
    for target, source in targets.items():
        with batch.image(source.name):
            spacing: tuple[float, ...] | None = source.pixel_size
            if spacing is not None and config.three_d:
                distance = plane_distance or source.plane_distance
                spacing = None if distance is None else (distance, *spacing)
            with (
                meter(console, source.name) as progress,
                PlaneFile.like(target, source) as file,
                argument_errors(),
            ):
                rows = list(_number(source, values, config, spacing, file, progress))
            table = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
            replace_bytes(target.with_suffix(".csv"), table_text(table).encode())
            say(console, f"wrote {target}: {len(table['label'])} objects")
    batch.finish(len(targets), "measured", "Repair or remove them, then repeat the command")


def _labels_among(sources: Sequence[ImageSource], console: Console) -> list[ImageSource]:
    """Keep the label images, recognised by their first planes; print what is left out.

    The probabilities that `segment` writes lie beside its labels.

    Raises
    ------
    typer.BadParameter
        There is none.
    """
    kept, reasons = [], []
    for source in sources:
        try:
            _check_labels(source)
        except (DataError, TypeError) as error:
            reasons.append(str(error))
        else:
            kept.append(source)
    if not kept:
        raise typer.BadParameter(reasons[0])
    for reason in reasons:
        say(console, f"warning: left out: {reason}", "yellow")
    return kept


def _check_labels(source: ImageSource) -> None:
    check_channels(source)
    read_labels(source, 0)


def _number(
    source: ImageSource,
    values: Sequence[int],
    config: ObjectsConfig,
    spacing: tuple[float, ...] | None,
    file: PlaneFile,
    progress: Meter,
) -> Iterator[Table]:
    """Write the numbered planes of an image; yield tables of their objects."""
    count = 0
    for planes in _blocks(source, config.three_d):
        classes = _read(source, planes)
        objects = label_objects(classes, values, **config.model_dump())
        objects[objects > 0] += count
        for plane in objects:
            file.write(plane)
        table = measure_objects(objects, spacing, classes=classes)
        table["plane"] += planes[0]
        count += len(table["label"])
        progress.update(planes[-1] + 1, source.n_planes, f"{count} objects")
        yield table


def _read(source: ImageSource, planes: range) -> NDArray[np.integer[Any]]:
    """Read planes in their own dtype, because int64 would need eight times the memory."""
    whole = source.dtype if source.dtype.kind in "ui" else np.int64
    classes = np.empty((len(planes), source.height, source.width), whole)
    for target, plane in zip(classes, planes, strict=True):
        target[:] = read_labels(source, plane)
    return classes


def _blocks(source: ImageSource, three_d: bool) -> list[range]:
    """Planes that objects may share: all of them, or each its own."""
    if three_d:
        return [range(source.n_planes)]
    return [range(plane, plane + 1) for plane in range(source.n_planes)]
