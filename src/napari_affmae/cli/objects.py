"""The command that counts objects: segmented images in, numbered ones and tables out."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import typer
from rich.console import Console

from napari_affmae.cli.batch import Batch
from napari_affmae.cli.inputs import Reading, open_images
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.segment import check_results, result_paths
from napari_affmae.cli.stopping import deliver, this_command
from napari_affmae.cli.terminal import say
from napari_affmae.config import ObjectsConfig
from napari_affmae.data import ImageSource, read_labels
from napari_affmae.data.labels import check_channels
from napari_affmae.engine import objects_to_file
from napari_affmae.engine.objects.out_of_core import table_path
from napari_affmae.engine.results.target import is_unfinished
from napari_affmae.errors import DataError
from napari_affmae.files import scratch_path

# Rows and columns that are looked at to tell labels from other images.
_LOOK = 1024


def run_objects(
    paths: Sequence[Path],
    values: Sequence[int],
    out: Path,
    given: Given,
    *,
    image: Path | None = None,
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
        Folder of the results; for a single image also the TIFF file or the OME-Zarr folder
        itself. The table lies beside it.
    given : dict[str, Any]
        Settings that were given, unchecked.
    image : Path or None
        The image that was segmented, whose grey values are measured.
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
        there; an image holds no whole numbers; a distance of planes is given
        for objects that lie in one plane each; or one image for several segmentations.
    AffmaeError
        The objects of some images could not be found.
    """
    config = build(ObjectsConfig, given)
    if plane_distance is not None and not config.three_d:
        raise typer.BadParameter(
            "--plane-distance is for volumes, and objects end with their plane: add --three-d, "
            "or leave it out"
        )
    sources = _labels_among(open_images(paths, Reading(axes), console, labels=True), console)
    grey = _image_of(image, sources, axes, console)
    targets = result_paths(sources, out)
    files = {target: [target, table_path(target)] for target in targets}
    begun = [target for target in targets if is_unfinished(target) or scratch_path(target).exists()]
    check_results(
        [*sources, *([] if grey is None else [grey])],
        [*chain(*files.values())],
        begun={file for target in begun for file in files[target]},
        overwrite=overwrite,
    )
    batch = Batch(console)
    for target, source in targets.items():
        with batch.image(source.name):
            if plane_distance is not None:
                source.plane_distance = plane_distance
            events = objects_to_file(
                source, values, config, target, image=grey, overwrite=overwrite
            )
            with meter(console, source.name) as progress:
                reporter = Reporter(console, progress)
                deliver(events, [reporter.show], console, resume=this_command())
    batch.finish(len(targets), "measured", "Repair or remove them, then repeat the command")


def _image_of(
    path: Path | None, sources: Sequence[ImageSource], axes: str | None, console: Console
) -> ImageSource | None:
    """Open the image whose grey values are wanted.

    Raises
    ------
    typer.BadParameter
        There is more than one image, or segmentation.
    """
    if path is None:
        return None
    found = open_images([path], Reading(axes), console)
    if len(found) > 1 or len(sources) > 1:
        raise typer.BadParameter(
            "--image is the image of one segmentation; give one of each, and repeat the command "
            "for others"
        )
    return found[0]


def _labels_among(sources: Sequence[ImageSource], console: Console) -> list[ImageSource]:
    """Keep the label images, recognised by their first planes; print what is left out.

    The probabilities that `segment` writes lie beside its labels. What is not complete is kept,
    and fails when it is its turn.

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
    read_labels(source, 0, _middle(source.height), _middle(source.width))


def _middle(size: int) -> slice:
    start = max(0, (size - _LOOK) // 2)
    return slice(start, start + _LOOK)
