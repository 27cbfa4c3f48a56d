"""The command that segments: files in, label images of the same names out."""

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

import typer
from rich.console import Console

from napari_affmae.cli.batch import Batch
from napari_affmae.cli.inputs import (
    Reading,
    argument_errors,
    check_exists,
    check_folder,
    open_images,
)
from napari_affmae.cli.options import Given, build
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.stopping import deliver, this_command
from napari_affmae.cli.terminal import say
from napari_affmae.config import SegmentConfig
from napari_affmae.data import ImageSource
from napari_affmae.data.formats.opening.kinds import stem_of
from napari_affmae.engine import VolumeSegmenter
from napari_affmae.engine.results.target import (
    clear_parts,
    is_unfinished,
    is_zarr_target,
    probabilities_path,
    why_not_result,
)
from napari_affmae.engine.volumes.executor import Executor, Threads, settled_precision
from napari_affmae.engine.volumes.origins import Origins
from napari_affmae.errors import UnreadableFileError

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
    scheduler: str | None = None,
    console: Console,
) -> None:
    """Segment every image and write the label images, stack for stack.

    If an image cannot be segmented, this is reported and the others are segmented.

    Parameters
    ----------
    paths : Sequence[Path]
        Files and folders.
    model : Path
        A fine-tuned run or model file.
    out : Path
        Folder of the results; for a single image also the TIFF file or the OME-Zarr
        folder itself.
    given : dict[str, Any]
        Settings that were given, unchecked.
    reading : Reading
        Axes and channels of the images.
    overwrite : bool
        Whether results that are there may be replaced.
    skip_existing : bool
        Whether to leave out images whose results are there.
    scheduler : str or None
        Address of a dask scheduler whose workers compute; None computes here.
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
    origins = Origins(model, config)
    executor = _executor(scheduler)
    if skip_existing:
        precision = settled_precision(executor, config)
        targets = _missing(targets, config, origins, precision, console)
    files = {target: [target] for target in targets}
    if config.probabilities:
        files = {target: [target, probabilities_path(target)] for target in targets}
    begun = {file for target in targets if is_unfinished(target) for file in files[target]}
    check_results(sources, [*chain(*files.values())], begun=begun, overwrite=overwrite)
    if targets:
        with argument_errors():
            volumes = VolumeSegmenter(origins, config, executor=executor)
    batch = Batch(console)
    for number, (target, source) in enumerate(targets.items()):
        with batch.image(source.name):
            for note in source.notes:
                say(console, f"info: {source.name}: {note}")
            events = volumes.segment(source, target, overwrite=overwrite)
            with meter(console, source.name) as progress:
                reporter = Reporter(console, progress, start=number == 0)
                deliver(events, [reporter.show], console, resume=this_command("--skip-existing"))
            say(console, f"wrote {target}")
    batch.finish(
        len(targets),
        "segmented",
        "Repair or remove them; then repeat the command with --skip-existing",
    )


def _executor(scheduler: str | None) -> Executor:
    """Choose where to compute.

    Raises
    ------
    typer.BadParameter
        The extra package that a scheduler needs is not installed.
    """
    if scheduler is None:
        return Threads()
    if importlib.util.find_spec("distributed") is None:
        raise typer.BadParameter(
            "--scheduler needs another package: pip install 'napari-affmae[distributed]'"
        )
    cluster = importlib.import_module("napari_affmae.engine.volumes.cluster")
    connected: Executor = cluster.Cluster(scheduler)
    return connected


def _missing(
    targets: Mapping[Path, ImageSource],
    config: SegmentConfig,
    origins: Origins,
    precision: str,
    console: Console,
) -> dict[Path, ImageSource]:
    """Keep the images without a result, and print how many have one.

    A file that is there, but is not the result of this image, model and settings, is told.
    """
    missing = {}
    chances = config.probability_type if config.probabilities else None
    for target, source in targets.items():
        files = [target, *([probabilities_path(target)] if config.probabilities else [])]
        there = [file for file in files if _is_there(file)]
        try:
            origin = origins.of(source, precision) if there else None
        except UnreadableFileError:  # told when it is its turn
            origin = None
        reasons = {}
        if origin is not None:
            reasons = {file: why_not_result(file, source, origin, chances) for file in there}
        for file, reason in reasons.items():
            if reason is not None:
                say(console, f"warning: {file} is not skipped: {reason}", "yellow")
        if origin is None or len(there) < len(files) or any(reasons.values()):
            missing[target] = source
        else:
            clear_parts(target)
    say(console, f"{len(targets) - len(missing)} of {len(targets)} images have their results")
    return missing


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a name that is too long; told when it is its turn
        return False


def result_paths(sources: Sequence[ImageSource], out: Path) -> dict[Path, ImageSource]:
    """Choose the files of the results: `out` itself for one image, else TIFF files in it.

    Raises
    ------
    typer.BadParameter
        Two images would have the same result.
    """
    if len(sources) == 1 and (out.suffix.lower() in _TIFF or is_zarr_target(out)):
        return {out: sources[0]}
    if is_zarr_target(out):
        raise typer.BadParameter(
            f"--out: {out} holds one image, and there are {len(sources)}; segment them one by one, "
            "or give a folder, in which each gets a TIFF file"
        )
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
    stem = stem_of(path).removesuffix(".ome")
    parts = [stem, *inner.split("/")] if inner else [stem]
    return path.parent / f"{'_'.join(parts)}.tif"


def check_results(
    sources: Sequence[ImageSource],
    files: Sequence[Path],
    *,
    begun: Collection[Path] = (),
    overwrite: bool,
) -> None:
    """Check that results replace no input and, unless `overwrite` is set, no other file.

    Results that were begun may be there.

    Raises
    ------
    typer.BadParameter
        If one does, naming it; or if a file is in the place of their folder.
    """
    for folder in {file.parent for file in files}:
        check_folder(folder)
    inputs = {file.resolve() for source in sources for file in source.files}
    for file in files:
        if file.resolve() in inputs:
            raise typer.BadParameter(f"--out: {file} is one of the images; choose another folder")
    existing = [file for file in files if _is_there(file) and file not in begun]
    if existing and not overwrite:
        raise typer.BadParameter(
            f"--out: {existing[0]} exists ({len(existing)} of {len(files)} results do); "
            "choose another folder, or --overwrite"
        )
