"""Sample data for napari's menu."""

from collections.abc import Callable
from typing import Any

from napari.layers import Labels

from napari_affmae.widgets.layers.label_layers import show_classes
from napari_affmae.widgets.parts.progress_dialog import wait_with_dialog

LayerData = tuple[Any, dict[str, Any], str]

_SYNTHETIC_NM = 8.0
_REAL_NM = 10.0


def synthetic_em_layers() -> list[LayerData]:
    """Return a made-up volume and its labels as layers.

    Raises
    ------
    AffmaeError
        If it was cancelled.
    """
    sample = wait_with_dialog("Making the synthetic sample ...", _get_synthetic)
    return _layers("synthetic EM", *sample, _SYNTHETIC_NM)


def real_em_layers() -> list[LayerData]:
    """Return a real volume and its labels as layers; it is downloaded the first time.

    napari needs the layers when this returns; the window stays responsive until then.

    Raises
    ------
    AffmaeError
        If there is no connection, or it was cancelled.
    """
    sample = wait_with_dialog("Getting the real sample, 29 MB the first time ...", _get_real)
    return _layers("FIB-25", *sample, _REAL_NM)


def _get_synthetic(report: Callable[[int, int], None]) -> tuple[Any, Any, Any]:
    from napari_affmae.data import synthetic_sample

    sample = synthetic_sample()
    report(1, 1)
    return sample


def _get_real(report: Callable[[int, int], None]) -> tuple[Any, Any, Any]:
    from napari_affmae.data import real_sample

    return real_sample(report)


def _layers(
    name: str, volume: Any, labels: Any, classes: Any, nanometres: float
) -> list[LayerData]:
    geometry = {
        "scale": (nanometres,) * 3,
        "units": ("nm",) * 3,
        "axis_labels": ("z", "y", "x"),
    }
    painted = Labels(labels, name=f"{name} labels", **geometry)
    show_classes(painted, classes)
    return [(volume, {"name": name, **geometry}, "image"), painted.as_layer_data_tuple()]
