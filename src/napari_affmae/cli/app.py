"""The commands and their arguments.

Each command imports the module that does the work only when it runs: to import
torch takes seconds, and the help and wrong arguments should be answered at once.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_affmae.cli.arguments import (
    Axes,
    Channels,
    Devices,
    Images,
    LabelAxes,
    Labels,
    Model,
    Overwrite,
    Plan,
    Resume,
    Run,
    Sources,
    StartFrom,
)
from napari_affmae.cli.options import Given, settings_options
from napari_affmae.cli.terminal import Terminal
from napari_affmae.config import (
    MOST_SEED,
    FinetuneConfig,
    ObjectsConfig,
    PretrainConfig,
    SegmentConfig,
)

app = typer.Typer(
    help="Turn unlabelled electron microscopy into a segmentation network of your own.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _console() -> Terminal:
    return Terminal(stderr=True)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"napari-affmae {version('napari-affmae')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for data, runs and report.")
    ] = Path("affmae-demo"),
    seed: Annotated[
        int, typer.Option(help="Of images, weights, crops and masks.", min=0, max=MOST_SEED)
    ] = 0,
) -> None:
    """Pretrain, fine-tune and segment synthetic images, in minutes on a CPU."""
    from napari_affmae.cli.demo import run_demo

    run_demo(out, seed, _console())


@app.command()
@settings_options(PretrainConfig, without=("in_channels",))
def pretrain(
    sources: Sources,
    out: Run,
    start: StartFrom = None,
    probe_images: Annotated[
        Path | None,
        typer.Option(help="Labelled images on which the features are measured as they develop."),
    ] = None,
    probe_labels: Annotated[
        Path | None, typer.Option(help="Their label images; nothing is learned from them.")
    ] = None,
    probe_ignore: Annotated[
        int | None, typer.Option(help="Value in these labels that means unknown.", metavar="N")
    ] = None,
    axes: Axes = None,
    channels: Channels = None,
    resume: Resume = False,
    plan: Plan = False,
    devices: Devices = None,
    *,
    given: Given,
) -> None:
    """Learn from unlabelled images, for a number of --steps or --minutes."""
    from napari_affmae.cli.inputs import Reading
    from napari_affmae.cli.training import PretrainArguments, parse_start, run_pretrain

    arguments = PretrainArguments(
        sources=sources,
        start=parse_start(start),
        probe_images=probe_images,
        probe_labels=probe_labels,
        probe_ignore=probe_ignore,
        reading=Reading(axes, channels),
    )
    run_pretrain(
        arguments, out, given, resume=resume, plan=plan, devices=devices, console=_console()
    )


@app.command()
@settings_options(FinetuneConfig, without=("in_channels", "classes"))
def finetune(
    images: Images,
    labels: Labels,
    out: Run,
    pretrained: StartFrom = None,
    validation_images: Annotated[
        Path | None,
        typer.Option(help="Images on which the best weights are chosen."),
    ] = None,
    validation_labels: Annotated[Path | None, typer.Option(help="Their label images.")] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="VALUE=NAME",
            help="A class: 1=membrane, or 1=membrane=#ff8800 with a colour. Repeat the option for "
            "each class. Without it, the classes are the values in the labels.",
        ),
    ] = None,
    axes: Axes = None,
    label_axes: LabelAxes = None,
    channels: Channels = None,
    resume: Resume = False,
    plan: Plan = False,
    devices: Devices = None,
    *,
    given: Given,
) -> None:
    """Train a segmentation network on labelled images, for a number of --steps or --minutes."""
    from napari_affmae.cli.inputs import Reading
    from napari_affmae.cli.training import FinetuneArguments, parse_start, run_finetune

    arguments = FinetuneArguments(
        images=images,
        labels=labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
        pretrained=parse_start(pretrained),
        classes=classes or [],
        reading=Reading(axes, channels, label_axes=label_axes),
    )
    run_finetune(
        arguments, out, given, resume=resume, plan=plan, devices=devices, console=_console()
    )


@app.command()
@settings_options(SegmentConfig)
def segment(
    sources: Sources,
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Folder for the label images (OME-TIFF); for one image also its own .tif or, for "
            "volumes of any size, .zarr (OME-Zarr).",
        ),
    ],
    axes: Axes = None,
    channels: Channels = None,
    flip_rows: Annotated[
        bool,
        typer.Option(
            "--flip-rows",
            help="Segment images upside down, as IMOD shows MRC files; results have this order "
            "of rows, too.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip images that have results.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A dask scheduler whose workers compute, such as tcp://node1:8786; they need "
            "this program and the same folders.",
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Segment images and stacks with a fine-tuned network.

    The same command goes on where it was stopped.
    """
    from napari_affmae.cli.inputs import Reading
    from napari_affmae.cli.segment import run_segment

    run_segment(
        sources,
        model,
        out,
        given,
        reading=Reading(axes, channels, flip_rows),
        overwrite=overwrite,
        skip_existing=skip_existing,
        scheduler=scheduler,
        console=_console(),
    )


@app.command()
@settings_options(ObjectsConfig)
def objects(
    sources: Annotated[
        list[Path], typer.Argument(help="Segmented images: label images, or folders of those.")
    ],
    value: Annotated[
        list[int],
        typer.Option(help="Class of the objects. Repeat the option for more.", min=0),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Folder for numbered images (OME-TIFF) and tables (CSV); for one image also its "
            "own .tif or, for volumes of any size, .zarr (OME-Zarr).",
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE", help="The image that was segmented: also measures its grey values."
        ),
    ] = None,
    plane_distance: Annotated[
        float | None,
        typer.Option(
            help="Distance of the planes in nanometres, for volumes (--three-d) whose files do not "
            "say it.",
            metavar="NM",
        ),
    ] = None,
    axes: Axes = None,
    overwrite: Overwrite = False,
    *,
    given: Given,
) -> None:
    """Find and measure single objects, such as mitochondria, in segmented images.

    The same command goes on where it was stopped.
    """
    from napari_affmae.cli.objects import run_objects

    run_objects(
        sources,
        value,
        out,
        given,
        image=image,
        axes=axes,
        plane_distance=plane_distance,
        overwrite=overwrite,
        console=_console(),
    )


@app.command()
@settings_options(SegmentConfig, without=("probabilities", "probability_type", "three_directions"))
def evaluate(
    images: Images,
    labels: Labels,
    model: Model,
    axes: Axes = None,
    label_axes: LabelAxes = None,
    channels: Channels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    *,
    given: Given,
) -> None:
    """Compare a network's segmentation with labels: IoU and Dice of every class."""
    from napari_affmae.cli.evaluate import run_evaluate
    from napari_affmae.cli.inputs import Reading

    run_evaluate(
        images,
        labels,
        model,
        given,
        reading=Reading(axes, channels, label_axes=label_axes),
        as_json=as_json,
        console=_console(),
    )


@app.command()
def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="The authors' checkpoint (.pth or .safetensors).")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model file to write.")],
    task: Annotated[
        Literal["pretrain", "segment"], typer.Option(help="What it was trained for.")
    ] = "pretrain",
    overwrite: Overwrite = False,
) -> None:
    """Make a model file from a checkpoint of the paper's own program."""
    from napari_affmae.cli.import_checkpoint import run_import

    run_import(checkpoint, out, task, overwrite=overwrite, console=_console())


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="A fine-tuned run or model file.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The package to write (.zip).")],
    format_: Annotated[
        Literal["bioimageio"],
        typer.Option("--format", help="bioimageio: for programs that run models of bioimage.io."),
    ] = "bioimageio",
    tile: Annotated[
        int | None,
        typer.Option(help="Side of the package's input, pixels; by default the training crop."),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Image whose middle goes into the package, to test it and as its cover. By "
            "default an image of the training, or a synthetic one if there is none any more.",
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(help="Who made the model. Repeat the option for more."),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", metavar="SPDX", help="Licence, such as CC-BY-4.0; none if left."),
    ] = None,
    graphs: Annotated[
        bool,
        typer.Option(
            "--graphs/--no-graphs",
            help="Whether it holds the network as TorchScript and ONNX too, so that programs run "
            "it without napari-affmae.",
        ),
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    """Write a segmentation model as a package for other programs."""
    from napari_affmae.cli.export import run_export

    del format_  # there is one so far
    run_export(
        model,
        out,
        tile=tile,
        example=example,
        authors=author or [],
        license_id=license_,
        graphs=graphs,
        overwrite=overwrite,
        console=_console(),
    )


@app.command()
def info(
    path: Annotated[
        Path | None,
        typer.Argument(help="A run, a model or its name, or images; without it, this machine."),
    ] = None,
    axes: Axes = None,
) -> None:
    """Describe this machine, a run folder, a model or images."""
    from napari_affmae.cli.info import run_info

    run_info(path, axes=axes)
