"""The pool: decoded blocks in the memory of the device that trains."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.data.pool.blocks import Block, BlockGrid
from napari_affmae.data.pool.loading import Loaded, stored_type
from napari_affmae.data.pool.residents import Residents
from napari_affmae.data.pool.schedule import Arrival, Schedule, place_bytes
from napari_affmae.errors import DataError, UnreadableFileError

_TICK_SECONDS = 0.25
_MOST_READERS = 8
# The pool takes at least so many of the largest blocks: crops of one batch differ then.
_LEAST_BLOCKS = 4

SourceError = UnreadableFileError | DataError


@dataclass(frozen=True)
class PoolState:
    """What a pool holds and what it has cost so far.

    Attributes
    ----------
    held, capacity : int
        Bytes of the blocks that are there, and of the pool.
    total : int
        Bytes of all blocks that are drawn from.
    read : int
        Bytes decoded so far.
    waited : float
        Seconds that training has waited for blocks.
    """

    held: int
    capacity: int
    total: int
    read: int
    waited: float


class Pool:
    """Blocks of image, each decoded once and used for many crops.

    Threads read ahead. Blocks come and go by a `Schedule`, which counts crops and
    not seconds: where a block is late, training waits for it.

    Parameters
    ----------
    grid : BlockGrid
        All blocks.
    load : Callable
        Decodes one; called in several threads.
    blocks : sequence of int
        The blocks to draw from.
    device : torch.device
        Where they lie.
    capacity : int
        Bytes that they may take; if all blocks are smaller, the pool is, too.
    seed : int
        Of their order.
    later : sequence of int
        Blocks that `bring` may add: there is room for them too.
    labelled : bool
        Whether blocks have labels.
    leave_out : bool
        Whether a source that breaks is left out; else its error is raised.

    Attributes
    ----------
    dtype : numpy.dtype
        Type of the pixels.
    residents : Residents
        The blocks that are there.
    arrived : list of int
        Numbers of the blocks that the last `advance` took in.
    left_out : dict of int to Exception
        By the numbers of sources that broke, what happened first.

    Raises
    ------
    DataError
        If there is no block to draw from.
    """

    def __init__(
        self,
        grid: BlockGrid,
        load: Callable[[Block], Loaded],
        blocks: Sequence[int],
        device: torch.device,
        capacity: int,
        seed: int,
        *,
        later: Sequence[int] = (),
        labelled: bool = False,
        leave_out: bool = False,
    ) -> None:
        if not len(blocks):
            raise DataError("there is no image to draw crops from")
        self.grid = grid
        self.dtype = stored_type(grid.sources)
        self.residents = Residents(grid.n_channels)
        self.arrived: list[int] = []
        self.left_out: dict[int, SourceError] = {}
        self._load = load
        self._labelled = labelled
        self._leave_out = leave_out
        self._bytes_per_pixel = grid.n_channels * self.dtype.itemsize + labelled
        self._sources = len(np.unique(grid.sources_of(np.asarray(blocks))))
        pixels = grid.pixels
        places = place_bytes(pixels, self._bytes_per_pixel)[[*blocks, *later]]
        least = _LEAST_BLOCKS * int(places.max())
        self._capacity = min(int(places.sum()), max(capacity, least))
        self._schedule = Schedule(
            blocks, pixels, self._bytes_per_pixel, self._capacity, grid.crop, seed
        )
        self._storage = torch.empty(self._capacity, dtype=torch.uint8, device=device)
        self._oldest = 0
        self._read = 0
        self._waited = 0.0
        self._readers = min(_MOST_READERS, max(2, (os.cpu_count() or 2) // 2))
        self._executor = ThreadPoolExecutor(self._readers, thread_name_prefix="affmae-reader")
        self._planned: deque[Arrival] = deque()
        self._coming: deque[tuple[Arrival, Future[_Staged | SourceError]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that read; what is there can still be drawn from."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    @property
    def pixels(self) -> Tensor:
        """All pixels, (elements,), in the type of the pool; `residents` says what lies where."""
        dtype = getattr(torch, self.dtype.name)
        usable = self._capacity // self.dtype.itemsize * self.dtype.itemsize
        return self._storage[:usable].view(dtype)

    @property
    def labels(self) -> Tensor | None:
        """All class indices, (bytes,) uint8, or None."""
        return self._storage if self._labelled else None

    @property
    def state(self) -> PoolState:
        """What the pool holds, and what it has cost so far."""
        held = self.residents.pixels * self._bytes_per_pixel
        total = self._schedule.pixels * self._bytes_per_pixel
        return PoolState(held, self._capacity, total, self._read, self._waited)

    def advance(self, crop: int) -> Iterator[None]:
        """Take in the blocks that are due before a crop is drawn, and at least one.

        Those that would have left by then are not read: a resumed run begins with
        the blocks that the run had.

        Yields
        ------
        None
            Now and then while a block is waited for.

        Raises
        ------
        DataError, UnreadableFileError
            A source broke: the first one, or where such are left out, the last.
        """
        self.arrived = []
        while True:
            self._read_ahead(crop)
            if not self._coming or (self._coming[0][0].due > crop and len(self.residents)):
                break
            arrival, future = self._coming[0]
            yield from self._wait(future)
            self._coming.popleft()
            if self._settle(arrival, future.result()):
                self.arrived.append(arrival.block)
            if len(self.left_out) == self._sources:
                raise next(reversed(self.left_out.values()))

    def fill(self) -> None:
        """Take in all blocks.

        Raises
        ------
        DataError, UnreadableFileError
            As `advance`.
        ValueError
            If they do not fit.
        """
        if not self._schedule.all_fit:
            raise ValueError(f"{self.state.total} bytes do not fit a pool of {self._capacity}")
        for _ in self.advance(sys.maxsize):
            pass

    def bring(self, number: int) -> None:
        """Read a block now, one of those to draw from or that may come later.

        Raises
        ------
        DataError, UnreadableFileError
            If its source breaks.
        """
        arrival = self._schedule.insert(number)
        self._settle(arrival, self._stage(arrival))

    def patch_labels(
        self, source: int, plane: int, rows: slice, columns: slice, labels: NDArray[np.uint8]
    ) -> None:
        """Replace labels of a plane wherever its blocks lie in the pool.

        Parameters
        ----------
        source, plane : int
            Which plane.
        rows, columns : slice
            Which part of it.
        labels : ndarray, (rows, columns), uint8
            What the part holds now.
        """
        area = (rows, columns)
        table = self.residents.rows
        for row in table[(table["source"] == source) & (table["plane"] == plane)]:
            corner, size = row["corner"].tolist(), row["size"].tolist()
            spans = [
                (max(part.start, first), min(part.stop, first + length))
                for part, first, length in zip(area, corner, size, strict=True)
            ]
            if any(first >= end for first, end in spans):
                continue
            new = labels[_relative(spans, [part.start for part in area])]
            start = int(row["label_offset"])
            block = self._storage[start : start + size[0] * size[1]].view(size)
            block[_relative(spans, corner)].copy_(torch.from_numpy(np.ascontiguousarray(new)))

    def _read_ahead(self, crop: int) -> None:
        ahead = 2 * self._readers
        while len(self._coming) + len(self._planned) < ahead or self._planned_is_due(crop):
            arrival = self._schedule.next()
            if arrival is None:
                break
            while arrival.due <= crop and self._planned_leaves_for(arrival):
                self._planned.popleft()
            self._planned.append(arrival)
        while self._planned and len(self._coming) < ahead:
            arrival = self._planned.popleft()
            self._coming.append((arrival, self._executor.submit(self._stage, arrival)))

    def _planned_is_due(self, crop: int) -> bool:
        return bool(self._planned) and self._planned[-1].due <= crop

    def _planned_leaves_for(self, arrival: Arrival) -> bool:
        return bool(self._planned) and self._planned[0].number < arrival.oldest

    def _wait(self, future: "Future[_Staged | SourceError]") -> Iterator[None]:
        started = time.perf_counter()
        while not future.done():
            try:
                future.exception(timeout=_TICK_SECONDS)
            except TimeoutError:
                yield
        self._waited += time.perf_counter() - started

    def _stage(self, arrival: Arrival) -> "_Staged | SourceError":
        """Decode a block to memory that the device copies from; or say why its source is left out.

        Runs in several threads.
        """
        block = self.grid[arrival.block]
        known = self.left_out.get(block.source)
        if known is not None:
            return known
        try:
            loaded = self._load(block)
        except (UnreadableFileError, DataError) as error:
            if not self._leave_out:
                raise
            return error
        parts = [loaded.pixels] if loaded.labels is None else [loaded.pixels, loaded.labels]
        size = sum(part.nbytes for part in parts)
        staged = torch.empty(size, dtype=torch.uint8, pin_memory=self._storage.is_cuda)
        start = 0
        for part in parts:
            flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            staged[start : start + flat.nbytes].numpy()[:] = flat
            start += flat.nbytes
        return _Staged(block, loaded.pixels.nbytes, loaded.limits, staged)

    def _settle(self, arrival: Arrival, staged: "_Staged | SourceError") -> bool:
        """Copy a block to its place, from which older ones leave; say whether it is there.

        Blocks settle in the order of the schedule, whichever was read first. So it
        does not depend on the threads either which blocks a broken source still gave.
        """
        self._oldest = max(self._oldest, arrival.oldest)
        self.residents.drop_before(self._oldest)
        if not isinstance(staged, _Staged):
            self.left_out.setdefault(self.grid[arrival.block].source, staged)
            return False
        # A block that was brought meanwhile may have taken its place already.
        if staged.block.source in self.left_out or arrival.number < self._oldest:
            return False
        end = arrival.offset + staged.bytes.numel()
        self._storage[arrival.offset : end].copy_(staged.bytes, non_blocking=True)
        self._read += staged.bytes.numel()
        offset = arrival.offset // self.dtype.itemsize
        labels = arrival.offset + staged.image_bytes
        self.residents.insert(arrival.number, staged.block, offset, labels, staged.limits)
        return True


@dataclass(frozen=True)
class _Staged:
    """A decoded block on its way to the device."""

    block: Block
    image_bytes: int
    limits: NDArray[np.float32]
    bytes: Tensor


def _relative(spans: Sequence[tuple[int, int]], corner: Sequence[int]) -> tuple[slice, ...]:
    """Count spans of rows and of columns from a corner."""
    return tuple(slice(a - first, b - first) for (a, b), first in zip(spans, corner, strict=True))
