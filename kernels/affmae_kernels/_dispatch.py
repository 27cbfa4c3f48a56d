"""The choice of the backend that runs an operation."""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch

from affmae_kernels._launch import interpreted

Backend = Literal["auto", "triton", "torch"]
BACKENDS = ("auto", "triton", "torch")
OLDEST_CAPABILITY = (7, 5)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_logger = logging.getLogger(__name__)


class BackendUnavailableError(Exception):
    """An operation cannot run on the backend that its caller asked for."""


def choose_backend(
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    limit: tuple[str, int, int] | None = None,
) -> Literal["triton", "torch"]:
    """Decide between the Triton kernels and PyTorch.

    Parameters
    ----------
    backend : {"auto", "triton", "torch"}
        ``"auto"`` takes Triton where it can run, and logs once what it took.
    device : torch.device
        The device of the tensors.
    dtype : torch.dtype
        Type of the largest inputs.
    limit : tuple of str, int and int, optional
        The name of a number, its value, and the largest value that the kernels take.

    Raises
    ------
    ValueError
        If there is no such backend.
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "torch" or (backend == "auto" and is_exported()):
        return "torch"
    obstacle = triton_obstacle(device.type, device.index, dtype)
    if obstacle is None and limit is not None and limit[1] > limit[2]:
        obstacle = f"they take at most {limit[2]} {limit[0]}, not {limit[1]}"
    if backend == "auto":
        _log_choice(device.type, obstacle)
        return "torch" if obstacle else "triton"
    if obstacle:
        raise BackendUnavailableError(
            f"the Triton kernels cannot run: {obstacle}; use backend='auto' or 'torch'"
        )
    return "triton"


def is_exported() -> bool:
    """Say whether a graph is being exported: its sizes must follow from shapes alone."""
    return torch.compiler.is_exporting()


@cache
def triton_obstacle(device_type: str, device_index: int | None, dtype: torch.dtype) -> str | None:
    """Say why the Triton kernels cannot run, or None where they can."""
    if find_spec("triton") is None:
        return "Triton is not installed (it comes with PyTorch for CUDA on Linux)"
    if dtype not in DTYPES:
        return f"they take float32, float16 and bfloat16, not {dtype}"
    if interpreted():
        return None if dtype == torch.float32 else "Triton's interpreter is exact in float32 only"
    if device_type != "cuda" or torch.version.hip is not None:
        return f"they run on NVIDIA GPUs, the tensors are on {device_type!r}"
    capability = torch.cuda.get_device_capability(device_index)
    needed = (8, 0) if dtype == torch.bfloat16 else OLDEST_CAPABILITY
    if capability < needed:
        return f"{dtype} needs compute capability {needed}, this GPU has {capability}"
    return None


@cache
def _log_choice(device_type: str, obstacle: str | None) -> None:
    if obstacle is None:
        _logger.info("AFFMAE's operations run on Triton kernels (%s)", device_type)
    else:
        _logger.info("AFFMAE's operations run through PyTorch (%s): %s", device_type, obstacle)
