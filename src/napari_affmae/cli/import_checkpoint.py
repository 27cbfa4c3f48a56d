"""The command that converts checkpoints of the paper's own program."""

from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from napari_affmae.cli.inputs import check_exists, check_folder
from napari_affmae.cli.terminal import say
from napari_affmae.engine.store.authors_checkpoint import import_checkpoint


def run_import(
    checkpoint: Path,
    out: Path,
    task: Literal["pretrain", "segment"],
    *,
    overwrite: bool,
    console: Console,
) -> None:
    """Write a model file from a foreign checkpoint.

    Parameters
    ----------
    checkpoint : Path
        ``.pth`` or ``.safetensors``.
    out : Path
        The model file.
    task : {"pretrain", "segment"}
        What the checkpoint was trained for.
    overwrite : bool
        Whether `out` may exist.
    console : rich.console.Console
        Where the result is reported.

    Raises
    ------
    typer.BadParameter
        The checkpoint does not exist, `out` does, or they are the same.
    """
    check_exists(checkpoint)
    check_folder(out.parent)
    if out.exists() and (not overwrite or out.samefile(checkpoint)):
        raise typer.BadParameter(f"{out} exists; choose another --out, or --overwrite it")
    import_checkpoint(checkpoint, out, task)
    say(console, f"wrote {out}")
