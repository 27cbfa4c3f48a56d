"""Memory that nobody has written, made visible."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def filled() -> Iterator[None]:
    """Make what PyTorch leaves uninitialised NaN, or the largest number of its type.

    So an element that a kernel should write and does not is found. PyTorch's own
    switch (`torch.utils.deterministic`) would also make it choose other algorithms.
    """
    before = torch.empty, torch.empty_like, Tensor.new_empty
    torch.empty, torch.empty_like, Tensor.new_empty = map(_filling, before)
    try:
        yield
    finally:
        torch.empty, torch.empty_like, Tensor.new_empty = before


def _filling(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, **options: Any) -> Tensor:
        tensor = make(*args, **options)
        if tensor.dtype == torch.bool:
            return tensor.fill_(True)
        real = tensor.is_floating_point() or tensor.is_complex()
        return tensor.detach().fill_(torch.nan if real else torch.iinfo(tensor.dtype).max)

    return made
