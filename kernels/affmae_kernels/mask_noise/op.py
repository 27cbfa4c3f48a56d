"""The public op."""

from typing import Literal

import torch
from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.mask_noise.reference import mask_noise_reference

KINDS = ("perlin", "uniform")
# A lattice point's row and column share 32 bits.
MOST_PATCHES = 2**15


def mask_noise(
    keys: Tensor,
    canvas: tuple[int, int],
    kind: Literal["perlin", "uniform"],
    cells: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Compute noise on the canvas of patches, a function of each image's key alone.

    Perlin's is gradient noise: each point of a square lattice has a gradient of
    length 1 and random angle, and a patch's centre gets the products of the four
    points around it with the vectors from these, blended by
    ``6 t^5 - 15 t^4 + 10 t^3``.

    Nothing waits for a GPU: a call can be captured.

    Parameters
    ----------
    keys : Tensor of int64, shape (B,)
        One for each image, drawn at random.
    canvas : tuple of int
        Rows and columns of patches.
    kind : {"perlin", "uniform"}
        Noise that is smooth, or independent from patch to patch.
    cells : Tensor of int32 or int64, shape (B,), optional
        Of Perlin's noise: cells of the lattice on a side, stretched over the
        canvas. At least 1 and at most the canvas' shorter side are taken, since
        finer noise would be undersampled. Uniform noise reads none.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor of float32, shape (B, rows, columns)
        Perlin's between -1 and 1, zero on average; uniform from 0 to below 1.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    ValueError
        If there is no such kind, or a tensor or the canvas is not as said here.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be 'perlin' or 'uniform', got {kind!r}")
    if not 0 < min(canvas) <= max(canvas) <= MOST_PATCHES:
        raise ValueError(f"canvas must have 1 to {MOST_PATCHES} patches a side, got {canvas}")
    _check("keys", keys, (torch.int64,), keys)
    if kind == "uniform":
        cells = None
    elif cells is None:
        raise ValueError("Perlin noise needs cells, one number for each key; got None")
    else:
        _check("cells", cells, (torch.int32, torch.int64), keys)
    if choose_backend(backend, keys.device) == "triton":
        from affmae_kernels.mask_noise._triton import mask_noise_forward

        out: Tensor = mask_noise_forward(
            keys.contiguous(), None if cells is None else cells.contiguous(), *canvas
        )
        return out
    return mask_noise_reference(keys, canvas, cells)


def _check(name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], keys: Tensor) -> None:
    if tensor.dtype not in dtypes or tensor.ndim != 1 or len(tensor) != len(keys):
        allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(
            f"{name} must be {allowed}, one number for each image, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    if tensor.device != keys.device:
        raise ValueError(f"{name} are on {tensor.device} and keys on {keys.device}")
