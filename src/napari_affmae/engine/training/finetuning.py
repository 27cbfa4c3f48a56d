"""Fine-tuning for segmentation."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from affmae_kernels import CropPlan
from napari_affmae.config import AugmentationConfig, FinetuneConfig
from napari_affmae.data import (
    LabelEncoder,
    LabelledCrops,
)
from napari_affmae.engine.compute.device import telling_of_memory
from napari_affmae.engine.compute.distributed import Team
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.compute.seeds import Stream, derived_seed
from napari_affmae.engine.events import Event, Notice, Validated
from napari_affmae.engine.inference.evaluation import count_confusion
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size, note_pixel_sizes
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.store.metadata import ModelMetadata, learned_from, read_metadata
from napari_affmae.engine.store.seen_folder import open_run
from napari_affmae.engine.store.starting_weights import AUTO, Start
from napari_affmae.engine.training.beginning import Beginning
from napari_affmae.engine.training.class_weights import class_weights
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import (
    Labelled,
    Pairs,
    check_labelled,
    settle_classes,
)
from napari_affmae.engine.training.networks import segmenter_of
from napari_affmae.engine.training.resuming import settle_config
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.helping import train
from napari_affmae.engine.training.steps.optimiser import layer_scales
from napari_affmae.engine.training.steps.task import Task, mean_loss, middle, validation_crops
from napari_affmae.errors import DataError
from napari_affmae.model import AFFSegmenter
from napari_affmae.model.losses import segmentation_loss

_VALIDATION_TILES = 4
_VALIDATION_OVERLAP = 0.25
_PREVIEW_CROPS = 4
# The crops of validations and previews come from the first blocks that fit into it.
_FIXED_BYTES = 2**28


@telling_of_memory
def finetune(
    pairs: Pairs,
    config: FinetuneConfig | None,
    run: Path,
    *,
    validation: Pairs | None = None,
    pretrained: Start = AUTO,
    resume: bool = False,
    team: Team | None = None,
) -> Generator[Event, None, None]:
    """Train a segmentation network on labelled images.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels.
    config : FinetuneConfig or None
        Settings; see `resuming.settle_config` for what may change in a resumed
        run. None resumes with the stored ones.
    run : Path
        Run folder; made where it does not exist.
    validation : sequence of (ImageSource, ImageSource), optional
        Pairs to choose the best weights on; without them a share of the planes
        of `pairs` is kept out of training for it.
    pretrained : Start
        What to start from: weights that come with the program by their name, by default
        those of the preset, if they take the channels of the images, or a pretraining
        beside this run that is better (`fitting.to_start_from`); a model file or run
        folder; or None for random weights. Of a quickly
        trained model encoder and decoder are taken, not its head. Layer-wise
        decay of the learning rate applies to pretrained weights only: it keeps
        what the lower layers have learned, and random ones have learned nothing.
    resume : bool
        Go on with the run in the folder; `pretrained` no longer matters then.
    team : Team, optional
        The processes that train together, from `joined`; each makes the same call. This
        one alone by default.

    Yields
    ------
    Event
        `Notice`, `RunStarted`, `StepDone` and others, at last `RunFinished`.
        Closing the generator stops the run and leaves a checkpoint.

    Raises
    ------
    AffmaeError
        Its subclasses say what went wrong; a `DataError` names the pair.
    ValueError
        If settings are wrong.
    """
    team = team or Team()
    both = [*pairs, *(validation or ())]
    _refuse_painting(both, team)
    with open_run(Path(run), writes=team.leads) as folder:
        config = settle_config(folder, "finetune", config, resume=resume)
        begun = Beginning.of(folder, config, team, resume=resume)
        if not pairs:
            raise DataError("there is nothing to train on: give at least one labelled image")
        classes = settle_classes(both, config, begun.stored)
        origin = begun.origin("pretrained", pretrained, [image for image, _ in pairs])
        module, start = segmenter_of(folder, begun.stored, config, len(classes), origin)
        if begun.stored is None and origin.path is not None:
            trained = read_metadata(origin.path).pixel_size
            yield from note_pixel_sizes((image for image, _ in both), trained)
        batch = begun.plan_batch("finetune", start["preset"])
        yield from check_labelled(both, config, classes, batch.batch)
        data = Labelled.of(pairs, validation, config, classes, begun.stored)

        def facts() -> dict[str, Any]:
            return {
                **start,
                **learned_from([image.name for image, _ in both]),
                "classes": [item.model_dump(mode="json") for item in classes],
                "normalization": data.record.model_dump(mode="json"),
                "validation_planes": data.validation,
            }

        sources = [source for pair in both for source in pair]
        yield from begun.record("finetune", origin, batch, sources, facts)
        if not any(data.validation):
            yield Notice(
                "there is no validation set (one labelled plane alone cannot be split, or its "
                "share is 0): no scores are measured, and the last weights are kept instead of "
                "the best. Label a second plane and start again to have one"
            )
        with closing(Finetuning(config, module, data, start, batch, begun.place)) as task:
            yield from train(task, folder, begun.runtime)


def _refuse_painting(pairs: Pairs, team: Team) -> None:
    """Refuse labels that change while several processes train: each would see other ones."""
    painted = [labels.name for _, labels in pairs if labels.editable]
    if team.size > 1 and painted:
        raise DataError(
            f"the labels {painted[0]} can change while the run goes on, which one device alone "
            "can follow: train on one device, or save the labels to a file and train on that"
        )


class Finetuning(Task):
    """A segmentation network and the labelled crops it learns from.

    Parameters
    ----------
    config : FinetuneConfig
        Settings.
    module : AFFSegmenter
        The network.
    data : Labelled
        Images and labels.
    start : Mapping[str, Any]
        ``preset`` and ``pretrained`` of the run's record.
    batch : BatchPlan
        Crops of a step.
    place : PoolPlan
        Where decoded images lie.
    """

    kind = "finetune"

    def __init__(
        self,
        config: FinetuneConfig,
        module: AFFSegmenter,
        data: Labelled,
        start: Mapping[str, Any],
        batch: BatchPlan,
        place: PoolPlan,
    ) -> None:
        self.config: FinetuneConfig = config
        self.module: AFFSegmenter = module
        self._data = data
        self._start = start
        self.batch = batch
        self.crops: LabelledCrops = self._labelled_crops(
            data.training, config.seed, config.augmentation, place
        )
        self._weights = self._weigh()
        self._unknown_told: set[int] = set()
        shown = data.validation if any(data.validation) else data.training
        seed = derived_seed(config.seed, Stream.VALIDATION)
        small = replace(place, capacity=_FIXED_BYTES)
        self._fixed_crops = self._labelled_crops(shown, seed, None, small)
        self._fixed: tuple[Tensor, ...] | None = None
        self._predictor: Predictor | None = None
        self._scales = (
            {} if start["pretrained"] is None else layer_scales(module, config.layer_decay)
        )

    def _labelled_crops(
        self,
        planes: Sequence[Sequence[int]],
        seed: int,
        augmentation: AugmentationConfig | None,
        place: PoolPlan,
    ) -> LabelledCrops:
        return LabelledCrops(
            self._data.pairs,
            self.config.crop,
            self._data.classes,
            self.config.ignore_value,
            planes=planes,
            augmentation=augmentation,
            seed=seed,
            device=place.device,
            capacity=place.capacity,
        )

    def close(self) -> None:
        """End the threads that read images."""
        self.crops.pool.close()
        self._fixed_crops.pool.close()

    def _weigh(self) -> Tensor | None:
        return class_weights(self.config.class_weights, self.crops.survey.class_pixels)

    def rate_scale(self, name: str) -> float:
        """Lower the rate from block to block down; see `Task.rate_scale`."""
        return self._scales.get(name, 1.0)

    def follow(self) -> Generator[Event, None, None]:
        """Look at labels that were painted since the last step; see `Task.follow`."""
        if self.crops.refresh():
            self._weights = self._weigh()
        surveys = (self.crops.survey, self._fixed_crops.survey)
        unknown = set().union(*(survey.unknown_values for survey in surveys))
        if unknown - self._unknown_told:
            self._unknown_told |= unknown
            yield Notice(
                f"the label values {sorted(unknown)} were painted after the start and have no "
                "class in this run; they are ignored. Start a new run to learn them"
            )

    def cut(self, plan: CropPlan) -> tuple[Tensor, ...]:
        """Cut images and labels; see `Task.cut`."""
        return self.crops.cut(plan)

    def common(self) -> tuple[Tensor, ...]:
        """Return the weights of the classes, if they differ; see `Task.common`."""
        return () if self._weights is None else (self._weights,)

    def loss(
        self, network: Callable[..., Any], *batch: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Classify pixels; see `Task.loss`.

        The focal part is a mean over labelled pixels, so where crops differ in
        their number, accumulated micro-batches weigh crops, and not pixels, alike.
        """
        images, target, *common = batch
        weights = common[0] if common else None
        loss = segmentation_loss(network(images), target, weights, self.config.focal_gamma)
        return loss, {}

    @property
    def _fixed_batch(self) -> tuple[Tensor, ...]:
        """The same crops at every validation and preview, made anew where labels changed."""
        crops = self._fixed_crops
        if crops.refresh() or self._fixed is None:
            for _ in crops.advance(0):
                pass
            plan = crops.plan(0, validation_crops(self.batch.batch))
            device = crops.cut.pixels.device
            self._fixed = crops.cut(CropPlan(*(field.to(device) for field in plan)))
        return self._fixed

    def validate(self, runtime: Runtime, step: int) -> Generator[Event, None, Validated | None]:
        """Predict the held-out planes whole; the loss is that of fixed crops of them."""
        if not any(self._data.validation):
            return None
        loss = mean_loss(self, runtime, self._fixed_batch, self.batch.micro_batch)
        # Kept, since it records the passes that it makes often.
        predictor, self._predictor = self._predictor, None
        if predictor is None:
            predictor = Predictor(
                self.module, runtime, self.config.crop, _VALIDATION_OVERLAP, _VALIDATION_TILES
            )
        encoder = LabelEncoder(self._data.classes, self.config.ignore_value)
        confusion = yield from count_confusion(
            predictor, self._data.pairs, self._data.validation, encoder
        )
        self._predictor = predictor
        scores = confusion.scores([item.name for item in self._data.classes])
        return Validated(step, loss, scores.iou, scores.dice, scores.mean_iou, scores.mean_dice)

    def score(self, validated: Validated) -> float | None:
        """Choose the best by mean IoU; see `Task.score`."""
        mean_iou = validated.mean_iou
        return None if mean_iou is None or math.isnan(mean_iou) else mean_iou

    def preview(self, runtime: Runtime) -> Mapping[str, NDArray[np.float32]]:
        """Show the same few crops with labels (-1: not labelled) and predictions."""
        images, targets = (part[:_PREVIEW_CROPS] for part in self._fixed_batch)
        with evaluating(self.module), runtime.computing():
            predicted = self.module(images).argmax(1)
        pictures = {"input": images[:, 0], "label": targets.clamp(min=-1), "prediction": predicted}
        return {
            name: middle(picture.cpu().numpy().astype(np.float32))
            for name, picture in pictures.items()
        }

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata:
        """Describe the network; see `Task.metadata`."""
        training: dict[str, Any] = {
            "preset": self._start["preset"],
            "pretrained": self._start["pretrained"],
            "steps": step,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **learned_from([pair.image.name for pair in self._data.pairs]),
        }
        if validated is not None:
            training["mean_iou"] = validated.mean_iou
            training["iou"] = dict(validated.iou)
        return ModelMetadata(
            kind="segment",
            model=self.module.config,
            normalization=self._data.record,
            crop=self.config.crop,
            classes=self._data.classes,
            ignore_value=self.config.ignore_value,
            pixel_size=common_pixel_size(pair.image.source for pair in self._data.pairs),
            training=training,
        )
