"""What all launchers of Triton kernels share."""

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


# Idle streams, which belong to a thread: what one frees on a stream, it alone takes again,
# after its own work on the main stream.
_streams = threading.local()


def side_by_side(device: torch.device, calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls that do not depend on each other.

    While a CUDA graph is recorded they become parallel branches of it; else they
    are made one by one, since small kernels end sooner than the next is launched.

    Parameters
    ----------
    device : torch.device
        Where their tensors are.
    calls : sequence of Callable
        At least one; the first goes on where the others branch off.

    Returns
    -------
    list
        Their results.
    """
    branches = [begin(device, call) for call in calls[1:]]
    return [calls[0](), *(wait() for wait in branches)]


def begin(device: torch.device, call: Callable[[], T]) -> Callable[[], T]:
    """Begin a call whose result is wanted later.

    While a CUDA graph is recorded it becomes a branch beside all that comes until
    its result is asked for, which has to happen once in the same recording. Else
    it is made when asked for.

    Parameters
    ----------
    device : torch.device
        Where its tensors are.
    call : Callable

    Returns
    -------
    Callable
        Gives the result.
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
    """Tell whether Triton runs its interpreter, whose cost is the number of programs."""
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
        Rows and columns.
    grid : tuple of int
        Programs of one tile each.
    constants : dict
        What the kernel is compiled for.

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
    """The same for a kernel that also sums columns: a program works through part of the rows.

    Attributes
    ----------
    parts, steps : int
        Parts that rows are cut into, and tiles of a part.
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
    """Give a kernel something to point at where it reads nothing."""
    return other if tensor is None else tensor


def rows_together(x: Tensor) -> Tensor:
    """Copy a tensor only where its last axis is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def to_autocast(*tensors: Tensor) -> list[Tensor]:
    """Bring an op's large inputs to one type: autocast's, where it is on."""
    device = tensors[0].device.type
    dtype = tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) for t in tensors]
