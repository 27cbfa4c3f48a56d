"""Chooses painted pixels, a few in each block of a plane, as samples for the light head."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_affmae.config import IGNORE_INDEX
from napari_affmae.data import LabelEncoder, NormalizedSource, labelled_squares
from napari_affmae.engine.quick.features import FeatureStore

BLOCK = 64  # pixels
# Samples of a class in a block; neighbours in a stroke have similar features.
_MOST_PIXELS = 256
# Samples of all blocks together, approximately; and the minimum of a class in a block.
_MOST_SAMPLES, _FEWEST_PIXELS = 30_000, 8
# If whole stacks are painted, this many blocks are representative.
_MOST_BLOCKS = _MOST_SAMPLES // _FEWEST_PIXELS


@dataclass(frozen=True)
class QuickView:
    """A rectangle of one plane, with its strokes.

    Attributes
    ----------
    source : NormalizedSource
        The image, from `QuickTraining.normalize`.
    plane : int
        Which of its planes.
    rows, columns : slice
        The rectangle; of step 1, clipped to the plane as numpy does.
    labels : ndarray or None
        (rows, columns) int64 label values of the rectangle, the ignored value
        where nothing is painted; None where there are no strokes.
    """

    source: NormalizedSource
    plane: int
    rows: slice
    columns: slice
    labels: NDArray[np.int64] | None = None

    def bounds(self) -> tuple[slice, slice]:
        """Rows and columns, clipped to the plane.

        Raises
        ------
        ValueError
            If the rectangle is empty, a step is not 1, or there is no such plane.
        """
        source = self.source
        rows = slice(*self.rows.indices(source.height))
        columns = slice(*self.columns.indices(source.width))
        if not 0 <= self.plane < source.n_planes:
            raise ValueError(
                f"{source.name} has planes 0 to {source.n_planes - 1}, the view is of {self.plane}"
            )
        for part, name in ((rows, "rows"), (columns, "columns")):
            if part.step != 1 or part.stop <= part.start:
                raise ValueError(
                    f"a view needs at least one of the {source.height} x {source.width} pixels of "
                    f"{source.name} and slices of step 1, got {name} {part}"
                )
        return rows, columns


@dataclass(frozen=True)
class Block:
    """Painted pixels of a square of a plane.

    Attributes
    ----------
    view : QuickView
        The view that holds the square.
    rows, columns : slice
        The square, in pixels of the plane; it may reach beyond it.
    painted : ndarray
        (n, 2) int64 rows and columns in the square.
    classes : ndarray
        (n,) int64 class indices of these pixels.
    """

    view: QuickView
    rows: slice
    columns: slice
    painted: NDArray[np.int64]
    classes: NDArray[np.int64]

    @property
    def key(self) -> bytes:
        """A hash that identifies the block and its painted pixels."""
        view = self.view
        digest = hashlib.blake2b(self.painted.tobytes() + self.classes.tobytes())
        revision = view.source.source.revision(view.plane)
        place = (hash(view.source), view.plane, revision, self.rows.start, self.columns.start)
        digest.update(repr(place).encode())
        return digest.digest()


@dataclass(frozen=True)
class Samples:
    """Features and classes of painted pixels: (n, D), (n, F) and (n,) int64."""

    cells: Tensor
    pixels: Tensor
    classes: Tensor


def painted_blocks(views: Sequence[QuickView], encoder: LabelEncoder, seed: int) -> list[Block]:
    """List the blocks that hold painted pixels, with a limited number of pixels of each class.

    If there are very many blocks, some of each class are chosen.

    Parameters
    ----------
    views : sequence of QuickView
        With or without labels.
    encoder : LabelEncoder
        Converts label values to class indices.
    seed : int
        Seed of the choice.

    Raises
    ------
    DataError
        If a label has no class.
    ValueError
        If labels have another shape than their view.
    """
    blocks = _some([block for view in views for block in _blocks_of(view, encoder)], seed)
    most = pixels_per_block(len(blocks))
    return [_thinned(block, most, seed) for block in blocks]


def pixels_per_block(blocks: int) -> int:
    """Return how many pixels of a class are sampled in each of a number of blocks, at most."""
    # A power of two, so that an additional block rarely changes the choice in the others.
    share = max(_FEWEST_PIXELS, _MOST_SAMPLES // max(1, blocks))
    return min(_MOST_PIXELS, 1 << (share.bit_length() - 1))


def _blocks_of(view: QuickView, encoder: LabelEncoder) -> Iterator[Block]:
    if view.labels is None:
        return
    rows, columns = view.bounds()
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    if view.labels.shape != shape:
        raise ValueError(
            f"labels of a view of {shape[0]} x {shape[1]} pixels must have its shape, "
            f"got {view.labels.shape}"
        )
    name = f"plane {view.plane} of the labels of {view.source.name}"
    indices = encoder.encode(view.labels, name)
    painted = indices != IGNORE_INDEX
    first = (rows.start // BLOCK, columns.start // BLOCK)
    squares = labelled_squares(painted, BLOCK, (rows.start, columns.start))
    for row, column in (np.argwhere(squares) + first).tolist():
        top, left = row * BLOCK, column * BLOCK
        within = (_within(top, rows), _within(left, columns))
        places = np.argwhere(painted[within])
        yield Block(
            view,
            slice(top, top + BLOCK),
            slice(left, left + BLOCK),
            places + np.array([max(0, rows.start - top), max(0, columns.start - left)]),
            indices[within][painted[within]],
        )


def _within(start: int, part: slice) -> slice:
    """Part of a view that lies in a block, on one axis, counted from the view's beginning."""
    return slice(max(0, start - part.start), start + BLOCK - part.start)


def _some(blocks: list[Block], seed: int) -> list[Block]:
    """Choose no more than `_MOST_BLOCKS`, an equal share for each class."""
    if len(blocks) <= _MOST_BLOCKS:
        return blocks
    # Ordered by position only, so that strokes painted later hardly change the choice.
    order = sorted(range(len(blocks)), key=lambda number: _lot(blocks[number], seed))
    holding: dict[int, list[int]] = {}
    for number in order:
        for index in np.unique(blocks[number].classes):
            holding.setdefault(int(index), []).append(number)
    share = _MOST_BLOCKS // len(holding)
    chosen = {number for numbers in holding.values() for number in numbers[:share]}
    for number in order:
        if len(chosen) >= _MOST_BLOCKS:
            break
        chosen.add(number)
    return [blocks[number] for number in sorted(chosen)]


def _lot(block: Block, seed: int) -> bytes:
    place = (seed, block.view.source.name, block.view.plane, block.rows.start, block.columns.start)
    return hashlib.blake2b(repr(place).encode(), digest_size=8).digest()


def _thinned(block: Block, most: int, seed: int) -> Block:
    if len(block.classes) <= most:
        return block
    rng = np.random.default_rng((seed, block.rows.start, block.columns.start))
    kept = []
    for index in np.unique(block.classes):
        places = np.flatnonzero(block.classes == index)
        kept.append(rng.choice(places, min(most, len(places)), replace=False))
    chosen = np.sort(np.concatenate(kept))
    return Block(
        block.view, block.rows, block.columns, block.painted[chosen], block.classes[chosen]
    )


class StrokeSamples:
    """A cache of the samples of painted blocks that have not changed.

    Parameters
    ----------
    store : FeatureStore
        Features of tiles.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._kept: dict[bytes, Samples] = {}

    def __contains__(self, block: Block) -> bool:
        return block.key in self._kept

    def keep(self, blocks: Sequence[Block]) -> None:
        """Drop the samples of all other blocks."""
        self._kept = {key: self._kept[key] for key in (block.key for block in blocks)}

    def region(self, block: Block) -> tuple[NormalizedSource, int, slice, slice]:
        """Return the part of a plane from which the block's features are interpolated."""
        view, patch = block.view, self._store.patch
        extent = self._store.extent(view.source)
        rows, columns = (
            slice(max(0, part.start - patch), min(size, part.stop + patch))
            for part, size in zip((block.rows, block.columns), extent, strict=True)
        )
        return view.source, view.plane, rows, columns

    def get(self, block: Block) -> Samples:
        """Sample the features at a block's painted pixels.

        Raises
        ------
        UnreadableFileError
            If the image's file is damaged.
        """
        key = block.key
        if key not in self._kept:
            self._kept[key] = self._sample(block)
        return self._kept[key]

    def _sample(self, block: Block) -> Samples:
        source, plane, rows, columns = self.region(block)
        features = self._store.assemble(source, plane, rows, columns)
        device = features.cells.device
        shift = np.array([block.rows.start - rows.start, block.columns.start - columns.start])
        places = torch.from_numpy(block.painted + shift).to(device)
        size = torch.tensor(features.pixels.shape[-2:], device=device)
        # The same interpolation as that of `QuickHead.classify`: pixel centres, clamped.
        at = ((2 * places + 1) / size - 1).flip(1)[None, None].to(features.cells.dtype)
        cells = F.grid_sample(features.cells, at, padding_mode="border", align_corners=False)
        return Samples(
            cells[0, :, 0].T.contiguous(),
            features.pixels[0, :, places[:, 0], places[:, 1]].T.contiguous(),
            torch.from_numpy(block.classes).to(device),
        )
