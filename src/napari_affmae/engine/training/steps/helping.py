"""Training in one process or in several: the first one leads, the others help."""

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from napari_affmae.engine.compute.distributed import DismissedError
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Event, HelperStep
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.training.steps.loop import AHEAD, Training
from napari_affmae.engine.training.steps.optimiser import state_tensors
from napari_affmae.engine.training.steps.stepper import Launched, Stepper
from napari_affmae.engine.training.steps.task import Task


def train(task: Task, run: RunFolder, runtime: Runtime) -> Generator[Event, None, None]:
    """Train to the end of the run, from its last checkpoint if it has one.

    Parameters
    ----------
    task : Task
        What is learned.
    run : RunFolder
        Where it is recorded; open.
    runtime : Runtime
        Where it is computed, and by whom.

    Yields
    ------
    Event
        See `Training.events` and `Helper.events`.
    """
    team = runtime.team
    if not team.leads:
        yield from Helper(task, runtime).events()
        return
    training = Training(task, run, runtime)
    training.load_latest()
    team.hand_out(lambda: Start.of(task, training.stepper, training.step))
    yield from training.events()
    team.dismiss()


@dataclass(frozen=True)
class Start:
    """Where a run goes on: with the first process's weights, whatever a helper would have read."""

    step: int
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    scaler: Mapping[str, Any]

    @classmethod
    def of(cls, task: Task, stepper: Stepper, step: int) -> Self:
        """Collect it, in the memory of the processor."""
        weights = {name: value.cpu() for name, value in task.module.state_dict().items()}
        optimiser = state_tensors(task.module, stepper.updater.optimiser)
        return cls(step, weights, optimiser, stepper.updater.scaler)


class Helper:
    """The part of a process that another one leads: its share of each step.

    Which steps there are, and at which rate, it hears at the meetings; it neither
    validates nor writes.

    Parameters
    ----------
    task : Task
        What is learned.
    runtime : Runtime
        Where it is computed.
    """

    def __init__(self, task: Task, runtime: Runtime) -> None:
        self._task = task
        self._runtime = runtime
        self._stepper = Stepper(task, runtime)
        self._launched: deque[Launched] = deque()

    def events(self) -> Generator[Event, None, None]:
        """Help until the first process ends the run.

        Yields
        ------
        Event
            `HelperStep` at the start, after each step, and now and then while images are
            read; and `Notice` of images that are left out.

        Raises
        ------
        OtherProcessError
            Another process failed, or is to stop.
        OutOfMemoryError
            Not even one crop fits.
        UnreadableFileError
            A file broke while it was read.
        """
        start: Start = self._runtime.team.receive()
        self._task.module.load_state_dict(start.weights)
        self._stepper.updater.load(self._task.module, start.optimiser, start.scaler)
        step = start.step
        yield HelperStep(step)
        try:
            while True:
                yield from self._task.follow()
                yield from self._make_step(step + 1)
                step += 1
        except DismissedError:
            pass
        finally:
            self._stepper.release()

    def _make_step(self, step: int) -> Generator[Event, None, None]:
        crops, stepper = self._task.crops, self._stepper
        first = (step - 1) * stepper.batch.batch
        for _ in crops.advance(first):
            yield HelperStep(step - 1)
        plan = crops.plan(*stepper.share(first))
        while (launched := stepper.launch(plan, step, None)) is None:
            yield HelperStep(step - 1)
        self._launched.append(launched)
        while len(self._launched) > AHEAD:
            self._launched.popleft().read()
        yield HelperStep(step)
