"""The loop that pretraining and fine-tuning share."""

import logging
import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from napari_affmae.data import iterate_batches
from napari_affmae.engine.compute.device import is_out_of_memory
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.timing import Pace, Stopwatch
from napari_affmae.engine.events import (
    CheckpointSaved,
    Event,
    MicroBatchHalved,
    PreviewReady,
    RunFinished,
    RunStarted,
    StepDone,
    Validated,
)
from napari_affmae.engine.store.checkpoints import (
    MODEL_FILE,
    OPTIMIZER_FILE,
    checkpoint_path,
)
from napari_affmae.engine.store.model_files import load_weights, model_bytes
from napari_affmae.engine.store.previews import save_preview
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.store.run_length import Length
from napari_affmae.engine.store.run_state import Best, RunState
from napari_affmae.engine.store.tensors import read_tensors, tensor_bytes
from napari_affmae.engine.training.batch import BatchPlan
from napari_affmae.engine.training.optimiser import load_state_tensors, state_tensors
from napari_affmae.engine.training.schedule import learning_rate
from napari_affmae.engine.training.stepper import Stepper
from napari_affmae.engine.training.task import Task, to_tensors
from napari_affmae.errors import OutOfMemoryError, UnreadableFileError
from napari_affmae.files import replace_bytes

logger = logging.getLogger(__name__)

# After these the weights are those of the last whole step, worth a checkpoint.
_RESUMABLE = (GeneratorExit, KeyboardInterrupt, UnreadableFileError)


class Training:
    """One run of a task in a run folder.

    Parameters
    ----------
    task : Task
        What is learned.
    run : RunFolder
        Where it is recorded; open.
    runtime : Runtime
        Where it is computed.
    batch : BatchPlan
        How many crops a step takes.
    """

    def __init__(self, task: Task, run: RunFolder, runtime: Runtime, batch: BatchPlan) -> None:
        self._task = task
        self._run = run
        self._runtime = runtime
        self._config = task.config
        self._length = Length.of(task.config)
        self._stepper = Stepper(task, runtime, batch)
        self._pace = Pace()
        self._at = RunState.start()
        self._kept = self._at
        self._clock = Stopwatch()
        self._validated: Validated | None = None

    def load_latest(self) -> None:
        """Go on from the run's last checkpoint, if it has one.

        Raises
        ------
        CheckpointError
            If it is damaged or does not fit the network.
        """
        path = self._run.latest()
        if path is not None:
            self._at = self._kept = RunState.read(path)
            load_weights(self._task.module, path / MODEL_FILE)
            optimiser = read_tensors(path / OPTIMIZER_FILE)
            load_state_tensors(self._task.module, self._stepper.optimiser, optimiser)
            self._runtime.load_scaler(self._at.scaler)
            self._clock = Stopwatch(self._at.elapsed)
        self._run.cut_metrics(self._at.step, self._at.validated or 0)

    def events(self) -> Generator[Event, None, None]:
        """Train to the end of the run; closing it leaves a checkpoint.

        Yields
        ------
        Event
            At least one a step.

        Raises
        ------
        DivergedError
            The loss is no longer finite.
        OutOfMemoryError
            Not even one crop fits.
        DiskFullError
            A checkpoint cannot be written.
        UnreadableFileError
            A file broke while it was read.
        """
        self._clock.start()
        try:
            with closing(self._guarded()) as events:
                for event in events:
                    self._clock.stop()
                    yield event
                    self._clock.start()
        finally:
            # Whoever drove the run may keep the generator, or the error that ended it.
            self._stepper.release()

    def _guarded(self) -> Generator[Event, None, None]:
        try:
            yield self._started()
            yield from self._runtime.first_pass()
            yield from self._train()
        except _RESUMABLE:
            if self._stepper.updating:
                logger.warning("interrupted while the weights changed; no checkpoint was written")
            elif self._unsaved:
                self._save()
            raise

    def _started(self) -> RunStarted:
        batch = self._stepper.batch
        return self._runtime.started(
            self._task.module,
            batch.batch,
            batch.micro_batch,
            step=self._at.step,
            total_steps=self._length.steps,
        )

    def _train(self) -> Generator[Event, None, None]:
        size = self._stepper.batch.batch
        batches = iterate_batches(self._task.crops, size, self._at.step, self._config.workers)
        with closing(batches):
            # What is due after a step is done before the next one, and not right after
            # it, so that a run stopped in between makes up for it when it is resumed.
            while True:
                yield from self._task.follow()
                over = self._length.over(self._at.step, self._clock.elapsed)
                yield from self._measure_with_room(last=over)
                waited = self._clock.elapsed - self._kept.elapsed
                due = waited >= 60 * self._config.checkpoint_minutes
                if (over or due) and self._unsaved:
                    yield self._save()
                if over:
                    break
                yield from self._make_step(batches)
        yield self._export()

    def _make_step(self, batches: Iterator[Any]) -> Generator[Event, None, None]:
        step, started = self._at.step + 1, self._clock.elapsed
        progress = self._length.progress(step, started)
        config = self._config
        rate = learning_rate(
            progress, config.learning_rate, config.min_learning_rate, config.warmup
        )
        batch = self._task.prepare(to_tensors(next(batches)), step)
        while (measured := self._stepper.make(batch, step, rate)) is None:
            yield self._note_halved(step)
        self._at = self._at.moved(step=step)
        self._pace.add(self._clock.elapsed - started)
        yield self._note_step(batch, rate, measured.loss, measured.losses, measured.gradient_norm)

    def _note_halved(self, step: int) -> MicroBatchHalved:
        plan = self._stepper.batch
        self._run.append_metrics(
            {"event": "micro_batch", "step": step, "micro_batch": plan.micro_batch}
        )
        return MicroBatchHalved(step, plan.micro_batch, plan.accumulate)

    def _note_step(
        self,
        batch: tuple[Tensor, ...],
        rate: float,
        loss: float,
        losses: Mapping[str, float],
        gradient_norm: float | None,
    ) -> StepDone:
        step, elapsed, seconds = self._at.step, self._clock.elapsed, self._pace.seconds_per_step
        line = {"loss": loss, "losses": dict(losses), "learning_rate": rate}
        self._run.append_metrics(
            {"event": "step", "step": step, **line, "gradient_norm": gradient_norm}
        )
        return StepDone(
            step=step,
            total_steps=self._length.total_steps(step, elapsed, seconds),
            loss=loss,
            learning_rate=rate,
            images_per_second=len(batch[0]) / seconds if seconds else 0.0,
            seconds_left=self._length.seconds_left(step, elapsed, seconds),
            losses=losses,
            gradient_norm=gradient_norm,
        )

    def _measure_with_room(self, *, last: bool) -> Generator[Event, None, None]:
        """Do `_measure`; where memory runs out, once more without that of the recorded passes."""
        try:
            yield from self._measure(last=last)
            return
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            ran_out = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
            if not ran_out or not self._stepper.release():
                raise
        yield from self._measure(last=last)

    def _measure(self, *, last: bool) -> Generator[Event, None, None]:
        """Validate and preview where that is due at this step and not done yet."""
        step = self._at.step
        if self._at.validated != step and self._due(self._task.validation_steps, last):
            validated = yield from self._task.validate(self._runtime, step)
            self._at = self._at.moved(validated=step)
            if validated is not None:
                yield from self._note_validation(validated)
        if self._at.previewed != step and self._due(self._task.preview_steps, last):
            images = self._task.preview(self._runtime)
            self._at = self._at.moved(previewed=step)
            if images is not None:
                path = save_preview(self._run.previews, step, images)
                yield PreviewReady(step, images, path)

    def _due(self, every: int, last: bool) -> bool:
        step = self._at.step
        return step > 0 and (last or step % every == 0)

    def _note_validation(self, validated: Validated) -> Generator[Event, None, None]:
        score = self._task.score(validated)
        best = self._at.best
        is_best = score is not None and (best is None or score > best.score)
        validated = replace(validated, best=is_best)
        self._validated = validated
        line = {key: _plain(value) for key, value in asdict(validated).items()}
        self._run.append_metrics({"event": "validation", **line})
        if is_best:
            self._at = self._at.moved(best=Best(step=validated.step, score=score))
        yield validated
        if is_best:
            yield self._save()

    @property
    def _unsaved(self) -> bool:
        """Whether the last checkpoint lacks a step or a validation; previews can be drawn again."""
        at, kept = self._at, self._kept
        return (at.step, at.validated) != (kept.step, kept.validated)

    def _save(self) -> CheckpointSaved:
        """Write a checkpoint of the current step."""
        self._stepper.check_weights(self._at.step)
        self._at = self._at.moved(elapsed=self._clock.elapsed, scaler=self._runtime.scaler)
        step, best = self._at.step, self._at.best
        validated = self._validated if self._at.validated == step else None
        path = self._run.save(
            step,
            model_bytes(self._task.module, self._task.metadata(step, validated)),
            tensor_bytes(state_tensors(self._task.module, self._stepper.optimiser)),
            self._at.model_dump(),
            best.step if best else None,
        )
        self._kept = self._at
        return CheckpointSaved(step, path)

    def _export(self) -> RunFinished:
        """Copy the model of the best, else the last checkpoint to the run's top."""
        best = self._at.best
        step = self._at.step if best is None else best.step
        source = checkpoint_path(self._run.checkpoints, step) / MODEL_FILE
        replace_bytes(self._run.model, source.read_bytes())
        return RunFinished(self._at.step, self._run.model)


def _plain(value: Any) -> Any:
    """Make a value JSON; NaN and infinity, which JSON does not have, become null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
