"""Random numbers as functions of the run's seed and the step.

Nothing is carried from step to step, so a resumed run, and a step repeated
after running out of memory, draw what they would have drawn.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are for; each purpose has its own sequence.

    Those of crops and masks are in `data.crops.numbers`.
    """

    WEIGHTS = 0
    DROPOUT = 2
    VALIDATION = 3
    HEAD = 4
    HELD_OUT = 5


def derived_seed(seed: int, stream: Stream, step: int = 0, rank: int = 0) -> int:
    """Mix the run's seed, a purpose, a step and a process to a seed for torch.

    Parameters
    ----------
    seed : int
        Seed of the run.
    stream : Stream
        Purpose.
    step : int
        Number of the step.
    rank : int
        Number of the process, of those that train together.

    Returns
    -------
    int
        0 to 2**63 - 1.
    """
    state = np.random.SeedSequence((seed, int(stream), step, rank)).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def generator(seed: int, stream: Stream, step: int = 0) -> torch.Generator:
    """Make a CPU generator for one purpose in one step."""
    return torch.Generator().manual_seed(derived_seed(seed, stream, step))


# The generators of torch belong to the whole process.
_lock = threading.Lock()


@contextmanager
def seeded(seed: int, stream: Stream, step: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a block, and leave them as they were.

    Initial weights take theirs from these. Other threads wait, so a block must be
    short, and must not yield.

    Parameters
    ----------
    seed, stream, step
        See `derived_seed`.
    device : torch.device
        The current device, whose generator is seeded besides the CPU's.
    """
    # torch.manual_seed would seed every device, also those that this run does not use.
    modules = [torch.random]
    if device.type != "cpu":
        modules.append(torch.get_device_module(device))
    value = derived_seed(seed, stream, step)
    with _lock:
        states = [module.get_rng_state() for module in modules]
        torch.default_generator.manual_seed(value)
        for module in modules[1:]:
            module.manual_seed(value)
        try:
            yield
        finally:
            for module, state in zip(modules, states, strict=True):
                module.set_rng_state(state)
