"""Several processes that train one network, each on a device of its own; or one alone.

`torchrun` starts the processes, on one machine or on several, and `joined` connects
them. The first one leads: it alone validates, writes and tells how the run is going.
All of them meet before each step changes any weight. There each says whether it can go
on, so that a process that lacks memory, fails or is to stop keeps no other waiting, and
all end after the same step.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from napari_affmae.errors import DeviceUnavailableError, OtherProcessError, OtherStoppedError

# For one that validates, or reads its first images. A process that has ended is noticed at once.
_PATIENCE = timedelta(hours=12)


class Agreement(NamedTuple):
    """What all processes hear before a step changes the weights.

    Attributes
    ----------
    rate : float
        The learning rate.
    short : bool
        Whether one of them lacks memory, so that all go on in smaller parts.
    """

    rate: float
    short: bool


class Team:
    """A process that trains alone: there is nobody to agree with.

    Attributes
    ----------
    rank : int
        Number of the process; 0 leads.
    size : int
        Number of processes.
    lost : bool
        Whether the others can no longer be reached.
    """

    rank = 0
    size = 1
    lost = False

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and tells."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """Return the device of this process, of those that the settings ask for."""
        return asked

    def words(self, device: str) -> str:
        """Describe the devices of all, of which each is like this one."""
        return device

    def beside(self, device: torch.device) -> int:  # noqa: ARG002 - alone on any device
        """Return how many processes share the memory of this one's device."""
        return 1

    def least(self, number: int) -> int:
        """Return the smallest of the numbers that the processes give."""
        return number

    def hand_out(self, make: Callable[[], Any]) -> None:
        """Give the others, who `receive` it, what `make` returns."""

    def receive(self) -> Any:
        """Return what the first process hands out."""
        raise TypeError("a process alone receives nothing")

    def agree(self, rate: float | None, *, short: bool) -> Agreement:
        """Meet before a step changes the weights.

        Parameters
        ----------
        rate : float or None
            Learning rate; that of the first process counts, and others give None.
        short : bool
            Whether memory ran out here.

        Raises
        ------
        OtherProcessError
            If another process failed, or is to stop.
        DismissedError
            If the first process ends the run.
        """
        return Agreement(rate or 0.0, short)

    def summing(self, tensors: Sequence[Tensor]) -> Callable[[], None]:  # noqa: ARG002
        """Prepare to replace tensors by their sums over all processes.

        Parameters
        ----------
        tensors : sequence of Tensor
            float32, of the same shapes in all processes. They are read now.

        Returns
        -------
        Callable
            Does it; needs no more memory.
        """
        return _nothing

    def dismiss(self) -> None:
        """Tell the others that the run is at its end."""


class DismissedError(Exception):
    """The run is at its end: there is no further step for this process to help with."""


class _Word(IntEnum):
    """What a process says at a meeting."""

    GOES_ON = 0
    LACKS_MEMORY = 1
    DISMISSES = 2
    LEAVES = 3


class _Heard(NamedTuple):
    word: _Word
    number: float


class JoinedTeam(Team):
    """One of several processes, connected by `torch.distributed`.

    Gradients go from device to device (NCCL between GPUs, gloo on CPUs). What is said at
    meetings goes from processor to processor, so that no GPU has to be waited for.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self._local_size = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        self._talk = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def device(self, asked: str) -> str:
        """Return the GPU with the number that this process has on its machine, or the CPU.

        Raises
        ------
        ValueError
            If one single GPU was asked for, or Apple's.
        DeviceUnavailableError
            If there are fewer GPUs than processes.
        """
        if asked == "cpu":
            return asked
        if asked not in {"auto", "cuda"}:
            raise ValueError(
                f"device {asked!r} is a single one, and {self.size} processes train together; "
                "leave it out, or choose 'cuda' or 'cpu'"
            )
        if self._local_rank >= (there := torch.cuda.device_count()):
            raise DeviceUnavailableError(
                f"{self._local_size} processes train on this computer and each needs an NVIDIA "
                f"GPU of its own, of which there are {there}: start as many as there are GPUs, "
                "or choose the device 'cpu'"
            )
        return f"cuda:{self._local_rank}"

    def words(self, device: str) -> str:
        """Describe the devices of all, of which each is like this one."""
        return f"{self.size} x {device}"

    def beside(self, device: torch.device) -> int:
        """Return how many processes share the memory of this one's device."""
        return self._local_size if device.type == "cpu" else 1

    def least(self, number: int) -> int:
        """Return the smallest of the numbers that the processes give."""
        return int(min(heard.number for heard in self._meet(_Word.GOES_ON, number)))

    def hand_out(self, make: Callable[[], Any]) -> None:
        """Give the others, who `receive` it, what `make` returns."""
        self._broadcast(make())

    def receive(self) -> Any:
        """Return what the first process hands out."""
        return self._broadcast(None)

    def agree(self, rate: float | None, *, short: bool) -> Agreement:
        """Meet before a step changes the weights; see `Team.agree`."""
        heard = self._meet(_Word.LACKS_MEMORY if short else _Word.GOES_ON, rate or 0.0)
        if heard[0].word is _Word.DISMISSES:
            raise DismissedError
        return Agreement(heard[0].number, any(one.word is _Word.LACKS_MEMORY for one in heard))

    def summing(self, tensors: Sequence[Tensor]) -> Callable[[], None]:
        """Prepare to replace tensors by their sums over all processes; see `Team.summing`."""
        # In one piece: hundreds of small ones would mostly wait for each other.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        parts = flat.split([tensor.numel() for tensor in tensors])

        def add_up() -> None:
            with self._connection():
                dist.all_reduce(flat)
            summed = [part.view_as(own) for part, own in zip(parts, tensors, strict=True)]
            torch._foreach_copy_(list(tensors), summed)

        return add_up

    def dismiss(self) -> None:
        """Tell the others that the run is at its end."""
        self._meet(_Word.DISMISSES)

    def leave(self, error: BaseException | None) -> None:
        """Go, as soon as all others go too.

        Parameters
        ----------
        error : BaseException or None
            Why; the others hear of it.
        """
        known = error is None or isinstance(error, OtherProcessError)
        reason = None if known else str(error) or type(error).__name__
        leaving = False
        while not leaving and not self.lost:
            try:
                heard = self._meet(_Word.LEAVES, reason=reason)
            except OtherProcessError:  # `lost` says that they cannot be reached
                return
            leaving = all(one.word is _Word.LEAVES for one in heard)

    def _broadcast(self, value: Any) -> Any:
        self._meet(_Word.GOES_ON)
        values = [value]
        with self._connection():
            dist.broadcast_object_list(values, 0, group=self._talk)
        return values[0]

    def _meet(self, word: _Word, number: float = 0.0, *, reason: str | None = None) -> list[_Heard]:
        """Hear what all say; where one leaves, this process has to, too."""
        mine = torch.tensor([word, number], dtype=torch.float64)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        with self._connection():
            dist.all_gather(everyone, mine, group=self._talk)
        said = (tensor.tolist() for tensor in everyone)
        heard = [_Heard(_Word(int(spoken)), value) for spoken, value in said]
        if any(one.word is _Word.LEAVES for one in heard):
            self._hear_why(reason, leaves=word is _Word.LEAVES)
        return heard

    def _hear_why(self, reason: str | None, *, leaves: bool) -> None:
        reasons: list[tuple[str, str | None]] = [("", None)] * self.size
        with self._connection():
            dist.all_gather_object(reasons, (socket.gethostname(), reason), group=self._talk)
        if leaves:
            return
        for rank, (host, why) in enumerate(reasons):
            if why is not None:
                raise OtherProcessError(f"process {rank} of {self.size} ({host}): {why}")
        raise OtherStoppedError("another process of this run was asked to stop")

    @contextmanager
    def _connection(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no class for all of them
            self.lost = True
            raise OtherProcessError(
                f"process {self.rank} of {self.size} ({socket.gethostname()}) lost the connection "
                "to another one, which was probably killed, for instance because memory ran out: "
                f"see what it or the system said last, and resume the run ({_in_short(error)})"
            ) from error


def is_member() -> bool:
    """Return whether this process is one of several that `torchrun` or its like has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined() -> Iterator[Team]:
    """Join the processes that train together, where this is one of several.

    A context manager: all leave its block together. Where one leaves it early, by an
    error for instance, the others get an error at their next meeting.

    Yields
    ------
    Team
        For `pretrain` and `finetune`.

    Raises
    ------
    OtherProcessError
        If the others cannot be reached.
    """
    if not is_member():
        yield Team()
        return
    dist.init_process_group()
    team = JoinedTeam()
    try:
        yield team
    except KeyboardInterrupt:
        team.lost = True  # at once, without a word: the others notice it
        raise
    except BaseException as error:
        team.leave(error)
        raise
    else:
        team.leave(None)
    finally:
        if not team.lost:  # it would wait for them
            dist.destroy_process_group()


def _in_short(error: BaseException) -> str:
    """Return the first line of a message of torch, without the place in its sources."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+\] ", "", line).partition(". ")[0]


def _nothing() -> None:
    """Add up nothing: the sums of one process are its own numbers."""
