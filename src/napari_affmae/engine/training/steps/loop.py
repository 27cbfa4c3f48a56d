"""The loop that pretraining and fine-tuning share."""

import logging
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from napari_affmae.engine.compute.device import is_out_of_memory
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.timing import Pace, Spacing, Stopwatch
from napari_affmae.engine.events import (
    CheckpointSaved,
    Event,
    MicroBatchHalved,
    Notice,
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
from napari_affmae.engine.training.steps.optimiser import state_tensors
from napari_affmae.engine.training.steps.pool_watch import PoolWatch
from napari_affmae.engine.training.steps.schedule import learning_rate
from napari_affmae.engine.training.steps.stepper import Launched, Measured, Stepper
from napari_affmae.engine.training.steps.task import Task
from napari_affmae.errors import (
    DivergedError,
    OtherProcessError,
    OutOfMemoryError,
    SystemLimitError,
    UnreadableFileError,
)
from napari_affmae.files import replace_bytes

logger = logging.getLogger(__name__)

# After these the weights are those of the last whole step, worth a checkpoint.
_RESUMABLE = (
    GeneratorExit,
    KeyboardInterrupt,
    UnreadableFileError,
    SystemLimitError,
    OtherProcessError,
)
#: Steps that a GPU makes while the host looks at the one before.
AHEAD = 2
# What is done beside the steps takes at most these shares of the time.
_VALIDATION_SHARE = 0.01
_PREVIEW_SHARE = 0.005
_VALIDATION_SECONDS = 10.0
_PREVIEW_SECONDS = 20.0
_PREVIEW_GROWTH = 0.1
_POOL_SECONDS = 20.0
# Above this share of the time, waiting for images is worth a word.
_WAITING = 0.2


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

    Attributes
    ----------
    stepper : Stepper
        The network on its device.
    """

    def __init__(self, task: Task, run: RunFolder, runtime: Runtime) -> None:
        self._task = task
        self._run = run
        self._runtime = runtime
        self._config = task.config
        self._length = Length.of(task.config)
        self.stepper = Stepper(task, runtime)
        self._pace = Pace()
        self._at = RunState.start()
        self._kept = self._at
        self._clock = Stopwatch()
        self._validated: Validated | None = None
        self._launched: deque[_Flight] = deque()
        self._validations = Spacing(_VALIDATION_SECONDS, _VALIDATION_SHARE)
        self._previews = Spacing(_PREVIEW_SECONDS, _PREVIEW_SHARE, _PREVIEW_GROWTH)
        self._pool = PoolWatch(task.crops.pool, _POOL_SECONDS, _WAITING)
        self._judged = False

    @property
    def step(self) -> int:
        """Steps made."""
        return self._at.step

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
            self.stepper.updater.load(self._task.module, optimiser, self._at.scaler)
            self._clock = Stopwatch(self._at.elapsed)
        self._task.recall(self._run.cut_metrics(self._at.step, self._at.validated))

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
            self.stepper.release()

    def _guarded(self) -> Generator[Event, None, None]:
        try:
            yield self._started()
            yield from self._runtime.first_pass()
            yield from self._train()
        except _RESUMABLE:
            if self.stepper.updating:
                logger.warning("interrupted while the weights changed; no checkpoint was written")
            elif self._unsaved:
                self._rescue()
            raise

    def _rescue(self) -> None:
        """Leave a checkpoint of a run that is being stopped."""
        try:
            for _ in self._collect(leave=0):
                pass
            self._save()
        except DivergedError as error:
            logger.warning("no checkpoint was written: %s", error)

    def _started(self) -> RunStarted:
        batch = self.stepper.batch
        return self._runtime.started(
            self._task.module,
            batch.batch,
            batch.micro_batch,
            step=self._at.step,
            total_steps=self._length.steps,
        )

    def _train(self) -> Generator[Event, None, None]:
        # The first validation in training can wait; the first picture comes at once.
        self._validations.wait(self._clock.elapsed)
        # What is due after a step is done before the next one, and not right after
        # it, so that a run stopped in between makes up for it when it is resumed.
        while True:
            yield from self._task.follow()
            over = self._length.over(self._at.step, self._clock.elapsed)
            yield from self._measure_with_room(last=over)
            waited = self._clock.elapsed - self._kept.elapsed
            due = waited >= 60 * self._config.checkpoint_minutes
            if (over or due) and self._unsaved:
                yield from self._collect(leave=0)
                yield self._save()
            if over:
                break
            yield from self._make_step()
        conclusion = self._task.conclude()
        if conclusion is not None:
            yield Notice(conclusion, "info")
        yield self._export()

    def _make_step(self) -> Generator[Event, None, None]:
        step, started = self._at.step + 1, self._clock.elapsed
        config, size = self._config, self._task.batch.batch
        rate = learning_rate(
            self._length.progress(step, started),
            config.learning_rate,
            config.min_learning_rate,
            config.warmup,
        )
        first, waited = (step - 1) * size, self._task.crops.pool.state.waited
        for _ in self._task.crops.advance(first):
            yield self._pool.event(self._at.step)
        waited = self._task.crops.pool.state.waited - waited
        plan = self._task.crops.plan(*self.stepper.share(first))
        is_warm = self.stepper.is_warm
        while (launched := self.stepper.launch(plan, step, rate)) is None:
            yield self._note_halved(step)
        self._at = self._at.moved(step=step)
        self._launched.append(_Flight(launched, rate, waited))
        if is_warm:
            yield from self._collect(leave=AHEAD)
            self._pace.add(self._clock.elapsed - started)
        else:
            self._pace.add(self._clock.elapsed - started)
            yield from self._collect(leave=0)
            # Kernels were compiled, a step recorded, images read: no time to learn in.
            self._clock.discount(self._clock.elapsed - started)
        yield from self._pool.look(step, self._clock.elapsed, self._run)
        yield from self._judge_length()

    def _note_halved(self, step: int) -> MicroBatchHalved:
        plan = self.stepper.batch
        self._run.append_metrics(
            {"event": "micro_batch", "step": step, "micro_batch": plan.micro_batch}
        )
        return MicroBatchHalved(step, plan.micro_batch, plan.accumulate)

    def _collect(self, leave: int) -> Generator[Event, None, None]:
        """Report the steps that are done, waiting for all but the last `leave`."""
        while self._launched:
            if len(self._launched) <= leave and not self._launched[0].launched.is_done:
                break
            flight = self._launched.popleft()
            yield self._note_step(flight, self.stepper.read(flight.launched))

    def _note_step(self, flight: "_Flight", measured: Measured) -> StepDone:
        step, elapsed = flight.launched.step, self._clock.elapsed
        seconds = self._pace.seconds_per_step
        self._run.append_metrics(
            {
                "event": "step",
                "step": step,
                "loss": measured.loss,
                "losses": dict(measured.losses),
                "learning_rate": flight.rate,
                "gradient_norm": measured.gradient_norm,
            }
        )
        return StepDone(
            step=step,
            total_steps=self._length.total_steps(step, elapsed, seconds),
            loss=measured.loss,
            learning_rate=flight.rate,
            images_per_second=self._task.batch.batch / seconds if seconds else 0.0,
            seconds_left=self._length.seconds_left(step, elapsed, seconds),
            losses=measured.losses,
            gradient_norm=measured.gradient_norm,
            seconds_waited=flight.waited,
        )

    def _judge_length(self) -> Generator[Event, None, None]:
        """Say once, as soon as steps were timed, when a run is too short to be worth it."""
        seconds, step = self._pace.seconds_per_step, self._at.step
        if self._judged or not self._pace.is_settled:
            return
        self._judged = True
        total = self._length.total_steps(step, self._clock.elapsed, seconds)
        if total is not None and seconds is not None:
            crops = self._task.batch.batch * total
            advice = self._task.judge_length(crops, seconds / self._task.batch.batch)
            if advice is not None:
                yield Notice(advice)

    def _measure_with_room(self, *, last: bool) -> Generator[Event, None, None]:
        """Do `_measure`; where memory runs out, once more without that of the recorded step."""
        try:
            yield from self._measure(last=last)
            return
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            ran_out = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
            if not ran_out or not self.stepper.release():
                raise
        yield from self._measure(last=last)

    def _measure(self, *, last: bool) -> Generator[Event, None, None]:
        """Validate and preview where that is due at this step and not done yet."""
        step = self._at.step
        if self._at.validated != step and self._validation_is_due(last=last):
            yield from self._collect(leave=0)
            started = self._clock.elapsed
            validated = yield from self._task.validate(self._runtime, step)
            self._at = self._at.moved(validated=step)
            if validated is not None:
                yield from self._note_validation(validated)
            self._settle(self._validations, started)
        if self._at.previewed != step and self._preview_is_due(last=last):
            yield from self._collect(leave=0)
            started = self._clock.elapsed
            images = self._task.preview(self._runtime)
            self._at = self._at.moved(previewed=step)
            if images is not None:
                path = save_preview(self._run.previews, step, images)
                yield PreviewReady(step, images, path)
            self._settle(self._previews, started)

    def _settle(self, spacing: Spacing, started: float) -> None:
        """Note that something beside the steps is done; before them it is no time to learn in."""
        seconds = self._clock.elapsed - started
        if not self.stepper.is_warm:
            self._clock.discount(seconds)
        spacing.done(self._clock.elapsed, seconds)

    def _validation_is_due(self, *, last: bool) -> bool:
        every, step = self._config.validation_steps, self._at.step
        if step == 0 or last:
            return last or self._task.measures_start
        if every == "auto":
            return self._validations.is_due(self._clock.elapsed)
        return step % every == 0

    def _preview_is_due(self, *, last: bool) -> bool:
        """Whether it is time: at once, and from then on now and then."""
        return last or self._previews.is_due(self._clock.elapsed)

    def _note_validation(self, validated: Validated) -> Generator[Event, None, None]:
        score = self._task.score(validated)
        best = self._at.best
        is_best = score is not None and (best is None or score > best.score)
        validated = replace(validated, best=is_best)
        self._validated = validated
        self._run.append_metrics({"event": "validation", **asdict(validated)})
        if is_best:
            self._at = self._at.moved(best=Best(step=validated.step, score=score))
        yield validated
        if is_best:
            yield self._save()

    @property
    def _unsaved(self) -> bool:
        """Whether steps, or a validation after them, are in no checkpoint; previews need none."""
        at, kept = self._at, self._kept
        return at.step > 0 and (at.step, at.validated) != (kept.step, kept.validated)

    def _save(self) -> CheckpointSaved:
        """Write a checkpoint of the current step."""
        self.stepper.check_weights(self._at.step)
        scaler = self.stepper.updater.scaler
        self._at = self._at.moved(elapsed=self._clock.elapsed, scaler=scaler)
        step, best = self._at.step, self._at.best
        validated = self._validated if self._at.validated == step else None
        path = self._run.save(
            step,
            model_bytes(self._task.module, self._task.metadata(step, validated)),
            tensor_bytes(state_tensors(self._task.module, self.stepper.updater.optimiser)),
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


@dataclass(frozen=True)
class _Flight:
    """A step that was launched, with its rate and the seconds that it waited for images."""

    launched: Launched
    rate: float
    waited: float
