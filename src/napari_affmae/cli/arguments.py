"""Arguments and options that several commands take in the same words."""

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[Path],
    typer.Argument(help="Images: files, OME-Zarr folders, or folders of those."),
]
Images = Annotated[Path, typer.Argument(help="Images: a file or a folder.")]
Labels = Annotated[Path, typer.Argument(help="Label images of the same names and shapes.")]
Axes = Annotated[
    str | None,
    typer.Option(help="Meaning of the images' axes, such as ZCYX, for files that do not say it."),
]
LabelAxes = Annotated[
    str | None,
    typer.Option(
        help="Meaning of the labels' axes; those of --axes by default, without the channels if "
        "labels have none."
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="Channels of the images to take, counted from 0."),
]
Run = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")]
Model = Annotated[Path, typer.Option(metavar="RUN|FILE", help="A fine-tuned run or model file.")]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Only measure the time and memory that the run will take."),
]
Devices = Annotated[
    int | None,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        help="Train on so many GPUs of this computer together, which share each batch; with "
        "--device cpu in so many processes.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
StartFrom = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|RUN|FILE|none",
        help="What to start from: weights that come with this program by their name (em-nano), a "
        "run, or a model file, whose network counts then, not --preset; 'none' is random weights. "
        "Without it, the weights that come along for this --preset, if they take the channels of "
        "the images, or a run beside --out whose probe says that it is better than they are.",
    ),
]
