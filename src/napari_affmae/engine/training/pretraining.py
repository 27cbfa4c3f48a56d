"""Masked-autoencoder pretraining."""

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_affmae.config import ModelConfig, PretrainConfig
from napari_affmae.data import (
    ImageSource,
    NormalizationRecord,
    NormalizedSource,
    PretrainCrops,
    check_sources,
    normalize_sources,
    split_planes,
)
from napari_affmae.engine.compute.device import plan_device
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.compute.seeds import Stream, derived_seed, generator, seeded
from napari_affmae.engine.events import Event, Notice, Validated
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.run_folder import RunFolder, read_record
from napari_affmae.engine.training.batch import plan_batch
from napari_affmae.engine.training.loop import Training
from napari_affmae.engine.training.resuming import describe, note_changes, settle_config
from napari_affmae.engine.training.task import Task, mean_loss, validation_crops
from napari_affmae.errors import DataError, UnreadableFileError
from napari_affmae.model import AFFMAE, preset
from napari_affmae.model.masking import draw_keys, draw_masks
from napari_affmae.model.patches import pad_to_patches, patchify, unpatchify

_PREVIEW_CROPS = 4


def pretrain(
    sources: Sequence[ImageSource],
    config: PretrainConfig | None,
    run: Path,
    *,
    resume: bool = False,
) -> Generator[Event, None, None]:
    """Pretrain a network on unlabelled images.

    Parameters
    ----------
    sources : sequence of ImageSource
        Images, all with the channels of the settings. Those that cannot be
        read are left out, with a notice.
    config : PretrainConfig or None
        Settings; see `starting.settle_config` for what may change in a resumed
        run. None resumes with the stored ones.
    run : Path
        Run folder; made where it does not exist.
    resume : bool
        Go on with the run in the folder.

    Yields
    ------
    Event
        `Notice`, `RunStarted`, `StepDone` and others, at last `RunFinished`.
        Closing the generator stops the run and leaves a checkpoint.

    Raises
    ------
    AffmaeError
        Its subclasses say what went wrong.
    ValueError
        If settings are wrong.
    """
    with RunFolder(Path(run)) as folder:
        config = settle_config(folder, "pretrain", config, resume=resume)
        plan = plan_device(config.device, config.precision)
        stored = read_record(folder.path) if resume else None
        size = config.batch if stored is None else stored["batch"]
        batch = plan_batch(size, config.crop, config.preset, "pretrain", plan)
        usable = yield from _usable(sources, config, batch.batch)
        normalized = yield from _normalize(usable, config, stored)
        data = describe(source.source for source in normalized)
        if stored is None:
            model = preset(config.preset, config.in_channels)
            record = NormalizationRecord.of(normalized)
            folder.write_record(
                "pretrain",
                config,
                {
                    "model": model.model_dump(mode="json"),
                    "batch": batch.batch,
                    "normalization": record.model_dump(mode="json"),
                    "data": data,
                },
            )
        else:
            yield from note_changes(stored["data"], data)
            model = ModelConfig.model_validate(stored["model"])
            folder.note_resumed(config, data)
        with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
            module = AFFMAE(model)
        task = Pretraining(config, module, normalized, batch.batch)
        if task.validation is None:
            yield Notice("there is no validation loss: one plane alone cannot be split", "info")
        training = Training(task, folder, Runtime(plan), batch)
        training.load_latest()
        yield from training.events()


def _usable(
    sources: Sequence[ImageSource], config: PretrainConfig, batch: int
) -> Generator[Event, None, list[ImageSource]]:
    """Check the images; tell what was found, and leave out those with errors."""
    for source in sources:
        if source.n_channels != config.in_channels:
            raise DataError(
                f"{source.name} has {source.n_channels} channels and the network is to take "
                f"{config.in_channels}; choose channels of the image, or set in_channels"
            )
    broken: set[ImageSource] = set()
    for finding in check_sources(sources, crop=config.crop, batch=batch):
        if finding.level == "error":
            broken.update(finding.sources)
            yield Notice(f"left out: {finding.message}", "warning", finding.source)
        else:
            yield Notice(finding.message, finding.level, finding.source)
    return [source for source in sources if source not in broken]


def _normalize(
    sources: Sequence[ImageSource], config: PretrainConfig, stored: Mapping[str, Any] | None
) -> Generator[Event, None, list[NormalizedSource]]:
    """Fit or recall the normalisation of each source; leave out what cannot be read."""
    record = None
    if stored is not None:
        record = NormalizationRecord.model_validate(stored["normalization"])
    normalized = []
    for source in sources:
        try:
            normalized += normalize_sources([source], config.normalization, record)
        except UnreadableFileError as error:
            yield Notice(f"left out: {error}", "warning", source.name)
    if not normalized:
        raise DataError("there is no image to train on: give at least one that can be read")
    return normalized


class Pretraining(Task):
    """A masked autoencoder and the crops it learns from.

    Parameters
    ----------
    config : PretrainConfig
        Settings.
    module : AFFMAE
        The network.
    sources : sequence of NormalizedSource
        Images.
    batch : int
        Crops of a step.

    Attributes
    ----------
    validation : PretrainCrops or None
        Crops of the planes that are kept out of training.
    """

    kind = "pretrain"

    def __init__(
        self,
        config: PretrainConfig,
        module: AFFMAE,
        sources: Sequence[NormalizedSource],
        batch: int,
    ) -> None:
        self.config: PretrainConfig = config
        self.module: AFFMAE = module
        self.validation_steps = config.validation_steps
        self.preview_steps = config.preview_steps
        self._sources = sources
        self._batch = batch
        self._told: set[int] = set()
        planes = [range(source.n_planes) for source in sources]
        training, validation = split_planes(planes, config.validation)
        self.crops: PretrainCrops = PretrainCrops(
            sources,
            config.crop,
            planes=training,
            augmentation=config.augmentation,
            seed=config.seed,
        )
        self.validation = self._fixed_crops(validation) if any(validation) else None

    def _fixed_crops(self, planes: Sequence[Sequence[int]] | None) -> PretrainCrops:
        seed = derived_seed(self.config.seed, Stream.VALIDATION)
        return PretrainCrops(self._sources, self.config.crop, planes=planes, seed=seed)

    def follow(self) -> Generator[Event, None, None]:
        """Tell of images that broke, and are left out; see `Task.follow`."""
        broken = dict(self.crops.left_out)
        if self.validation is not None:
            broken |= self.validation.left_out
        for number in broken.keys() - self._told:
            self._told.add(number)
            name = self._sources[number].name
            yield Notice(f"left out from now on: {broken[number]}", "warning", name)

    def prepare(self, batch: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
        """Add masks to images; see `Task.prepare`."""
        return self._mask(batch[0], generator(self.config.seed, Stream.MASKS, step))

    def _mask(self, images: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        config = self.config
        masks = draw_masks(
            draw_keys(len(images), random), self._canvas, config.mask_ratio, config.mask
        )
        return images, *masks

    @property
    def _canvas(self) -> tuple[int, int]:
        cells = -(-self.config.crop // self.module.config.patch_size)
        return cells, cells

    def loss(
        self, network: Callable[..., Any], *batch: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Reconstruct hidden patches; see `Task.loss`."""
        output = network(*batch)
        return output.loss, output.losses

    @cached_property
    def _fixed_batch(self) -> tuple[Tensor, ...]:
        """The same crops and masks at every validation and preview, prepared once."""
        crops = self.validation or self._fixed_crops(None)
        try:
            samples = [crops.sample(index) for index in range(validation_crops(self._batch))]
        except UnreadableFileError:
            # No image that was held out can be read: `follow` names them, and what is
            # left serves the previews.
            if self.validation is None:
                raise
            crops = self._fixed_crops(None)
            samples = [crops.sample(index) for index in range(validation_crops(self._batch))]
        random = generator(self.config.seed, Stream.VALIDATION)
        return self._mask(torch.from_numpy(np.stack(samples)), random)

    def validate(self, runtime: Runtime, step: int) -> Generator[Event, None, Validated | None]:
        """Compute the loss of the same masked crops of held-out planes."""
        yield from ()
        if self.validation is None:
            return None
        return Validated(step, mean_loss(self, runtime, self._fixed_batch))

    def preview(self, runtime: Runtime) -> Mapping[str, NDArray[np.float32]]:
        """Reconstruct the same few crops; the first channel is shown."""
        batch = tuple(tensor[:_PREVIEW_CROPS] for tensor in self._fixed_batch)
        images, _, ids_masked = batch
        with evaluating(self.module), runtime.computing():
            crops = zip(*(tensor.split(1) for tensor in batch), strict=True)
            outputs = [self.module(*runtime.to_device(crop)) for crop in crops]
        predicted = torch.cat([output.predictions["res2"].float().cpu() for output in outputs])
        patch = self.module.config.patch_size
        height, width = images.shape[-2:]
        padded = pad_to_patches(images, patch)
        patches = patchify(padded, patch)
        index = ids_masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1])

        def picture(hidden: Tensor) -> NDArray[np.float32]:
            filled = patches.scatter(1, index, hidden)
            image = unpatchify(filled, self._canvas, patch, images.shape[1])
            return image[:, 0, :height, :width].numpy()

        original = images[:, 0].numpy()
        masked = picture(torch.zeros_like(predicted))
        reconstruction = picture(predicted)
        return {
            "input": original,
            "masked": masked,
            "reconstruction": reconstruction,
            "error": np.abs(reconstruction - original),
        }

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata:
        """Describe the network; see `Task.metadata`."""
        training: dict[str, Any] = {
            "preset": self.config.preset,
            "steps": step,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "sources": [source.name for source in self._sources],
        }
        if validated is not None:
            training["validation_loss"] = validated.loss
        return ModelMetadata(
            kind="pretrain",
            model=self.module.config,
            normalization=NormalizationRecord.of(self._sources),
            crop=self.config.crop,
            pixel_size=common_pixel_size(item.source for item in self._sources),
            training=training,
        )
