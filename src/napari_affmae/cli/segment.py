"""The command that segments: files in, label images of the same names out."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from napari_affmae.cli.inputs import (
    Reading,
    argument_errors,
    check_exists,
    check_folder,
    open_images,
)
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.stopping import follow
from napari_affmae.cli.tiff import PlaneFile
from napari_affmae.config import SegmentConfig
from napari_affmae.data import ImageSource
from napari_affmae.engine import Segmenter
from napari_affmae.engine.events import BandDone, Event, PlaneDone
from napari_affmae.errors import AffmaeError, DataError, UnreadableFileError
from napari_affmae.files import write_errors

_TIFF = (".tif", ".tiff")


def run_segment(
    paths: Sequence[Path],
    model: Path,
    out: Path,
    given: Given,
    *,
    reading: Reading,
    overwrite: bool,
    skip_existing: bool,
    console: Console,
) -> None:
    """Segment every image and write the label images, stack for stack.

    An image that cannot be segmented is told, and the others are.

    Parameters
    ----------
    paths : Sequence[Path]
        Files and folders.
    model : Path
        A fine-tuned run or model file.
    out : Path
        Folder of the results; for a single image also the TIFF file itself.
    given : dict[str, Any]
        Settings that were given, unchecked.
    reading : Reading
        Axes and channels of the images.
    overwrite : bool
        Whether results that are there may be replaced.
    skip_existing : bool
        Whether to leave out images whose results are there.
    console : rich.console.Console
        Where progress is shown.

    Raises
    ------
    typer.BadParameter
        A result would replace an input, another result, or a file that is there.
    AffmaeError
        Some images could not be segmented.
    """
    config = build(SegmentConfig, given)
    check_exists(model)
    sources = open_images(paths, reading, console)
    targets = result_paths(sources, out)
    if skip_existing:
        targets = _missing(targets, config, console)
    others = [probabilities_path(target) for target in targets if config.probabilities]
    check_results(sources, [*targets, *others], overwrite=overwrite)
    failed = []
    if targets:
        with argument_errors():
            segmenter = Segmenter(model, config)
    for number, (target, source) in enumerate(targets.items()):
        try:
            with meter(console, source.name) as progress, PlaneWriter(target, source) as writer:
                reporter = Reporter(console, progress, planes=source.n_planes, start=number == 0)
                follow(segmenter.segment(source), [reporter.show, writer.take], console)
        except (DataError, UnreadableFileError) as error:
            failed.append(source.name)
            _say(console, f"error: {error}", "red")
            continue
        _say(console, f"wrote {target}")
    if failed:
        raise AffmaeError(
            f"{len(failed)} of {len(targets)} images could not be segmented: {', '.join(failed)}. "
            "Mend them or take them out; the same command with --skip-existing does the rest"
        )


def _missing(
    targets: Mapping[Path, ImageSource], config: SegmentConfig, console: Console
) -> dict[Path, ImageSource]:
    """Keep what lacks a result, and say how many do not."""
    missing = {
        target: source
        for target, source in targets.items()
        if not target.exists() or (config.probabilities and not probabilities_path(target).exists())
    }
    _say(console, f"{len(targets) - len(missing)} of {len(targets)} images have their results")
    return missing


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class PlaneWriter:
    """Writes the planes of a segmentation as they come.

    Use it as a context manager: files appear complete or not at all.

    Parameters
    ----------
    target : Path
        The label image; probabilities go to a file of this name beside it.
    source : ImageSource
        What is segmented, for its planes and the sizes of its pixels.
    """

    def __init__(self, target: Path, source: ImageSource) -> None:
        self._files = ExitStack()
        self._shape = (source.height, source.width)
        self._labels = self._open(target, source)
        self._probabilities = self._open(probabilities_path(target), source)
        self._plane: BinaryIO | None = None

    def _open(self, path: Path, source: ImageSource) -> PlaneFile:
        return self._files.enter_context(PlaneFile.like(path, source))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def take(self, event: Event) -> None:
        """Write what an event brings of a plane, if it brings anything."""
        match event:
            case BandDone(probabilities=band, rows=rows) if band is not None:
                with write_errors(self._probabilities.path):
                    self._put_aside(band, rows.start)
            case PlaneDone(labels=labels):
                self._labels.write(labels)
                if self._plane is not None:
                    stack = np.memmap(self._plane, np.float32, "r")
                    self._probabilities.write(stack.reshape(-1, *self._shape))

    def _put_aside(self, band: NDArray[np.float32], start: int) -> None:
        """Write rows of a plane to a scratch file: a TIFF takes class by class, and whole ones."""
        if self._plane is None:
            folder = self._probabilities.path.parent
            folder.mkdir(parents=True, exist_ok=True)
            self._plane = self._files.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
        height, width = self._shape
        for number, rows in enumerate(band):
            self._plane.seek((number * height + start) * width * rows.itemsize)
            self._plane.write(rows.tobytes())
        self._plane.flush()


def probabilities_path(target: Path) -> Path:
    """Return where the class probabilities of a label image lie."""
    return target.with_name(f"{target.stem}_probabilities.tif")


def result_paths(sources: Sequence[ImageSource], out: Path) -> dict[Path, ImageSource]:
    """Choose the TIFF files of the results: `out` itself for one image, else files in it.

    Raises
    ------
    typer.BadParameter
        Two images would have the same result.
    """
    if len(sources) == 1 and out.suffix.lower() in _TIFF:
        return {out: sources[0]}
    targets: dict[Path, ImageSource] = {}
    for source in sources:
        target = out / _tiff_name(source.name)
        if target in targets:
            raise typer.BadParameter(
                f"{source.name} and {targets[target].name} would both become {target}; "
                "give them different folders"
            )
        targets[target] = source
    return targets


def _tiff_name(name: str) -> Path:
    """Name the result: ``a/b.ome.tif`` gives ``a/b.tif``, ``v.h5:/raw/x`` gives ``v_raw_x.tif``."""
    file, _, inner = name.partition(":/")
    path = Path(file)
    stem = path.name.removesuffix(path.suffix).removesuffix(".ome")
    parts = [stem, *inner.split("/")] if inner else [stem]
    return path.parent / f"{'_'.join(parts)}.tif"


def check_results(
    sources: Sequence[ImageSource], files: Sequence[Path], *, overwrite: bool
) -> None:
    """Refuse results that would replace an input, or, unless told to, another file.

    Raises
    ------
    typer.BadParameter
        Naming the first one; or a file is where their folder is to be.
    """
    for folder in {file.parent for file in files}:
        check_folder(folder)
    inputs = {file.resolve() for source in sources for file in source.files}
    for file in files:
        if file.resolve() in inputs:
            raise typer.BadParameter(f"--out: {file} is one of the images; choose another folder")
    existing = [file for file in files if file.exists()]
    if existing and not overwrite:
        raise typer.BadParameter(
            f"--out: {existing[0]} exists ({len(existing)} of {len(files)} results do); "
            "choose another folder, or --overwrite"
        )
