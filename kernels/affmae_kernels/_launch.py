"""Helpers that all launchers of Triton kernels share."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make a tensor's GPU the current one, as a launch needs it."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


# Idle streams. Each thread keeps its own: memory that was freed on a stream is then reused only
# by the thread that freed it, after that thread's work on the main stream.
_streams = threading.local()


def side_by_side(device: torch.device, calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls that do not depend on each other.

    While a CUDA graph is recorded, they become parallel branches of it. Otherwise
    they are made one after the other, since small kernels end sooner than the next
    one is launched.

    Parameters
    ----------
    device : torch.device
        The device of their tensors.
    calls : sequence of Callable
        At least one. The first stays on the current stream; the others get
        streams of their own.

    Returns
    -------
    list
        The results of the calls.
    """
    branches = [begin(device, call) for call in calls[1:]]
    return [calls[0](), *(wait() for wait in branches)]


def begin(device: torch.device, call: Callable[[], T]) -> Callable[[], T]:
    """Begin a call whose result is wanted later.

    While a CUDA graph is recorded, the call becomes a branch that runs beside
    everything that is recorded before its result is asked for. The result must be
    asked for once, in the same recording. Otherwise the call is made when its
    result is asked for.

    Parameters
    ----------
    device : torch.device
        The device of its tensors.
    call : Callable

    Returns
    -------
    Callable
        A function that returns the result of the call.
    """
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return call
    mine: dict[torch.device, list[torch.cuda.Stream]] = _streams.__dict__.setdefault("of", {})
    idle = mine.setdefault(device, [])
    stream = idle.pop() if idle else torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        result = call()

    def wait() -> T:
        torch.cuda.current_stream(device).wait_stream(stream)
        idle.append(stream)
        return result

    return wait


def interpreted() -> bool:
    """Tell whether Triton runs its interpreter, whose time grows with the number of programs."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def next_power_of_2(n: int) -> int:
    """Round up to a power of two."""
    return 1 << max(n - 1, 0).bit_length()


def blocks(n: int, size: int) -> int:
    """Count the blocks of `size` that cover `n`."""
    return -(-n // size)


class Tiling:
    """How the programs of an elementwise kernel share a contiguous tensor (..., C).

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the tensor.
    grid : tuple of int
        Number of programs along columns and along rows; each works on one tile.
    constants : dict
        Constants that the kernel is compiled for.

    Parameters
    ----------
    x : Tensor
    """

    ROWS, COLUMNS = 16, 128

    def __init__(self, x: Tensor) -> None:
        columns = x.shape[-1]
        rows = x.numel() // columns
        self.shape = (rows, columns)
        self.grid = (blocks(columns, self.COLUMNS), blocks(rows, self.ROWS))
        self.constants = {"ROWS": self.ROWS, "COLUMNS": self.COLUMNS, "num_warps": 4}


class SummedTiling(Tiling):
    """How the programs of a kernel that also sums columns share a tensor.

    Each program works through one part of the rows, tile after tile.

    Attributes
    ----------
    parts, steps : int
        Number of parts that the rows are cut into, and of tiles in a part.
    """

    ROWS, COLUMNS = 32, 64
    MOST_PARTS = 128

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        across, tiles = self.grid
        self.steps = blocks(tiles, self.MOST_PARTS)
        self.parts = blocks(tiles, self.steps)
        self.grid = (across, self.parts)


def either(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Return `other` for None: a kernel needs a pointer even where it reads nothing."""
    return other if tensor is None else tensor


def rows_together(x: Tensor) -> Tensor:
    """Copy a tensor only where its last axis is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def to_autocast(*tensors: Tensor) -> list[Tensor]:
    """Convert an operation's large inputs to one type: that of autocast where it is on."""
    device = tensors[0].device.type
    dtype = tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) for t in tensors]
