"""Device, precision and memory of a run."""

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from traceback import clear_frames
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import psutil
import torch

from affmae_kernels import choose_backend
from napari_affmae.config import Precision
from napari_affmae.errors import DeviceUnavailableError, OutOfMemoryError

P = ParamSpec("P")
E = TypeVar("E")
R = TypeVar("R")

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Messages of oneDNN when it gets no memory for weights or scratch space.
_ONEDNN_ERRORS = {"could not create a primitive", "could not create a memory object"}


@dataclass(frozen=True)
class DevicePlan:
    """The device and precision of a run.

    Attributes
    ----------
    device : torch.device
        With an index if there can be several of its kind.
    precision : {"fp32", "fp16", "bf16"}
        Precision of matrix products; weights and losses stay float32.
    words : str
        Description for the user, for instance ``"NVIDIA H100, 80 GB"``.
    memory : int or None
        Bytes of the device's own memory; None if it shares the computer's.
    """

    device: torch.device
    precision: str
    words: str
    memory: int | None

    @property
    def dtype(self) -> torch.dtype:
        """Type of matrix products."""
        return _DTYPES[self.precision]

    @property
    def backend(self) -> str:
        """Description of what computes the network's operations."""
        chosen = choose_backend("auto", self.device, self.dtype)
        return "Triton kernels" if chosen == "triton" else "PyTorch"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the thread's current device for a block that does not yield."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                yield
        else:
            yield

    @property
    def free_memory(self) -> int:
        """Bytes that are free where tensors lie, the computer's own where it is shared."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return int(free)
        return int(psutil.virtual_memory().available)

    def release_memory(self) -> None:
        """Free cached memory, after running out of it."""
        gc.collect()
        if self.device.type != "cpu":
            torch.get_device_module(self.device).empty_cache()


def plan_device(device: str = "auto", precision: Precision = "auto") -> DevicePlan:
    """Choose a device and a precision.

    ``auto`` takes the first CUDA GPU, else Apple's GPU, else the CPU; and bf16
    where the GPU computes in it, else fp16; on Apple's GPU and the CPU fp32.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:1"``.
    precision : {"auto", "fp32", "fp16", "bf16"}
        Precision of matrix products.

    Returns
    -------
    DevicePlan
        The choice, with a description for the user.

    Raises
    ------
    DeviceUnavailableError
        If the device is not there or cannot compute in this precision.
    """
    chosen = _choose_device(device)
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        memory = properties.total_memory
        words = f"{properties.name}, {memory / 2**30:.0f} GB"
    elif chosen.type == "mps":
        memory, words = None, "Apple GPU"
    else:
        memory, words = None, f"CPU, {torch.get_num_threads()} threads"
    return DevicePlan(chosen, _choose_precision(chosen, precision), words, memory)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, on a GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On the CPU, torch's allocator and oneDNN have no exception class of their own.
    words = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in words
        or words in _ONEDNN_ERRORS
        # The driver's own memory, for instance of a CUDA graph.
        or "CUDA error: out of memory" in words
    )


class Shortage:
    """Catches a lack of memory in a `with` block, so that the code after it can react.

    Attributes
    ----------
    reason : str or None
        Message of the error; None if memory did not run out.
    """

    reason: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None or not is_out_of_memory(error):
            return False
        self.reason = str(error)
        # The frames hold tensors, which would stay alive as long as the error.
        clear_frames(trace)
        return True

    def error(self, plan: DevicePlan, what: str, advice: str) -> OutOfMemoryError:
        """Make the error for a lack of memory that cannot be avoided."""
        return OutOfMemoryError(
            f"{what} the memory of {plan.words} ({self.reason}). {advice}, "
            "or close other programs that use this memory"
        )


@contextmanager
def memory_errors(plan: DevicePlan, what: str, advice: str) -> Iterator[None]:
    """Turn memory that ran out in a block, which must not yield, into `OutOfMemoryError`.

    Parameters
    ----------
    plan : DevicePlan
        The device that ran out of memory.
    what, advice : str
        What does not fit, and what the user can do; for the message.

    Raises
    ------
    OutOfMemoryError
        If memory ran out in the block; cached memory is freed first.
    """
    with Shortage() as shortage:
        yield
    if shortage.reason is not None:
        plan.release_memory()
        raise shortage.error(plan, f"{what} does not fit", advice)


def telling_of_memory(
    run: Callable[P, Generator[E, None, R]],
) -> Callable[P, Generator[E, None, R]]:
    """Decorate a run: wherever in it memory runs out, it ends with `OutOfMemoryError`.

    Parameters
    ----------
    run : callable
        Makes a generator.
    """

    @wraps(run)
    def told(*args: P.args, **kwargs: P.kwargs) -> Generator[E, None, R]:
        with Shortage() as shortage:
            return (yield from run(*args, **kwargs))
        raise OutOfMemoryError(
            f"there is not enough memory ({shortage.reason or 'nothing more is known'}). "
            "Use a smaller crop, tile or batch, or smaller images, or close other programs"
        )

    return told


def _choose_device(device: str) -> torch.device:
    cuda, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if device == "auto":
        if cuda:
            return torch.device("cuda", 0)
        return torch.device("mps", 0) if mps else torch.device("cpu")
    asked = torch.device(device)
    if asked.type == "cuda":
        index = asked.index or 0
        if index >= cuda:
            raise _missing(device)
        return torch.device("cuda", index)
    if asked.type == "mps":
        if not mps:
            raise _missing(device)
        return torch.device("mps", 0)
    if asked.type != "cpu":
        raise ValueError(f"device must be auto, cpu, mps, cuda or cuda:N, got {device!r}")
    return asked


def _missing(device: str) -> DeviceUnavailableError:
    there = ["cpu"]
    there += [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        there.append("mps")
    hint = ""
    if device.startswith("cuda") and not torch.backends.cuda.is_built():
        hint = f"; the installed torch {torch.__version__} is built without CUDA"
    return DeviceUnavailableError(
        f"device {device!r} is not available here, only {', '.join(there)}{hint}. "
        "Choose one of these, or 'auto'"
    )


def _choose_precision(device: torch.device, precision: Precision) -> str:
    if device.type != "cuda":
        if precision == "fp16":
            raise DeviceUnavailableError(
                f"precision 'fp16' needs a CUDA GPU and the device is {device.type!r}; "
                "use 'fp32' or 'auto'"
            )
        return "fp32" if precision == "auto" else precision
    with torch.cuda.device(device):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bf16" if has_bf16 else "fp16"
    if precision == "bf16" and not has_bf16:
        raise DeviceUnavailableError(
            f"{torch.cuda.get_device_name(device)} does not compute in bf16; use 'fp16' or 'auto'"
        )
    return precision
