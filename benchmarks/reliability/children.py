"""Processes that may be killed, crash, or run for ever."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext
from typing import Any

_PRELOADED = (
    "napari_affmae.cli.segment",
    "napari_affmae.data.checks",
    "napari_affmae.data.formats.single.encoded",
    "napari_affmae.data.formats.hdf5.reader",
    "napari_affmae.data.formats.single.mrc",
    "napari_affmae.data.formats.zarr.reader",
    "napari_affmae.data.formats.tiff.reader",
    "napari_affmae.engine.training.finetuning",
    "napari_affmae.engine.training.pretraining",
)


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes
    ----------
    told : list
        What it has sent.
    code : int or None
        Its exit code, negative for a signal; None where it was killed because its time was over.
    seconds : float
        How long it ran.
    """

    told: list[Any]
    code: int | None
    seconds: float


@cache
def _server() -> ForkServerContext:
    """Return what forks processes from one that has imported everything, which takes seconds.

    It computes nothing, so that it has no threads, which do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, __name__])
    first = context.Process()  # whoever comes next does not wait for the imports
    first.start()
    first.join()
    return context


def run(
    work: Callable[..., None],
    arguments: Sequence[Any],
    seconds: float,
) -> Ending:
    """Run a function in a process of its own, and kill that when its time is over.

    Parameters
    ----------
    work : callable
        A function of a module. It is called with a function that sends something to
        the caller, and the arguments.
    arguments : sequence
        Can be pickled.
    seconds : float
        After so long the process is killed.
    """
    receiver, sender = _server().Pipe(duplex=False)
    process = _server().Process(target=_begin, args=(work, sender, arguments), daemon=True)
    started = time.monotonic()
    process.start()
    sender.close()
    process.join(seconds)
    in_time = process.exitcode is not None
    if not in_time:
        process.kill()
        process.join()
    told = []
    try:
        while receiver.poll():
            told.append(receiver.recv())
    except EOFError:
        pass
    finally:
        receiver.close()
    code = process.exitcode if in_time else None
    process.close()
    return Ending(told, code, time.monotonic() - started)


def _begin(work: Callable[..., None], sender: Any, arguments: Sequence[Any]) -> None:
    # What libraries print of damaged files belongs to nobody here.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    work(sender.send, *arguments)
