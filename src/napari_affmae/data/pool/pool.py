"""The pool: decoded blocks in the memory of the device that trains."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.data.pool.blocks import Block, BlockGrid
from napari_affmae.data.pool.loading import Loaded, stored_type
from napari_affmae.data.pool.schedule import Arrival, Schedule, Size
from napari_affmae.errors import DataError, UnreadableFileError, UnreadablePairError

_TICK_SECONDS = 0.25
_MOST_READERS = 8
# The pool takes at least so many of the largest blocks: crops of one batch differ then.
_LEAST_BLOCKS = 4


@dataclass(frozen=True)
class PoolState:
    """What a pool holds and what it has cost so far.

    Attributes
    ----------
    held, capacity : int
        Bytes of the blocks that are there, and of the pool.
    total : int
        Bytes of all blocks.
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
    labelled : bool
        Whether blocks have labels.
    leave_out : bool
        Whether a source that breaks is left out; else its error is raised.

    Attributes
    ----------
    dtype : numpy.dtype
        Type of the pixels.
    left_out : dict of int to Exception
        By the numbers of sources that broke, what happened.
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
        labelled: bool = False,
        leave_out: bool = False,
    ) -> None:
        self.grid = grid
        self.dtype = stored_type(grid.sources)
        self.left_out: dict[int, UnreadableFileError | DataError] = {}
        self._load = load
        self._labelled = labelled
        self._leave_out = leave_out
        sizes = [self._size(number) for number in blocks]
        if not sizes:
            raise DataError("there is no image to draw crops from")
        self._sources = len({grid[number].source for number in blocks})
        self._total = sum(size.bytes + 16 for size in sizes)
        least = _LEAST_BLOCKS * (max(size.bytes for size in sizes) + 16)
        self._capacity = min(self._total, max(capacity, least))
        self._schedule = Schedule(blocks, self._size, self._capacity, grid.crop, seed)
        self._storage = torch.empty(self._capacity, dtype=torch.uint8, device=device)
        self._residents = Residents(grid.n_channels)
        self._oldest = 0
        self._read = 0
        self._waited = 0.0
        self._executor: ThreadPoolExecutor | None = None
        self._readers = min(_MOST_READERS, max(2, (os.cpu_count() or 2) // 2))
        self._coming: deque[tuple[Arrival, Future[_Staged | None]]] = deque()

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
        """End the threads that read."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
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
    def residents(self) -> "Residents":
        """The blocks that are there."""
        return self._residents

    @property
    def state(self) -> PoolState:
        """What the pool holds, and what it has cost so far."""
        rows = self._residents.rows
        per_pixel = self.grid.n_channels * self.dtype.itemsize + self._labelled
        held = int((rows["size"].prod(axis=1) * per_pixel).sum())
        return PoolState(held, self._capacity, self._total, self._read, self._waited)

    def advance(self, crop: int) -> Iterator[None]:
        """Take in the blocks that are due before a crop is drawn.

        Yields
        ------
        None
            Now and then while a block is waited for.

        Raises
        ------
        DataError, UnreadableFileError
            A source broke: the first one, or where such are left out, the last.
        """
        while True:
            self._read_ahead()
            is_due = self._coming and self._coming[0][0].due <= crop
            # Where sources broke, the next block may have to come early.
            if not is_due and (len(self._residents.rows) or not self._coming):
                break
            arrival, future = self._coming[0]
            yield from self._wait(future)
            self._coming.popleft()
            self._settle(arrival, future.result())
            if len(self.left_out) == self._sources:
                raise next(reversed(self.left_out.values()))

    def fill(self) -> None:
        """Take in all blocks, which must fit.

        Raises
        ------
        DataError, UnreadableFileError
            As `advance`.
        """
        for _ in self.advance(sys.maxsize):
            pass

    def bring(self, number: int) -> None:
        """Read a block now that was not among those to draw from.

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
        """Replace labels of a plane wherever its blocks lie in the pool."""
        table = self._residents.rows
        for row in table[(table["source"] == source) & (table["plane"] == plane)]:
            (top, left), (height, width) = row["corner"].tolist(), row["size"].tolist()
            first_row, first_column = max(rows.start, top), max(columns.start, left)
            last_row = min(rows.stop, top + height)
            last_column = min(columns.stop, left + width)
            if first_row >= last_row or first_column >= last_column:
                continue
            part = labels[
                first_row - rows.start : last_row - rows.start,
                first_column - columns.start : last_column - columns.start,
            ]
            start = int(row["label_offset"])
            here = self._storage[start : start + height * width].view(height, width)
            here[first_row - top : last_row - top, first_column - left : last_column - left].copy_(
                torch.from_numpy(np.ascontiguousarray(part))
            )

    def _size(self, number: int) -> Size:
        block = self.grid[number]
        pixels = (block.rows.stop - block.rows.start) * (block.columns.stop - block.columns.start)
        image = pixels * self.grid.n_channels * self.dtype.itemsize
        return Size(image + pixels * self._labelled, pixels)

    def _read_ahead(self) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._readers, thread_name_prefix="affmae-reader")
        while len(self._coming) < 2 * self._readers:
            arrival = self._schedule.next()
            if arrival is None:
                return
            self._coming.append((arrival, self._executor.submit(self._stage, arrival)))

    def _wait(self, future: "Future[_Staged | None]") -> Iterator[None]:
        started = time.perf_counter()
        while not future.done():
            try:
                future.exception(timeout=_TICK_SECONDS)
            except TimeoutError:
                yield
        self._waited += time.perf_counter() - started

    def _stage(self, arrival: Arrival) -> "_Staged | None":
        """Decode a block to memory that the device copies from; None where it is left out."""
        block = self.grid[arrival.block]
        if block.source in self.left_out:
            return None
        try:
            loaded = self._load(block)
        except (UnreadableFileError, DataError) as error:
            if not self._leave_out or isinstance(error, UnreadablePairError):
                raise
            self.left_out[block.source] = error
            return None
        parts = [loaded.pixels] if loaded.labels is None else [loaded.pixels, loaded.labels]
        size = sum(part.nbytes for part in parts)
        staged = torch.empty(size, dtype=torch.uint8, pin_memory=self._storage.is_cuda)
        start = 0
        for part in parts:
            flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            staged[start : start + flat.nbytes].numpy()[:] = flat
            start += flat.nbytes
        return _Staged(block, loaded.pixels.nbytes, loaded.limits, staged)

    def _settle(self, arrival: Arrival, staged: "_Staged | None") -> None:
        """Copy a block to its place, from which older ones leave."""
        self._oldest = max(self._oldest, arrival.oldest)
        self._residents.drop_before(self._oldest)
        # A block that was painted meanwhile may have taken its place already.
        if staged is None or arrival.number < self._oldest:
            return
        end = arrival.offset + staged.bytes.numel()
        self._storage[arrival.offset : end].copy_(staged.bytes, non_blocking=True)
        self._read += staged.bytes.numel()
        offset = arrival.offset // self.dtype.itemsize
        labels = arrival.offset + staged.image_bytes
        self._residents.append(arrival.number, staged.block, offset, labels, staged.limits)


@dataclass(frozen=True)
class _Staged:
    """A decoded block on its way to the device."""

    block: Block
    image_bytes: int
    limits: NDArray[np.float32]
    bytes: Tensor


class Residents:
    """A table of the blocks in the pool, oldest first.

    Parameters
    ----------
    channels : int
        Of the images.
    """

    def __init__(self, channels: int) -> None:
        self._dtype = np.dtype(
            [
                ("arrival", np.int64),
                ("block", np.int64),
                ("source", np.int32),
                ("plane", np.int32),
                ("offset", np.int64),
                ("label_offset", np.int64),
                ("corner", np.int32, 2),
                ("size", np.int32, 2),
                ("starts", np.int32, 2),
                ("weight", np.float64),
                ("limits", np.float32, (channels, 4)),
            ]
        )
        self._table: NDArray[Any] = np.zeros(64, self._dtype)
        self._first = self._end = 0

    @property
    def rows(self) -> NDArray[Any]:
        """One entry a block; a view that the next change makes stale."""
        return self._table[self._first : self._end]

    @property
    def newest(self) -> int:
        """Number of the newest arrival; -1 where there is none."""
        return int(self.rows["arrival"][-1]) if len(self.rows) else -1

    def append(
        self,
        arrival: int,
        block: Block,
        offset: int,
        label_offset: int,
        limits: NDArray[np.float32],
    ) -> None:
        """Add the newest."""
        if self._end == len(self._table):
            rows = self.rows
            self._table = np.zeros(max(64, 2 * len(rows)), self._dtype)
            self._table[: len(rows)] = rows
            self._first, self._end = 0, len(rows)
        self._table[self._end] = (
            arrival,
            block.number,
            block.source,
            block.plane,
            offset,
            label_offset,
            (block.rows.start, block.columns.start),
            (block.rows.stop - block.rows.start, block.columns.stop - block.columns.start),
            block.starts,
            block.weight,
            limits,
        )
        self._end += 1

    def drop_before(self, arrival: int) -> None:
        """Remove those that came before an arrival."""
        while self._first < self._end and self._table[self._first]["arrival"] < arrival:
            self._first += 1
