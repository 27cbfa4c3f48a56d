"""Runs the blocks of a volume side by side, and marks what is complete."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Event as Flag
from threading import Semaphore
from typing import Protocol

from napari_affmae.config import SegmentConfig
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.timing import Stopwatch
from napari_affmae.engine.events import BlockDone, TilesDone
from napari_affmae.engine.results.volume import Volume
from napari_affmae.engine.volumes.block_order import BlockOrder, Focus
from napari_affmae.engine.volumes.blocks import BlockWork, Task

Submit = Callable[[Sequence[int]], Future[None]]
_Report = Future[None] | None

_MOST_THREADS = 8
# Bytes of the results of all tasks at a time, if these are more than two.
_SMALL_TASKS = 2**26
# Tiles that are computed while nobody asks how far it is: a run that pauses soon rests.
_TILES_AHEAD = 16
_SECONDS = 0.1


#: Prepares the computation of some blocks, here and in the order in which they are handed out: of
#: threads that start together either may come first, and the network serves one at a time.
Work = Callable[[Sequence[int]], Task]


class Executor(Protocol):
    """Where the blocks of a volume are computed.

    Attributes
    ----------
    tells_tiles : bool
        Whether single tiles are told, or only blocks.
    """

    @property
    def tells_tiles(self) -> bool: ...  # noqa: D102

    def most(self, nbytes: int) -> int:
        """Return how many tasks are handed out at a time, whose results take so many bytes each."""
        ...

    def precision(self, config: SegmentConfig) -> str | None:
        """Return the precision of other processes' devices; None where this process computes."""
        ...

    def starting(
        self, work: BlockWork, on_tile: Callable[[], None]
    ) -> AbstractContextManager[Submit]:
        """Give the function that hands out blocks, by their numbers.

        Leaving the block drops what is not finished, and waits until nothing runs here.
        """
        ...


def settled_precision(executor: Executor, config: SegmentConfig) -> str:
    """Return the precision that blocks will be computed in, without loading a network.

    Raises
    ------
    DeviceUnavailableError
        If the device is not there, or has no such precision.
    """
    remote = executor.precision(config)
    return remote or plan_device(config.device, config.precision).precision


class _StoppedError(Exception):
    """Ends the work on a block of a run that was closed."""


class Threads:
    """Computes blocks in threads of this process.

    While the network is at work on one block, others are read or written.

    Parameters
    ----------
    most : int, optional
        Number of threads, and so of tasks in memory; by default two, and up to eight where
        blocks are small, since then the network waits for the disk.
    """

    tells_tiles = True

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def most(self, nbytes: int) -> int:
        """Return how many tasks are handed out at a time; see `Executor`."""
        return self._most or min(_MOST_THREADS, max(2, _SMALL_TASKS // nbytes))

    def precision(self, config: SegmentConfig) -> str | None:  # noqa: ARG002 - see `Executor`
        """Return None: this process computes."""
        return None

    @contextmanager
    def starting(self, work: Work, on_tile: Callable[[], None]) -> Iterator[Submit]:
        """Start the threads; see `Executor`."""
        closed = Flag()

        def tell() -> None:
            if closed.is_set():
                raise _StoppedError
            on_tile()

        with ThreadPoolExecutor(
            self._most or _MOST_THREADS, thread_name_prefix="affmae-blocks"
        ) as threads:
            try:
                yield lambda numbers: threads.submit(work(numbers), tell)
            finally:
                closed.set()
                threads.shutdown(cancel_futures=True)


def compute_blocks(
    work: BlockWork, volume: Volume, executor: Executor, focus: Focus | None = None
) -> Generator[TilesDone | BlockDone, None, None]:
    """Compute what is missing of a volume.

    Only this generator marks blocks, after they are on the disk. Closing it drops the
    blocks that are being computed.

    Parameters
    ----------
    work : BlockWork
        The computation.
    volume : Volume
        The result.
    executor : Executor
        Where it is computed.
    focus : callable, optional
        See `BlockOrder`.

    Yields
    ------
    TilesDone or BlockDone
        Progress of all workers together.

    Raises
    ------
    AffmaeError
        What ends a block ends the run.
    """
    order = BlockOrder(volume, work.at_once, focus)
    started = partial(executor.starting, work)
    with closing(completed_blocks(volume, started, executor.most(work.nbytes), order)) as completed:
        yield from _progress(work, volume, completed, tells_tiles=executor.tells_tiles)


def completed_blocks(
    volume: Volume,
    starting: Callable[[Callable[[], None]], AbstractContextManager[Submit]],
    most: int,
    order: BlockOrder,
) -> Generator[int | None, None, None]:
    """Compute what is missing of a volume, and mark each block that is complete.

    Parameters
    ----------
    volume : Volume
        The result.
    starting : callable
        `Executor.starting` of some work.
    most : int
        Tasks that are handed out at a time.
    order : BlockOrder
        Which blocks come next.

    Yields
    ------
    int or None
        The number of each block that was marked; None for each tile.
    """
    reports: SimpleQueue[_Report] = SimpleQueue()
    ahead, over = Semaphore(_TILES_AHEAD), Flag()

    def tell() -> None:
        while not ahead.acquire(timeout=_SECONDS) and not over.is_set():
            pass
        reports.put(None)

    with starting(tell) as submit:
        try:
            for number in _completed(volume, submit, reports, most, order):
                yield number
                if number is None:
                    ahead.release()
        finally:
            over.set()


def _completed(
    volume: Volume, submit: Submit, reports: SimpleQueue[_Report], most: int, order: BlockOrder
) -> Iterator[int | None]:
    """Mark the missing blocks as they are computed.

    Yields the number of each, and None for each tile. No more than `most` tasks are handed
    out at a time.
    """
    running: dict[Future[None], list[int]] = {}
    while True:
        while len(running) < most and (numbers := order.take()):
            for number in numbers:
                volume.clear(number)
            future = submit(numbers)
            running[future] = numbers
            future.add_done_callback(reports.put)
        if not running:
            break
        report = reports.get()
        if report is None:
            yield None
            continue
        report.result()
        for number in running.pop(report):
            volume.mark(number)
            order.completed(number)
            yield number


def _progress(
    work: BlockWork, volume: Volume, completed: Iterator[int | None], *, tells_tiles: bool
) -> Iterator[TilesDone | BlockDone]:
    """Count tiles and blocks, and estimate the time that is left."""
    blocks = volume.plan.first(volume.plan.levels)
    total = sum(map(work.tiles, volume.ledger.missing(range(blocks))))
    done = 0
    watch = Stopwatch()
    watch.start()
    for number in completed:
        watch.stop()
        new = 1 if number is None else 0 if tells_tiles else work.tiles(number)
        if new:
            done += new
            yield TilesDone(done, total, watch.elapsed / done * (total - done))
        if number is not None:
            level, box = volume.box(number)
            yield BlockDone(level, box, volume.ledger.done, blocks)
        watch.start()
