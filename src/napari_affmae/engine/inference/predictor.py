"""A segmentation network that predicts tiles and planes."""

from collections.abc import Generator

import torch

from napari_affmae.data import NormalizedSource
from napari_affmae.engine.compute.device import Shortage
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.inference.tiles import Band, Floats, Grid, predict_plane
from napari_affmae.model import AFFSegmenter, QuickSegmenter
from napari_affmae.model.patches import SMALLEST_IMAGE


class Predictor:
    """Class probabilities of tiles and planes.

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
        self._passes = ForwardPasses(module, runtime, capture=capture)

    def tiles_of(self, source: NormalizedSource) -> int:
        """Count the tiles of a plane of the source."""
        grid = self._grid(source)
        return len(grid.rows) * len(grid.columns)

    def plane(self, source: NormalizedSource, plane: int) -> Generator[Band, None, None]:
        """Predict a plane; see `tiles.predict_plane`.

        Parameters
        ----------
        source : NormalizedSource
            The image.
        plane : int
            Which of its planes.

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
        yield from predict_plane(
            lambda rows, columns: source.read(plane, rows, columns),
            self.tiles,
            self._grid(source),
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
        parts = torch.from_numpy(tiles).split(self.batch)
        plan = self._runtime.plan
        with Shortage() as shortage, evaluating(self._module):
            probabilities: Floats = torch.cat([self._passes(part) for part in parts]).numpy()
            return probabilities
        self._passes.release()
        plan.release_memory()
        if self.batch == 1:
            raise shortage.error(
                plan, f"a tile of {self._tile} pixels does not fit", "Use smaller tiles"
            )
        self.batch = -(-self.batch // 2)
        return self.tiles(tiles)

    def _grid(self, source: NormalizedSource) -> Grid:
        return Grid(source.height, source.width, self._tile, self._overlap)
