"""Masked-autoencoder pretraining."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affmae_kernels import CropPlan
from napari_affmae.config import ModelConfig, PretrainConfig
from napari_affmae.data import (
    ImageSource,
    NormalizationRecord,
    NormalizedSource,
    PretrainCrops,
    check_sources,
    normalize_when_read,
    require_channels,
    split_planes,
)
from napari_affmae.data.crops.numbers import words
from napari_affmae.engine.compute.device import telling_of_memory
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.compute.seeds import Stream, derived_seed, seeded
from napari_affmae.engine.events import Event, Notice, Validated
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size
from napari_affmae.engine.store.metadata import ModelMetadata, learned_from
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.training.batch import BatchPlan
from napari_affmae.engine.training.beginning import Beginning
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.loop import Training
from napari_affmae.engine.training.resuming import settle_config
from napari_affmae.engine.training.task import Task, mean_loss, middle, validation_crops
from napari_affmae.engine.wording import duration
from napari_affmae.errors import DataError
from napari_affmae.model import AFFMAE, preset
from napari_affmae.model.masking import PERLIN_CELLS, draw_masks
from napari_affmae.model.patches import pad_to_patches, patchify, unpatchify

_PREVIEW_CROPS = 4
# 25,000 crops made no difference to later fine-tuning and a million did (benchmarks/README.md).
# This number lies between them by judgement, until the curve is measured.
WORTHWHILE_CROPS = 200_000


@telling_of_memory
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
        Settings; see `resuming.settle_config` for what may change in a resumed
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
        start = Beginning.of(folder, config, resume=resume)
        batch = start.plan_batch("pretrain", config.preset)
        usable = yield from _usable(sources, config, batch.batch)
        normalized = _normalize(usable, config, start.stored)
        model = preset(config.preset, config.in_channels)
        if start.stored is not None:
            model = ModelConfig.model_validate(start.stored["model"])

        def facts() -> dict[str, Any]:
            record = NormalizationRecord.of(normalized)
            return {
                **learned_from([image.name for image in images]),
                "model": model.model_dump(mode="json"),
                "normalization": record.model_dump(mode="json"),
            }

        images = [source.source for source in normalized]
        yield from start.record("pretrain", batch, images, facts)
        with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
            module = AFFMAE(model)
        with closing(Pretraining(config, module, normalized, batch, start.place)) as task:
            if not task.is_validated:
                yield Notice("there is no validation loss: one plane alone cannot be split", "info")
            training = Training(task, folder, Runtime(start.plan))
            training.load_latest()
            yield from training.events()


def _usable(
    sources: Sequence[ImageSource], config: PretrainConfig, batch: int
) -> Generator[Event, None, list[ImageSource]]:
    """Check the images; tell what was found, and leave out those with errors."""
    for source in sources:
        require_channels(source, config.in_channels)
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
) -> list[NormalizedSource]:
    """Normalise each source when it is first read, as a stored run did."""
    if not sources:
        raise DataError("there is no image to train on: give at least one that can be read")
    record = None
    if stored is not None:
        record = NormalizationRecord.model_validate(stored["normalization"])
    return normalize_when_read(sources, config.normalization, record)


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
    batch : BatchPlan
        Crops of a step.
    place : PoolPlan
        Where decoded images lie.

    Attributes
    ----------
    is_validated : bool
        Whether planes are kept out of training.
    """

    kind = "pretrain"

    def __init__(
        self,
        config: PretrainConfig,
        module: AFFMAE,
        sources: Sequence[NormalizedSource],
        batch: BatchPlan,
        place: PoolPlan,
    ) -> None:
        self.config: PretrainConfig = config
        self.module: AFFMAE = module
        self._sources = sources
        self.batch = batch
        self._place = place
        self._told: set[int] = set()
        self._broken: dict[int, Exception] = {}
        planes = [range(source.n_planes) for source in sources]
        training, self._held_out = split_planes(planes, config.validation)
        self.is_validated = any(self._held_out)
        self._fixed: tuple[Tensor, ...] | None = None
        self.crops: PretrainCrops = PretrainCrops(
            sources,
            config.crop,
            planes=training,
            augmentation=config.augmentation,
            seed=config.seed,
            device=place.device,
            capacity=place.capacity,
        )

    def close(self) -> None:
        """End the threads that read images."""
        self.crops.pool.close()

    def follow(self) -> Generator[Event, None, None]:
        """Report images that broke, and are left out; see `Task.follow`."""
        broken = {**self.crops.left_out, **self._broken}
        for number in broken.keys() - self._told:
            self._told.add(number)
            name = self._sources[number].name
            yield Notice(f"left out from now on: {broken[number]}", "warning", name)

    def cut(self, plan: CropPlan) -> tuple[Tensor, ...]:
        """Cut crops and draw their masks; see `Task.cut`."""
        (images,) = self.crops.cut(plan)
        return self._mask(images, plan.key)

    def _mask(self, images: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
        config = self.config
        # 8, 16, 32 or 64, each for a quarter of the crops, whatever the batch.
        cells = torch.bitwise_left_shift(torch.full_like(keys, PERLIN_CELLS[0]), keys & 3)
        masks = draw_masks(keys, self._canvas, config.mask_ratio, config.mask, cells=cells)
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

    @property
    def _fixed_batch(self) -> tuple[Tensor, ...]:
        """The same crops and masks at every validation and preview, prepared once."""
        if self._fixed is None:
            seed = derived_seed(self.config.seed, Stream.VALIDATION)
            images = self._fixed_crops(self._held_out if self.is_validated else None, seed)
            keys = words(seed, np.arange(len(images)), 1).view(np.int64)[:, 0]
            self._fixed = self._mask(images, torch.from_numpy(keys).to(images.device))
        return self._fixed

    def _fixed_crops(self, planes: Sequence[Sequence[int]] | None, seed: int) -> Tensor:
        images, broken = PretrainCrops.fixed(
            self._sources,
            self.config.crop,
            validation_crops(self.batch.batch),
            planes=planes,
            seed=seed,
            device=self._place.device,
        )
        self._broken |= broken
        if images is not None:
            return images
        if planes is None:
            raise next(iter(broken.values()))
        # `follow` names the held-out images, and what is left serves the previews.
        return self._fixed_crops(None, seed)

    def validate(self, runtime: Runtime, step: int) -> Generator[Event, None, Validated | None]:
        """Compute the loss of the same masked crops of held-out planes."""
        yield from ()
        if not self.is_validated:
            return None
        at_once = self.batch.micro_batch
        return Validated(step, mean_loss(self, runtime, self._fixed_batch, at_once))

    def preview(self, runtime: Runtime) -> Mapping[str, NDArray[np.float32]]:
        """Reconstruct the same few crops; the first channel is shown."""
        batch = tuple(tensor[:_PREVIEW_CROPS] for tensor in self._fixed_batch)
        with evaluating(self.module), runtime.computing():
            predicted = self.module(*batch).predictions["res2"].float().cpu()
        images, _, ids_masked = (tensor.cpu() for tensor in batch)
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
        pictures = {
            "input": original,
            "masked": masked,
            "reconstruction": reconstruction,
            "error": np.abs(reconstruction - original),
        }
        return {name: middle(picture) for name, picture in pictures.items()}

    def judge_length(self, crops: int, seconds_per_crop: float) -> str | None:
        """Compare the length with what pretraining needs to help; see `Task.judge_length`."""
        if crops >= WORTHWHILE_CROPS:
            return None
        return (
            f"this run will see about {crops:,} crops; pretraining begins to help at some "
            f"{WORTHWHILE_CROPS:,}, which take {duration(WORTHWHILE_CROPS * seconds_per_crop)} here"
        )

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata:
        """Describe the network; see `Task.metadata`."""
        training: dict[str, Any] = {
            "preset": self.config.preset,
            "steps": step,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **learned_from([source.name for source in self._sources]),
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
