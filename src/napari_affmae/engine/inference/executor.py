"""Runs the blocks of a volume side by side in threads, and marks what is complete."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event as Flag

from napari_affmae.engine.compute.timing import Stopwatch
from napari_affmae.engine.events import BlockDone, TilesDone
from napari_affmae.engine.inference.blocks import BlockWork
from napari_affmae.engine.results.volume import Volume

_Report = Future[None] | None


class _StoppedError(Exception):
    """Ends the work on a block of a run that was closed."""


def compute_blocks(
    work: BlockWork, volume: Volume, workers: int
) -> Generator[TilesDone | BlockDone, None, None]:
    """Compute what is missing of a volume, level by level, in threads.

    While one block waits for the network, others are read or written. Only this
    generator marks blocks, after they are on the disk. Closing it drops the blocks
    that are being computed, and waits until each thread has finished its tile.

    Parameters
    ----------
    work : BlockWork
        The computation.
    volume : Volume
        The result.
    workers : int
        Number of threads.

    Yields
    ------
    TilesDone or BlockDone
        Progress of all threads together.

    Raises
    ------
    AffmaeError
        What ends a block ends the run.
    """
    reports: SimpleQueue[_Report] = SimpleQueue()
    closed = Flag()

    def on_tile() -> None:
        if closed.is_set():
            raise _StoppedError
        reports.put(None)

    with ThreadPoolExecutor(workers, thread_name_prefix="affmae-blocks") as threads:

        def submit(number: int) -> Future[None]:
            future = threads.submit(work, number, on_tile)
            future.add_done_callback(reports.put)
            return future

        try:
            yield from _progress(work, volume, _completed(volume, submit, reports, workers))
        finally:
            closed.set()
            threads.shutdown(cancel_futures=True)


def _completed(
    volume: Volume,
    submit: Callable[[int], Future[None]],
    reports: SimpleQueue[_Report],
    most: int,
) -> Iterator[int | None]:
    """Mark the missing blocks as they are computed.

    Yields the number of each, and None for each tile. No more than `most` are handed out
    at a time. A level is begun when the one below it is complete.
    """
    for level in range(volume.plan.levels):
        first = volume.plan.first(level)
        missing = volume.ledger.missing(range(first, first + len(volume.plan.blocks(level))))
        running: dict[Future[None], int] = {}
        while True:
            while len(running) < most and (number := next(missing, None)) is not None:
                running[submit(number)] = number
            if not running:
                break
            report = reports.get()
            if report is None:
                yield None
                continue
            report.result()
            number = running.pop(report)
            volume.ledger.mark(number)
            yield number


def _progress(
    work: BlockWork, volume: Volume, completed: Iterator[int | None]
) -> Iterator[TilesDone | BlockDone]:
    """Count tiles and blocks, and estimate the time that is left."""
    blocks = volume.plan.first(volume.plan.levels)
    total = sum(map(work.tiles, volume.ledger.missing(range(blocks))))
    done = 0
    watch = Stopwatch()
    watch.start()
    for number in completed:
        watch.stop()
        if number is None:
            done += 1
            yield TilesDone(done, total, watch.elapsed / done * (total - done))
        else:
            level, box = volume.box(number)
            yield BlockDone(level, box, volume.ledger.done, blocks)
        watch.start()
