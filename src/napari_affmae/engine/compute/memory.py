"""How much memory the steps of a run take."""

import gc
import threading
from types import TracebackType
from typing import Self

import psutil
import torch

from napari_affmae.engine.compute.device import DevicePlan

_SECONDS_BETWEEN_SAMPLES = 0.005


class MemoryMeter:
    """A context manager that finds the most memory that its block took.

    This one stands for devices whose peak cannot be asked for, as Apple's.
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
    """Growth of the process, looked at by a thread while it computes."""

    def __init__(self) -> None:
        _hand_back()
        self._available = int(psutil.virtual_memory().available)
        self._process = psutil.Process()
        self._before = self._most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="affmae-memory", daemon=True)

    @property
    def available(self) -> int:
        return self._available

    @property
    def peak(self) -> int:
        return self._most - self._before

    def forget(self) -> None:
        _hand_back()
        self._most = self._now()

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_SAMPLES):
            self._most = max(self._most, self._now())

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


def _hand_back() -> None:
    """Return to the system what earlier runs have left: it would be used again, unseen."""
    gc.collect()
    psutil.heap_trim()
