"""A segmentation network that predicts tiles and planes."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Literal

import torch
from torch import Tensor

from napari_affmae.data import NormalizedSource
from napari_affmae.engine.compute.device import Shortage, memory_errors
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.inference.blending import Arriving, Band, Blend, Rows, Wanted
from napari_affmae.engine.inference.forward_passes import ForwardPasses
from napari_affmae.engine.inference.reading import Tile, TileReader
from napari_affmae.engine.inference.tile_batch import most_tiles, tiles_that_fit
from napari_affmae.engine.inference.tiles import Grid, Place, Region
from napari_affmae.model import AFFSegmenter, QuickSegmenter
from napari_affmae.model.tokens.patches import SMALLEST_IMAGE

_ADVICE = "Use smaller tiles"
# Batches that a GPU works on while the host deals with the one before.
_IN_FLIGHT = 1


class Predictor:
    """Class probabilities of tiles and planes; several threads may ask.

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
    batch : int or "auto"
        Tiles of one forward pass; ``"auto"``: as many as are useful and fit, one on a CPU.
        Halved where memory runs out.
    capture : bool
        Whether to record forward passes where that is possible.

    Raises
    ------
    ValueError
        If tiles are smaller than the network can take, or there are none in a batch.
    """

    def __init__(
        self,
        module: AFFSegmenter | QuickSegmenter,
        runtime: Runtime,
        tile: int,
        overlap: float,
        batch: int | Literal["auto"],
        *,
        capture: bool = True,
    ) -> None:
        if tile < SMALLEST_IMAGE:
            raise ValueError(f"tile must be at least {SMALLEST_IMAGE} pixels, got {tile}")
        if batch != "auto" and batch < 1:
            raise ValueError(f"batch must be at least 1 tile, got {batch}")
        self._batch = None if batch == "auto" else batch
        self._module = module
        self._runtime = runtime
        self._tile = tile
        self._overlap = overlap
        # Recorded passes have one place for their input, and the mode belongs to the network.
        self._turn = Lock()
        self._passes = ForwardPasses(module, runtime, capture=capture)

    @property
    def batch(self) -> int:
        """Tiles of one forward pass; before the first one, the most that there may be."""
        return self._batch or most_tiles(self._tile, self._runtime.plan)

    def grid_of(self, source: NormalizedSource) -> Grid:
        """Lay tiles over the planes of a source."""
        return Grid(source.height, source.width, self._tile, self._overlap)

    def reader(self, source: NormalizedSource, region: Region) -> TileReader:
        """Make the reader of a region's tiles, and read the first of them.

        Raises
        ------
        UnreadableFileError
            If the file is damaged.
        """
        reader = TileReader(source, self.grid_of(source), region)
        reader.begin(self.batch)
        return reader

    def planes(
        self, source: NormalizedSource, planes: Sequence[int], wanted: Wanted
    ) -> Generator[Band, None, None]:
        """Predict whole planes; see `region`."""
        whole = Region(planes, slice(0, source.height), slice(0, source.width))
        with self.reader(source, whole) as reader:
            yield from self.region(reader, wanted)

    def region(
        self,
        reader: TileReader,
        wanted: Wanted,
        launched: Callable[[], None] = lambda: None,
    ) -> Generator[Band, None, None]:
        """Predict a part of some planes tile by tile.

        Parameters
        ----------
        reader : TileReader
            From `reader`.
        wanted : Wanted
            What is made of the probabilities.
        launched : callable
            Called when the device has all tiles, on some of which it may still be at work.

        Yields
        ------
        Band
            One after each tile; on each plane, the bands that carry rows follow each
            other without gap or overlap from the region's first row to its last.

        Raises
        ------
        OutOfMemoryError
            If not even one tile fits.
        UnreadableFileError
            If the file is damaged.
        """
        plan = self._runtime.plan
        with memory_errors(plan, "a row of tiles", _ADVICE), plan.active():
            blend = Blend(reader.grid, reader.region, self._module.num_classes, wanted, plan.device)
        total, done = reader.grid.count(reader.region), 0
        left = total
        ahead: deque[Arriving] = deque()
        most = _IN_FLIGHT if plan.device.type == "cuda" else 0
        while ahead or done < total:
            tiles = reader.take(self.batch)
            if tiles:
                ahead.append(self._launch(reader, tiles, blend, wanted))
                left -= len(tiles)
                if not left:
                    launched()
            if len(ahead) > most or not tiles:
                arrived = ahead.popleft()
                yield from arrived.bands(done, total)
                done += len(arrived)

    def tiles(self, images: Tensor) -> Iterator[Tensor]:
        """Predict tiles, as many at once as fit.

        Parameters
        ----------
        images : Tensor
            (count, channels, tile, tile) float32, normalised.

        Yields
        ------
        Tensor
            (n, classes, tile, tile) float32 probabilities of the next n tiles, on the
            device, which hold until the next are asked for.

        Raises
        ------
        OutOfMemoryError
            If not even one tile fits.
        """
        while len(images):
            with Shortage() as shortage, evaluating(self._module):
                if self._batch is None:
                    one = partial(self._passes, images[:1])
                    self._batch = tiles_that_fit(self._tile, self._runtime.plan, one)
                probabilities = self._passes(images[: self._batch])
            if shortage.reason is not None:
                self._make_room(shortage)
                continue
            images = images[len(probabilities) :]
            yield probabilities

    def _launch(
        self, reader: TileReader, tiles: list[Tile], blend: Blend, wanted: Wanted
    ) -> Arriving:
        """Give a batch to the device, which may still be at work on it afterwards."""
        plan = self._runtime.plan
        finished: list[tuple[Place, Rows | None]] = []
        places = [place for place, _ in tiles]
        with (
            self._turn,
            memory_errors(plan, "a row of tiles", _ADVICE),
            plan.active(),
            torch.inference_mode(),
        ):
            for probabilities in self.tiles(reader.images(tiles, plan.device)):
                part = places[len(finished) : len(finished) + len(probabilities)]
                finished += zip(part, blend.add(blend.weigh(probabilities), part), strict=True)
            return Arriving(wanted, finished, plan.device)

    def _make_room(self, shortage: Shortage) -> None:
        """Free memory and halve the batch; an error where it is a single tile."""
        self._passes.release()
        plan = self._runtime.plan
        plan.release_memory()
        if self.batch == 1:
            raise shortage.error(plan, f"a tile of {self._tile} pixels does not fit", _ADVICE)
        self._batch = -(-self.batch // 2)
