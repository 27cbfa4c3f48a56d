"""The command that writes models for other programs."""

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from napari_affmae.cli.inputs import check_exists, check_folder
from napari_affmae.cli.progress import Reporter, meter
from napari_affmae.cli.stopping import deliver
from napari_affmae.cli.terminal import say
from napari_affmae.engine import export_bioimageio


def run_export(
    model: Path,
    out: Path,
    *,
    tile: int | None,
    example: Path | None,
    authors: Sequence[str],
    license_id: str | None,
    graphs: bool,
    overwrite: bool,
    console: Console,
) -> None:
    """Write a package.

    Parameters
    ----------
    model : Path
        A fine-tuned run or model file.
    out : Path
        The package.
    tile : int or None
        Side of its input, pixels; None for the training crop.
    example : Path or None
        Image for its test and cover.
    authors : Sequence[str]
        Who made the model.
    license_id : str or None
        SPDX identifier of its licence.
    graphs : bool
        Whether it holds TorchScript and ONNX too.
    overwrite : bool
        Whether `out` may exist.
    console : rich.console.Console
        Where progress is shown.

    Raises
    ------
    typer.BadParameter
        The model or the example does not exist, or an argument is refused.
    """
    check_exists(model, *([] if example is None else [example]))
    check_folder(out.parent)
    if out.exists() and not overwrite:
        raise typer.BadParameter(f"{out} exists; choose another --out, or --overwrite it")
    events = export_bioimageio(
        model,
        out,
        tile=tile,
        example=example,
        authors=authors,
        license_id=license_id,
        graphs=graphs,
        overwrite=overwrite,
    )
    with meter(console, "export") as progress:
        deliver(events, [Reporter(console, progress).show], console)
    missing = [
        words
        for words, given in (("authors (--author)", authors), ("licence (--license)", license_id))
        if not given
    ]
    if missing:
        say(console, f"note: it names no {' and no '.join(missing)}; add them before you share it")
