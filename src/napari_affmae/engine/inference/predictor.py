"""A segmentation network that predicts tiles and planes."""

from collections.abc import Generator
from threading import Lock

import torch

from napari_affmae.data import NormalizedSource
from napari_affmae.engine.compute.device import Shortage
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.inference.tiles import Band, Floats, Grid, Region, predict_region
from napari_affmae.model import AFFSegmenter, QuickSegmenter
from napari_affmae.model.tokens.patches import SMALLEST_IMAGE


class Predictor:
    """Class probabilities of tiles and planes; several threads may ask.

    Attributes
    ----------
    batch : int
        Tiles of one forward pass; halved where memory runs out.

    Parameters
    ----------
    module : AFFSegmenter or QuickSegmenter
        The network, on the device.
    runtime : Runtime
        Device and precision.
    tile : int
        Side of a tile, pixels.
    overlap : float
        Share of a tile that it shares with the next.
    batch : int
        Tiles of one forward pass.
    capture : bool
        Whether to record forward passes where that is possible.

    Raises
    ------
    ValueError
        If tiles are smaller than the network can take.
    """

    def __init__(
        self,
        module: AFFSegmenter | QuickSegmenter,
        runtime: Runtime,
        tile: int,
        overlap: float,
        batch: int,
        *,
        capture: bool = True,
    ) -> None:
        if tile < SMALLEST_IMAGE:
            raise ValueError(f"tile must be at least {SMALLEST_IMAGE} pixels, got {tile}")
        self.batch = batch
        self._module = module
        self._runtime = runtime
        self._tile = tile
        self._overlap = overlap
        # Recorded passes have one place for their input, and the mode belongs to the network.
        self._turn = Lock()
        self._passes = ForwardPasses(module, runtime, capture=capture)

    def grid_of(self, source: NormalizedSource) -> Grid:
        """Lay tiles over the planes of a source."""
        return Grid(source.height, source.width, self._tile, self._overlap)

    def plane(self, source: NormalizedSource, plane: int) -> Generator[Band, None, None]:
        """Predict a plane; see `region`."""
        whole = Region([plane], slice(0, source.height), slice(0, source.width))
        yield from self.region(source, whole)

    def region(self, source: NormalizedSource, region: Region) -> Generator[Band, None, None]:
        """Predict a part of some planes; see `tiles.predict_region`.

        Parameters
        ----------
        source : NormalizedSource
            The image.
        region : Region
            Which part of it.

        Yields
        ------
        Band
            Progress and finished rows.

        Raises
        ------
        OutOfMemoryError
            If not even one tile fits.
        UnreadableFileError
            If the file is damaged.
        """
        yield from predict_region(
            source.read,
            self.tiles,
            self.grid_of(source),
            region,
            self._module.num_classes,
            self.batch,
        )

    def tiles(self, tiles: Floats) -> Floats:
        """Predict tiles.

        Parameters
        ----------
        tiles : ndarray
            (count, channels, tile, tile) float32, normalised.

        Returns
        -------
        ndarray
            (count, classes, tile, tile) float32 probabilities.

        Raises
        ------
        OutOfMemoryError
            If not even one tile fits.
        """
        with self._turn:
            while True:
                with Shortage() as shortage, evaluating(self._module):
                    parts = torch.from_numpy(tiles).split(self.batch)
                    probabilities: Floats = torch.cat([self._passes(p) for p in parts]).numpy()
                    return probabilities
                self._make_room(shortage)

    def _make_room(self, shortage: Shortage) -> None:
        """Free memory and halve the batch; an error where it is a single tile."""
        self._passes.release()
        plan = self._runtime.plan
        plan.release_memory()
        if self.batch == 1:
            raise shortage.error(
                plan, f"a tile of {self._tile} pixels does not fit", "Use smaller tiles"
            )
        self.batch = -(-self.batch // 2)
