"""Batches prepared by threads, in order, while the model trains."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

Batch = torch.Tensor | tuple[torch.Tensor, ...]

_BATCHES_AHEAD = 2


class Crops(Protocol):
    """Anything with numbered samples."""

    def sample(self, index: int) -> Any:
        """Sample number `index`: an array or a tuple of arrays."""
        ...


def iterate_batches(
    crops: Crops, batch: int, start_step: int = 0, workers: int = 2
) -> Generator[Batch]:
    """Yield batches without end: step s holds samples s * batch to s * batch + batch - 1.

    Samples are made ahead of time by threads; which thread makes one does not
    change it. Closing the generator stops the threads.

    Parameters
    ----------
    crops : Crops
        `PretrainCrops`, `LabelledCrops` or alike.
    batch : int
        Samples of a batch.
    start_step : int
        First step, to go on where a run has stopped.
    workers : int
        Threads.

    Yields
    ------
    tensor or tuple of tensors
        The samples stacked, in their dtypes.

    Raises
    ------
    ValueError
        If a number is out of range.
    Exception
        Whatever `crops.sample` raises, when its batch is due.
    """
    if batch < 1 or workers < 1 or start_step < 0:
        raise ValueError(
            f"batch and workers must be at least 1 and start_step at least 0, "
            f"got {batch}, {workers}, {start_step}"
        )
    return _batches(crops, batch, start_step, workers)


def _batches(crops: Crops, batch: int, start_step: int, workers: int) -> Generator[Batch]:
    ahead = max(_BATCHES_AHEAD * batch, workers)
    index = start_step * batch
    queue: deque[Future[Any]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="affmae-crops")
    try:
        while True:
            while len(queue) < batch + ahead:
                queue.append(executor.submit(crops.sample, index))
                index += 1
            yield _stack([queue.popleft().result() for _ in range(batch)])
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _stack(samples: list[Any]) -> Batch:
    if isinstance(samples[0], tuple):
        return tuple(torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True))
    return torch.from_numpy(np.stack(samples))
