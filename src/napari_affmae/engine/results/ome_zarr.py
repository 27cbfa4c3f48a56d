"""What OME-Zarr 0.5 says of an image: axes, scales, levels, names and colours."""

from typing import Any

import numpy as np
from pydantic import Field
from yaozarrs import v05

from napari_affmae.config import LabelClass
from napari_affmae.data.sources.class_metadata import rgb
from napari_affmae.engine.results.plan import BlockPlan

_UNIT = "nanometer"


class _Colour(v05.LabelColor):
    label_value: int = Field(alias="label-value")  # yaozarrs writes 1.0 for 1


class _Property(v05.LabelProperty):
    name: str  # yaozarrs writes only what its classes know


def label_metadata(plan: BlockPlan, name: str) -> dict[str, Any]:
    """Describe the labels.

    Parameters
    ----------
    plan : BlockPlan
        The arrays.
    name : str
        What the image is called.

    Returns
    -------
    dict
        The value of ``"ome"`` among the attributes of the group.
    """
    colours: list[v05.LabelColor] = []
    names: list[v05.LabelProperty] = []
    for item in plan.classes:
        value = {"label-value": item.value}
        colours.append(_Colour.model_validate({**value, "rgba": _rgba(item)}))
        names.append(_Property.model_validate({**value, "name": item.name}))
    multiscale = _multiscale(plan, name, "most frequent value", channels=False)
    about = v05.ImageLabel(colors=colours or None, properties=names or None)
    return _json(v05.LabelImage.model_validate({"multiscales": [multiscale], "image-label": about}))


def probability_metadata(plan: BlockPlan, name: str) -> dict[str, Any]:
    """Describe the probabilities, a channel a class; as `label_metadata`."""
    most = 1.0 if plan.probabilities is None or plan.probabilities != "uint8" else 255.0
    window = v05.OmeroWindow(start=0, min=0, end=most, max=most)
    channels = [
        v05.OmeroChannel(window=window, label=item.name, color=item.color[1:], active=True)
        for item in plan.classes
    ]
    image = v05.Image(
        multiscales=[_multiscale(plan, name, "mean", channels=True)],
        omero=v05.Omero(channels=channels),
    )
    return _json(image)


def _json(image: v05.Image) -> dict[str, Any]:
    found: dict[str, Any] = image.model_dump(mode="json", exclude_none=True, serialize_as_any=True)
    return found


def _multiscale(plan: BlockPlan, name: str, method: str, *, channels: bool) -> v05.Multiscale:
    axes: list[v05.Axis] = [
        v05.TimeAxis(name="t")
        if axis == "t"
        else v05.SpaceAxis(name=axis, unit=None if apart is None else _UNIT)
        for axis, apart in zip(plan.axes, plan.spacing, strict=True)
    ]
    scales = [
        [step * (apart or 1.0) for step, apart in zip(steps, plan.spacing, strict=True)]
        for steps in plan.steps
    ]
    # A pixel of a level stands for several, whose middle is not that of the first.
    moves = [
        [(step - 1) / 2 * (apart or 1.0) for step, apart in zip(steps, plan.spacing, strict=True)]
        for steps in plan.steps
    ]
    if channels:
        axes.insert(plan.channel_axis, v05.ChannelAxis(name="c"))
        for numbers, neutral in ((scales, 1.0), (moves, 0.0)):
            for row in numbers:
                row.insert(plan.channel_axis, neutral)
    datasets = [
        v05.Dataset(path=str(level), coordinateTransformations=_placed(scale, move))
        for level, (scale, move) in enumerate(zip(scales, moves, strict=True))
    ]
    return v05.Multiscale(name=name, axes=axes, datasets=datasets, type=method)


def _placed(scale: list[float], move: list[float]) -> list[Any]:
    placed: list[Any] = [v05.ScaleTransformation(scale=scale)]
    if np.any(move):
        placed.append(v05.TranslationTransformation(translation=move))
    return placed


def _rgba(item: LabelClass) -> list[int]:
    """Colour of a class; that of 0, which viewers take for background, cannot be seen."""
    return [*rgb(item.color), 255 if item.value else 0]
