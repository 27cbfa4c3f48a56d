"""Sample images: synthetic ones, and real ones to download.

The real ones are a part of FIB-25, isotropic FIB-SEM of the medulla of
*Drosophila* at 10 nm, with neurons traced by people. They are training_sample2
of https://github.com/janelia-flyem/neuroproof_examples, converted to HDF5 by
the authors of https://github.com/google/ffn, who keep them for download.
Licence: Creative Commons Attribution 3.0, FlyEM, HHMI Janelia. To be cited:
Takemura et al., PNAS 112:13711 (2015), https://doi.org/10.1073/pnas.1509820112.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pooch
from numpy.typing import NDArray
from requests.exceptions import RequestException
from scipy.ndimage import binary_dilation
from skimage.measure import label
from skimage.segmentation import expand_labels, find_boundaries

from napari_affmae.config import LabelClass
from napari_affmae.data.labels import default_classes
from napari_affmae.data.synthetic import SYNTHETIC_CLASSES, synthetic_em
from napari_affmae.errors import AffmaeError, DataError

Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[LabelClass, ...]]
Progress = Callable[[int, int], None]

# Large enough to learn from, and made within two seconds.
_SHAPE = (32, 256, 256)
_URL = "https://storage.googleapis.com/ffn-flyem-fib25/training_sample2"
_IMAGE = ("grayscale_maps.h5", "ea031c98ee2de778a9a3a1e6d410df5de73e4ac28022df8e7255d84e3394cafa")
_NEURONS = ("groundtruth.h5", "fd508e7aee1fe51ac9ae0460db4a841d275236f013c1f2552314b4f21b1010ea")
# In pixels of a plane; smaller pieces of a neuron are gaps in the tracing.
_SMALLEST_PIECE = 30

# Pooch's logger has its own handler, which writes to standard error.
pooch.get_logger().setLevel(logging.WARNING)


def synthetic_sample() -> Sample:
    """Make a small volume of synthetic EM with labels, which is always the same.

    Returns
    -------
    volume : ndarray, (32, 256, 256), uint8
        Isotropic voxels.
    labels : ndarray, (32, 256, 256), uint8
        Class values.
    classes : tuple of LabelClass
        Their names and colours.
    """
    volume, labels = synthetic_em(_SHAPE)
    return volume, labels, _named(SYNTHETIC_CLASSES)


def real_sample(progress: Progress | None = None) -> Sample:
    """Read the real sample (see this module), downloading it the first time.

    The labels are made from the traced neurons: membrane is a band of about
    4 pixels (40 nm) where one neuron meets another.

    Parameters
    ----------
    progress : callable, optional
        See `fetch_real_sample`.

    Returns
    -------
    volume : ndarray, (planes, rows, columns), uint8
        Isotropic voxels of 10 nm.
    labels : ndarray, as `volume`, uint8
        Class values.
    classes : tuple of LabelClass
        Their names and colours.

    Raises
    ------
    AffmaeError
        As `fetch_real_sample`.
    """
    image, neurons = fetch_real_sample(progress)
    with h5py.File(image) as file:
        volume = np.asarray(file["raw"], np.uint8)
    with h5py.File(neurons) as file:
        pieces, joined = np.asarray(file["stack"]), np.asarray(file["transforms"])
    if pieces.shape != volume.shape:
        raise DataError(f"{image} has shape {volume.shape} and {neurons} {pieces.shape}")
    neuron = np.zeros(int(max(pieces.max(), joined[:, 0].max())) + 1, np.int64)
    neuron[joined[:, 0]] = joined[:, 1]
    labels = np.stack([_membranes(neuron[plane]) for plane in pieces])
    return volume, labels, _named(("cell", "membrane"))


def fetch_real_sample(progress: Progress | None = None) -> tuple[Path, Path]:
    """Download the real sample (see this module) to the user's cache, once.

    Parameters
    ----------
    progress : callable, optional
        Called with the bytes received and the size of the file.

    Returns
    -------
    image, neurons : Path
        HDF5 files: the image under ``raw``; pieces of neurons under ``stack``,
        and under ``transforms`` which piece belongs to which neuron.

    Raises
    ------
    AffmaeError
        If there is no connection, a file has the wrong checksum, or it cannot be
        written to the cache.
    """
    return _fetch(*_IMAGE, progress), _fetch(*_NEURONS, progress)


def _fetch(name: str, sha256: str, progress: Progress | None) -> Path:
    cache = pooch.os_cache("napari-affmae")
    try:
        path = pooch.retrieve(
            f"{_URL}/{name}",
            known_hash=f"sha256:{sha256}",
            fname=f"fib25-{name}",
            path=cache,
            progressbar=False if progress is None else _Bar(progress),
        )
    except RequestException as error:
        raise AffmaeError(
            f"cannot download the sample {_URL}/{name}: {error}. Connect to the internet (behind "
            "a proxy, set HTTPS_PROXY) and try again, or take the synthetic sample, which needs "
            "no connection"
        ) from error
    except OSError as error:
        raise AffmaeError(f"cannot write the sample to {cache}: {error}") from error
    except ValueError as error:  # pooch raises it for a wrong checksum
        raise AffmaeError(
            f"what was downloaded from {_URL}/{name} is not the sample: {error}. Try again later, "
            "or take the synthetic sample"
        ) from error
    return Path(path)


@dataclass
class _Bar:
    """Reports pooch's progress; it has the methods of a progress bar."""

    report: Progress
    total: int = 0
    done: int = 0

    def update(self, count: int) -> None:
        self.done += count
        self.report(self.done, self.total)

    def reset(self) -> None:
        # At the end, pooch resets the bar and then adds the whole size.
        self.done = 0

    def close(self) -> None:
        pass


def _membranes(neurons: NDArray[Any]) -> NDArray[np.uint8]:
    """1 near where two neurons of a plane meet, else 0."""
    pieces = label(neurons, connectivity=1)
    small = np.bincount(pieces.ravel()) < _SMALLEST_PIECE
    cells = expand_labels(np.where(small[pieces], 0, neurons), max(neurons.shape))
    membranes: NDArray[np.bool_] = binary_dilation(find_boundaries(cells, mode="thick"))
    return membranes.astype(np.uint8)


def _named(names: tuple[str, ...]) -> tuple[LabelClass, ...]:
    return tuple(
        known.model_copy(update={"name": name})
        for known, name in zip(default_classes(range(len(names))), names, strict=True)
    )
