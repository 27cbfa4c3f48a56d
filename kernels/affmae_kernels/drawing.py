"""Where operations take their random numbers from.

The default generators of PyTorch belong to the whole process: two networks that
train beside each other would draw from one sequence. So each thread may name a
generator of its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_thread = threading.local()


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let the operations of this thread draw from a generator.

    Parameters
    ----------
    generator : torch.Generator
        For tensors on its device; on others the default generators serve on.
    """
    before = getattr(_thread, "generator", None)
    _thread.generator = generator
    try:
        yield
    finally:
        _thread.generator = before


def generator_of(device: torch.device) -> torch.Generator | None:
    """Return the thread's generator for a device; None stands for the default one."""
    generator: torch.Generator | None = getattr(_thread, "generator", None)
    if generator is None or generator.device.type != device.type:
        return None
    return generator
