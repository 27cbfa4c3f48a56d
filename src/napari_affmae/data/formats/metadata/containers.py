"""Which array of a file that holds several is the image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def is_image(shape: Sequence[int] | None, dtype: Any) -> bool:
    """Whether an array can be an image: real numbers in two axes or more."""
    if shape is None or len(shape) < 2 or 0 in shape:
        return False
    return np.dtype(dtype).kind in "buif"


def choose_array(shapes: Mapping[str, Sequence[int]], inner: str | None) -> str:
    """Choose one of a container's arrays: the asked one, the only one, or the largest.

    Raises
    ------
    ValueError
        If the asked one is not there, there is none, or two are equally large;
        the message lists them all.
    """
    listing = ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))
    if inner is not None:
        name = inner.strip("/")
        if name not in shapes:
            raise ValueError(f"has no image array {inner!r}; it has: {listing or 'none'}")
        return name
    if not shapes:
        raise ValueError("holds no array with two axes or more")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    largest = [name for name, size in sizes.items() if size == max(sizes.values())]
    if len(largest) > 1:
        raise ValueError(
            f"holds several arrays of the largest size: {listing}; choose one by its name behind "
            "the path, as in file.h5:/name"
        )
    return largest[0]
