"""Preview pictures of a run."""

import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from napari_affmae.files import replace_bytes

#: The folder of a run that holds them.
PREVIEWS = "previews"
_GAP = 4
_NAME = re.compile(r"step_\d{8,}\.png")


def save_preview(folder: Path, step: int, images: Mapping[str, NDArray[np.float32]]) -> Path:
    """Save the arrays as npz, in float16, and side by side as PNG.

    Training waits meanwhile: compressing them would take it several times as long, and makes
    pictures in float32 hardly smaller than these.

    Parameters
    ----------
    folder : Path
        The run's ``previews`` folder.
    step : int
        Number of optimiser steps made.
    images : Mapping[str, ndarray]
        Arrays (count, height, width); a row of the PNG is one crop, a column
        one name.

    Returns
    -------
    Path
        The PNG; the npz lies beside it.

    Raises
    ------
    DiskFullError
        If the disk has no room.
    """
    path = folder / f"step_{step:08d}.png"
    arrays = BytesIO()
    kept = {name: image.astype(np.float16) for name, image in images.items()}
    np.savez(arrays, **kept)  # type: ignore[arg-type]
    replace_bytes(path.with_suffix(".npz"), arrays.getvalue())
    replace_bytes(path, iio.imwrite("<bytes>", _montage(images), extension=".png"))
    return path


def latest_preview(folder: Path) -> Path | None:
    """Find the newest pictures of a run.

    Parameters
    ----------
    folder : Path
        The run's ``previews`` folder; it may be missing.

    Returns
    -------
    Path or None
        The PNG, whose first row of pictures shows one crop; None if there is none.
    """
    if not folder.is_dir():
        return None
    names = (path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
    newest = max(names, key=lambda name: int(name[5:-4]), default=None)
    return None if newest is None else folder / newest


def _montage(images: Mapping[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
    columns = []
    for stack in images.values():
        low, high = np.percentile(stack, (0.5, 99.5))
        grey = np.clip((stack - low) / max(high - low, 1e-6), 0, 1) * 255
        framed = np.pad(grey.astype(np.uint8), [(0, 0), (0, _GAP), (0, _GAP)], constant_values=255)
        columns.append(framed.reshape(-1, framed.shape[-1]))
    return np.concatenate(columns, axis=1)
