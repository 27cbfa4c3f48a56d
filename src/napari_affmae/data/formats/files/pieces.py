"""How large a piece of an image may be that can only be decoded as a whole."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil

# Decoders hold a piece up to three times while they work, and others need memory too.
_SHARE = 4


def largest_piece() -> int:
    """Bytes that a decoded piece may have: a quarter of the computer's memory."""
    return int(psutil.virtual_memory().total) // _SHARE


def check_piece(shape: Sequence[int], dtype: Any, what: str) -> None:
    """Refuse a piece that is too large to be decoded, before memory is taken for it.

    A header of a few bytes can claim any size.

    Parameters
    ----------
    shape : sequence of int
        Elements along each axis.
    dtype : dtype
        Of the elements.
    what : str
        Names the piece: "its image", "each of its chunks".

    Raises
    ------
    ValueError
        If it would be larger than `largest_piece`.
    """
    size, most = math.prod(map(int, shape)) * np.dtype(dtype).itemsize, largest_piece()
    if size > most:
        raise ValueError(
            f"{what} of shape {tuple(map(int, shape))} takes {size / 2**30:.1f} GiB when it is "
            f"decoded, and at most {most / 2**30:.1f} GiB, a quarter of this computer's memory, "
            "are allowed; save it with smaller tiles or chunks, or cut it into smaller images"
        )
