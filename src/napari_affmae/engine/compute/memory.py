"""How much memory the steps of a run take."""

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil
import torch

from napari_affmae.engine.compute.device import DevicePlan

_SECONDS_BETWEEN_SAMPLES = 0.005


class MemoryMeter:
    """A context manager that measures the most memory that its block took.

    This class is for devices that do not report a peak, such as Apple's GPU.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    @property
    def available(self) -> int | None:
        """Bytes that the block could take at most."""
        return None

    @property
    def peak(self) -> int | None:
        """Most bytes since the start, or the last `forget`; None where that is unknown."""
        return None

    def forget(self) -> None:
        """Measure the peak from here on."""


def memory_meter(plan: DevicePlan) -> MemoryMeter:
    """Make the meter of a device; start it before the network is made."""
    if plan.device.type == "cuda":
        return _GpuMemory(plan)
    return _ProcessMemory() if plan.device.type == "cpu" else MemoryMeter()


class _GpuMemory(MemoryMeter):
    """Peak of torch's allocator, less what it held before."""

    def __init__(self, plan: DevicePlan) -> None:
        self._plan = plan
        self._before = torch.cuda.memory_allocated(plan.device)
        self.forget()

    @property
    def available(self) -> int | None:
        return self._plan.memory

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._plan.device) - self._before

    def forget(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._plan.device)


class _ProcessMemory(MemoryMeter):
    """Growth of the process, looked at by a thread while it computes.

    Parameters
    ----------
    read : callable, optional
        Returns the bytes that the process holds now.
    """

    def __init__(self, read: Callable[[], int] | None = None) -> None:
        _hand_back()
        self._available = int(psutil.virtual_memory().available)
        self._read = read or _resident
        self._before = self._read()
        self._most = _Most(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="affmae-memory", daemon=True)

    @property
    def available(self) -> int:
        return self._available

    @property
    def peak(self) -> int:
        self._sample()
        return self._most.value - self._before

    def forget(self) -> None:
        _hand_back()
        # Replaced, not set: a sample that the thread is taking belongs to what is forgotten.
        self._most = _Most(self._read())

    def _sample(self) -> None:
        most = self._most
        most.value = max(most.value, self._read())

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_SAMPLES):
            self._sample()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()


@dataclass
class _Most:
    """The most bytes that were seen since some moment."""

    value: int


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _hand_back() -> None:
    """Return freed memory to the system; a run that used it again would not seem to grow."""
    gc.collect()
    psutil.heap_trim()
