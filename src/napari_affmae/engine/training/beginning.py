"""What both trainings do before their first step."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.data import ImageSource
from napari_affmae.engine.compute.device import DevicePlan, plan_device
from napari_affmae.engine.compute.distributed import Team
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.events import Notice
from napari_affmae.engine.inference.fitting import Subject, automatic_origin
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size
from napari_affmae.engine.store.records import DATA, VALIDATION_PLANES
from napari_affmae.engine.store.run_folder import Kind, RunFolder, read_record
from napari_affmae.engine.store.starting_weights import (
    AUTO,
    Origin,
    Start,
    find_origin,
    origin_of,
)
from napari_affmae.engine.training.image_memory import PoolPlan, plan_pool
from napari_affmae.engine.training.resuming import describe, note_changes
from napari_affmae.engine.training.steps.batch import BatchPlan, plan_batch


@dataclass(frozen=True)
class Beginning:
    """What a run starts from, or goes on with.

    Attributes
    ----------
    folder : RunFolder
        The run's folder; open.
    config : PretrainConfig or FinetuneConfig
        The settings to train with.
    plan : DevicePlan
        Where the run computes.
    place : PoolPlan
        Where decoded images lie.
    stored : Mapping[str, Any] or None
        Record of the run that goes on; None for a new one.
    team : Team
        The processes that train together.
    """

    folder: RunFolder
    config: PretrainConfig | FinetuneConfig
    plan: DevicePlan
    place: PoolPlan
    stored: Mapping[str, Any] | None
    team: Team

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        config: PretrainConfig | FinetuneConfig,
        team: Team,
        *,
        resume: bool,
    ) -> Self:
        """Look at the device and, where a run goes on, at its record."""
        plan = plan_device(team.device(config.device), config.precision)
        stored = _stored(folder.path) if resume else None
        place = plan_pool(plan, config.memory_share, stored, team)
        return cls(folder, config, plan, place, stored, team)

    @property
    def runtime(self) -> Runtime:
        """Where the run computes, at work."""
        return Runtime(self.plan, self.team)

    def origin(self, key: str, start: Start, images: Sequence[ImageSource]) -> Origin:
        """Find what a new run starts from, or what the run that goes on has started from.

        Parameters
        ----------
        key : {"start", "pretrained"}
            Where the record says so.
        start : Start
            What was asked for, for a new run.
        images : sequence of ImageSource
            What the run learns from.
        """
        if self.stored is not None:
            return origin_of(self.stored, key)
        size, channels = self.config.preset, self.config.in_channels
        if start != AUTO or not images:
            return find_origin(start, size, channels)
        subject = Subject(images[0].name, channels, common_pixel_size(images))
        return automatic_origin(self.folder.path.parent, size, subject)

    def plan_batch(self, kind: Kind, preset: str) -> BatchPlan:
        """Settle on the batch; that of the run that goes on is kept.

        Raises
        ------
        ValueError
            If the team cannot split it evenly.
        """
        size = self.config.batch if self.stored is None else self.stored["batch"]
        batch = plan_batch(size, self.config.crop, preset, kind, self.plan)
        return batch.split(self.team.size)

    def record(
        self,
        kind: Kind,
        origin: Origin,
        batch: BatchPlan,
        sources: Iterable[ImageSource],
        facts: Callable[[], Mapping[str, Any]],
    ) -> Generator[Notice, None, None]:
        """Write the record of a new run, or that it goes on; the first process does.

        Parameters
        ----------
        kind : {"pretrain", "finetune"}
            What the run does.
        origin : Origin
            What it starts from.
        batch : BatchPlan
            Crops of a step.
        sources : iterable of ImageSource
            All images and labels.
        facts : Callable
            Gives what else a new run has decided.

        Yields
        ------
        Notice
            What a new run starts from; of a run that goes on, whether its data have changed.
        """
        if not self.team.leads:
            return
        data = describe(sources)
        if self.stored is None:
            known = {"batch": batch.batch, "pool": self.place.capacity, "data": data}
            self.folder.write_record(kind, self.config, {**facts(), **known})
            yield Notice(origin.words, "info")
        else:
            if not DATA.is_same(self.stored["data"], data):
                before = DATA.read(self.folder.path, self.stored["data"])
                yield from note_changes(before, data)
            self.folder.note_resumed(self.config, data)


def _stored(run: Path) -> dict[str, Any]:
    """Read the record of a run that goes on, and the list beside it that training needs."""
    record = read_record(run)
    if (planes := record.get("validation_planes")) is not None:
        record["validation_planes"] = VALIDATION_PLANES.read(run, planes)
    return record
