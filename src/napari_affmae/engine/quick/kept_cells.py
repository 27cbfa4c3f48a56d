"""What a frozen network says of the cells of tiles, kept on disk for the next time."""

import hashlib
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.engine.compute.device import DevicePlan
from napari_affmae.engine.store.kept_features import KeptFeatures
from napari_affmae.model import QuickSegmenter

_HASH_BYTES = 32


class KeptCells:
    """Features of cells by the pixels that they were computed from.

    These are nearly all that takes time. The plain filters of pixels, which take three times
    the room, are computed again.

    Parameters
    ----------
    kept : KeptFeatures
        The files.
    module : QuickSegmenter
        The network: its encoder and decoder give the features.
    plan : DevicePlan
        Device and precision, on which the last digits depend.
    """

    def __init__(self, kept: KeptFeatures, module: QuickSegmenter, plan: DevicePlan) -> None:
        self._kept, self._channels = kept, module.cell_channels
        self._patch = module.config.patch_size
        digest = _new_digest()
        words = (version("napari-affmae"), module.config, plan.device.type, plan.precision)
        digest.update(repr(words).encode())
        for part in (module.encoder, module.decoder):
            for name, weights in part.state_dict().items():
                digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
                digest.update(weights.cpu().contiguous().flatten().view(torch.uint8).numpy())
        self._network = digest.digest()

    def get(self, pixels: NDArray[Any]) -> Tensor | None:
        """Read the features of a tile, (1, D, rows, columns) on the CPU; None if there are none.

        Parameters
        ----------
        pixels : ndarray
            (channels, rows, columns) float32, normalised: what the network sees.
        """
        cells = (-(-size // self._patch) for size in pixels.shape[1:])
        values = self._kept.get(self._key(pixels), (1, self._channels, *cells))
        return None if values is None else torch.from_numpy(values)

    def put(self, pixels: NDArray[Any], cells: Tensor) -> None:
        """Have the features of a tile written in the background."""
        self._kept.put(self._key(pixels), cells.cpu().numpy())

    def _key(self, pixels: NDArray[Any]) -> bytes:
        digest = _new_digest()
        digest.update(self._network)
        digest.update(f"{pixels.dtype.str} {pixels.shape}".encode())
        digest.update(pixels.tobytes())
        return digest.digest()


def _new_digest() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=_HASH_BYTES)
