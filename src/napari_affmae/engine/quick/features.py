"""A cache of the features of image tiles."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

import torch
from cachetools import LRUCache
from torch import Tensor

from napari_affmae.data import NormalizedSource
from napari_affmae.engine.compute.device import memory_errors
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.timing import Pace
from napari_affmae.engine.events import TileDone
from napari_affmae.engine.inference.tiles import Grid, Place, read_tile, tile_window
from napari_affmae.engine.quick.kept_cells import KeptCells
from napari_affmae.model import QuickFeatures, QuickSegmenter

OVERLAP = 0.25
CAPACITY = 2**30
_GPU_SHARE = 0.25


class TileKey(NamedTuple):
    """A tile of a plane of the given revision of the image."""

    source: NormalizedSource
    plane: int
    revision: int
    row: int
    column: int


class TileCount:
    """Counts the computed tiles of a task, whose total may grow.

    Parameters
    ----------
    total : int
        Number of tiles to compute, as known at the start.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._pace = total, 0, Pace()

    def computed(self, seconds: float) -> None:
        """Count a tile."""
        self._done += 1
        self._pace.add(seconds)

    def event(self, plane: int) -> TileDone:
        """Make an event with the progress."""
        total = max(self._total, self._done)
        seconds = self._pace.seconds_per_step
        left = None if seconds is None else seconds * (total - self._done)
        return TileDone(self._done, total, plane, left)


class FeatureStore:
    """A cache of features by tile, which drops the least recently used ones.

    Tiles have the size that the network was trained on and that `segment`
    takes, and lie on a grid fixed to the plane, so that a view which moves
    finds most of them again. Where they overlap, their features are averaged.

    Parameters
    ----------
    module : QuickSegmenter
        The network, on the device.
    runtime : Runtime
        Device and precision.
    crop : int
        Side of a training crop, pixels. Tiles have this side, rounded up so that a
        quarter of it is a whole number of patches.
    capacity : int
        Size of the cache, bytes.
    on_disk : KeptCells, optional
        What is kept on disk beyond the life of this cache.

    Attributes
    ----------
    tile : int
        Side of a tile, pixels.
    """

    def __init__(
        self,
        module: QuickSegmenter,
        runtime: Runtime,
        crop: int,
        capacity: int = CAPACITY,
        on_disk: KeptCells | None = None,
    ) -> None:
        self._module = module
        self._runtime = runtime
        self._on_disk = on_disk
        self.patch = module.config.patch_size
        unit = round(self.patch / OVERLAP)
        self.tile = -(-crop // unit) * unit
        memory = runtime.plan.memory
        size = capacity if memory is None else min(capacity, int(_GPU_SHARE * memory))
        # Features of a tile that exceed the capacity are kept alone.
        self._kept: LRUCache[TileKey, QuickFeatures] = LRUCache(
            size, lambda features: min(_bytes(features), size)
        )
        window = torch.from_numpy(tile_window(self.tile))
        cell_window = torch.from_numpy(tile_window(self.tile // self.patch))
        (self._window, self._cell_window) = runtime.to_device((window, cell_window))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Make the device current for a block that does not yield; memory errors get advice."""
        plan = self._runtime.plan
        advice = "Show a smaller part of the image"
        with memory_errors(plan, "quick training", advice), plan.active():
            yield

    def extent(self, source: NormalizedSource) -> tuple[int, int]:
        """Rows and columns, pixels, of the plane including the mirrored border for its tiles."""
        height, width = (
            max(self.tile, -(-size // self.patch) * self.patch) for size in _size(source)
        )
        return height, width

    def missing(
        self, source: NormalizedSource, plane: int, rows: slice, columns: slice
    ) -> list[TileKey]:
        """List the tiles of a rectangle that are not in the cache.

        Parameters
        ----------
        source : NormalizedSource
            The image.
        plane : int
            Which of its planes.
        rows, columns : slice
            Within `extent`.
        """
        tiles = self._tiles(source, plane, rows, columns)
        return [key for key in tiles if key not in self._kept]

    def fill(
        self, source: NormalizedSource, plane: int, rows: slice, columns: slice, progress: TileCount
    ) -> Generator[TileDone, None, None]:
        """Compute the tiles of a rectangle that are not in the cache.

        Parameters
        ----------
        source, plane, rows, columns
            See `missing`.
        progress : TileCount
            Counts the computed tiles.

        Yields
        ------
        TileDone
            After each.
        """
        for key in self.missing(source, plane, rows, columns):
            start = perf_counter()
            self.compute(key)
            progress.computed(perf_counter() - start)
            yield progress.event(plane)

    def compute(self, key: TileKey) -> QuickFeatures:
        """Compute the features of a tile, or read what is on disk of them, and keep them.

        Raises
        ------
        UnreadableFileError
            If the image's file is damaged.
        """
        pixels = read_tile(key.source.read, Place(key.plane, key.row, key.column), self.tile)
        known = None if self._on_disk is None else self._on_disk.get(pixels)
        tensors = (torch.from_numpy(pixels)[None], *([] if known is None else [known]))
        with self.working():
            on_device = self._runtime.to_device(tensors)
            with self._runtime.computing():
                features = self._module.features(*on_device)
            if self._on_disk is not None and known is None:
                self._on_disk.put(pixels, features.cells)
        self._kept[key] = features
        return features

    def assemble(
        self, source: NormalizedSource, plane: int, rows: slice, columns: slice
    ) -> QuickFeatures:
        """Average the features of the tiles over a rectangle; computes those that are missing.

        Parameters
        ----------
        source : NormalizedSource
            The image.
        plane : int
            Which of its planes.
        rows, columns : slice
            Within `extent`, multiples of the patch size.
        """
        device = self._window.device
        module, step = self._module, self.patch
        size = (rows.stop - rows.start, columns.stop - columns.start)
        cells = torch.zeros(1, module.cell_channels, *(n // step for n in size), device=device)
        pixels = torch.zeros(1, module.pixel_channels, *size, device=device)
        cell_weights, weights = cells.new_zeros(cells.shape[2:]), pixels.new_zeros(size)
        for key in self._tiles(source, plane, rows, columns):
            features = self._get(key)
            corner = (key.row, key.column)
            _add(
                cells, cell_weights, features.cells, self._cell_window, rows, columns, corner, step
            )
            _add(pixels, weights, features.pixels, self._window, rows, columns, corner, 1)
        return QuickFeatures(cells.div_(cell_weights), pixels.div_(weights))

    def samples(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw features of random cells and random pixels of the tiles in the cache.

        Parameters
        ----------
        count : int
            Number of cells and of pixels; a few less may be drawn.
        random : torch.Generator
            On the CPU.

        Returns
        -------
        cells, pixels : Tensor
            (n, D) and (m, F).
        """
        share = -(-count // len(self._kept))
        drawn: list[list[Tensor]] = [[], []]
        for features in self._kept.values():
            for parts, maps in zip(drawn, (features.cells, features.pixels), strict=True):
                flat = maps.flatten(2)[0]
                chosen = torch.randint(flat.shape[1], (share,), generator=random)
                parts.append(flat[:, chosen.to(flat.device)].T)
        return torch.cat(drawn[0]), torch.cat(drawn[1])

    def _get(self, key: TileKey) -> QuickFeatures:
        return self._kept[key] if key in self._kept else self.compute(key)

    def _tiles(
        self, source: NormalizedSource, plane: int, rows: slice, columns: slice
    ) -> Iterator[TileKey]:
        grid = Grid(*self.extent(source), self.tile, OVERLAP)
        revision = source.source.revision(plane)
        for row in grid.rows:
            for column in grid.columns:
                if _overlap(row, rows, self.tile) and _overlap(column, columns, self.tile):
                    yield TileKey(source, plane, revision, row, column)


def _add(
    total: Tensor,
    weights: Tensor,
    part: Tensor,
    window: Tensor,
    rows: slice,
    columns: slice,
    corner: tuple[int, int],
    step: int,
) -> None:
    """Add a tile's features, weighted, to those of a rectangle; `step` is pixels an element."""
    within, of_tile = [], []
    for wanted, start in zip((rows, columns), corner, strict=True):
        first = max(wanted.start, start) // step
        last = min(wanted.stop, start + len(window) * step) // step
        within.append(slice(first - wanted.start // step, last - wanted.start // step))
        of_tile.append(slice(first - start // step, last - start // step))
    weight = window[of_tile[0], None] * window[of_tile[1]]
    total[:, :, within[0], within[1]] += part[:, :, of_tile[0], of_tile[1]] * weight
    weights[within[0], within[1]] += weight


def _overlap(start: int, part: slice, tile: int) -> bool:
    return bool(start < part.stop and part.start < start + tile)


def _size(source: NormalizedSource) -> tuple[int, int]:
    return source.height, source.width


def _bytes(features: QuickFeatures) -> int:
    return features.cells.nbytes + features.pixels.nbytes
