"""Training on several devices: one process each, started here or by `torchrun`."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import psutil
import typer
from rich.console import Console
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from typer.exceptions import TyperException

from napari_affmae.cli.stopping import STOPPED
from napari_affmae.engine.compute.distributed import Team, is_member, joined
from napari_affmae.errors import AffmaeError

# For a process that is to stop: the rest of its step, and a checkpoint.
_SECONDS_TO_STOP = "120"
_HERE = "localhost"


def on_devices(devices: int | None, console: Console, work: Callable[[Team], None]) -> None:
    """Do the work of this command in one process a device.

    Parameters
    ----------
    devices : int or None
        On how many; None for as many as `torchrun` has started processes, else one.
    console : rich.console.Console
        Made quiet in all processes but the first.
    work : Callable
        What each process does.
    """
    if devices is not None and devices > 1 and not is_member():
        launch(devices)
    else:
        with together(devices, console) as team:
            work(team)


def launch(devices: int) -> None:
    """Run this command in one process a device on this computer, and wait for them.

    Parameters
    ----------
    devices : int
        How many.

    Raises
    ------
    AffmaeError
        If a process was killed.
    typer.Exit
        With the code of the first process, which has told what happened.
    """
    logging.disable(logging.CRITICAL)  # what ends is told here, in one line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (psutil.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SECONDS_TO_STOP)
    try:
        # Nothing is logged there, but the launcher wants a folder, and would leave its own behind.
        with TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=devices,
                run_id=str(uuid.uuid4()),
                rdzv_backend="c10d",
                rdzv_endpoint=f"{_HERE}:0",
                local_addr=_HERE,
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
            )
            elastic_launch(config, sys.executable)("-m", "napari_affmae", *sys.argv[1:])
    except SignalException as stopped:
        raise typer.Exit(STOPPED) from stopped
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        killed = {rank: -code for rank, code in codes.items() if code < 0}
        # What the launcher itself ends, because another one was killed, it ends by SIGTERM.
        for rank, number in killed.items():
            if number != signal.SIGTERM:
                raise AffmaeError(
                    f"process {rank} of {devices} was ended by {signal.Signals(number).name}, "
                    "for instance by the system because memory ran out; resume the run"
                ) from failed
        raise typer.Exit(max(1, codes.get(0, 1))) from failed


@contextmanager
def together(devices: int | None, console: Console) -> Iterator[Team]:
    """Join the processes of this run, of which the first one alone tells how it is going.

    Parameters
    ----------
    devices : int or None
        The number that was asked for; None for as many as were started.
    console : rich.console.Console
        Made quiet in the others.

    Yields
    ------
    Team
        This process alone, if no others were started.
    """
    try:
        with joined() as team:
            console.quiet = not team.leads
            if devices not in {None, team.size}:
                raise typer.BadParameter(
                    f"--devices: {team.size} processes were started, and {devices} devices asked "
                    "for; leave it out where torchrun starts the processes"
                )
            ending = None
            try:
                yield team
            except typer.Exit as error:  # no failure, of which the others would have to hear
                ending = error
    except (AffmaeError, TyperException) as error:
        if team.leads or team.lost:
            raise
        raise typer.Exit(0) from error  # the first process tells it and has the exit code
    if ending is not None:
        raise ending if team.leads else typer.Exit(0)
