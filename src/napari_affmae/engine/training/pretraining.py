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
from napari_affmae.config import WORTHWHILE_CROPS, PretrainConfig
from napari_affmae.data import (
    ImageSource,
    NormalizationRecord,
    NormalizedSource,
    PretrainCrops,
    check_sources,
    normalize_when_read,
    require_same_channels,
    split_planes,
)
from napari_affmae.data.crops.numbers import words
from napari_affmae.engine.compute.device import telling_of_memory
from napari_affmae.engine.compute.distributed import Team
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.compute.seeds import Stream, derived_seed
from napari_affmae.engine.events import Event, Notice, Validated
from napari_affmae.engine.inference.pixel_sizes import common_pixel_size
from napari_affmae.engine.store.metadata import ModelMetadata, learned_from
from napari_affmae.engine.store.seen_folder import open_run
from napari_affmae.engine.store.starting_weights import AUTO, Start
from napari_affmae.engine.training.beginning import Beginning
from napari_affmae.engine.training.gauge.effective_rank import stage_ranks
from napari_affmae.engine.training.gauge.gain import gain_of, judge_scores
from napari_affmae.engine.training.gauge.probe import Probe
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import Pairs
from napari_affmae.engine.training.networks import autoencoder_of
from napari_affmae.engine.training.resuming import settle_config
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.helping import train
from napari_affmae.engine.training.steps.task import Task, mean_loss, middle, validation_crops
from napari_affmae.engine.wording import duration
from napari_affmae.errors import DataError
from napari_affmae.model import AFFMAE
from napari_affmae.model.tokens.masking import PERLIN_CELLS, draw_masks
from napari_affmae.model.tokens.patches import pad_to_patches, patchify, unpatchify

_PREVIEW_CROPS = 4
_RANKED_CROPS = 8


@telling_of_memory
def pretrain(
    sources: Sequence[ImageSource],
    config: PretrainConfig | None,
    run: Path,
    *,
    start: Start = AUTO,
    labelled: Pairs = (),
    ignore_value: int | None = None,
    resume: bool = False,
    team: Team | None = None,
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
    start : Start
        What to go on from, on these images: weights that come with the program by their
        name, by default those of the preset, if they take the channels of the images, or a
        run beside this one that is better (`fitting.to_start_from`); a pretrained model
        file or run folder; or None for random weights. A network that has learned counts
        then, not the preset of the settings.
    labelled : sequence of (ImageSource, ImageSource)
        Images and their labels, on which a `Probe` measures at each validation how
        much the features have become worth. Nothing is learned from these labels.
    ignore_value : int or None
        Value in those labels that means unknown.
    resume : bool
        Go on with the run in the folder; `start` no longer matters then.
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
        Its subclasses say what went wrong.
    ValueError
        If settings are wrong.
    """
    team = team or Team()
    with open_run(Path(run), writes=team.leads) as folder:
        config = settle_config(folder, "pretrain", config, resume=resume)
        begun = Beginning.of(folder, config, team, resume=resume)
        origin = begun.origin("start", start, sources)
        module, network = autoencoder_of(folder, begun.stored, config, origin)
        batch = begun.plan_batch("pretrain", network["preset"])
        usable = yield from _usable(sources, config, batch.batch)
        normalized = _normalize(usable, config, begun.stored)

        def facts() -> dict[str, Any]:
            record = NormalizationRecord.of(normalized)
            return {
                **learned_from([image.name for image in images]),
                **network,
                "normalization": record.model_dump(mode="json"),
            }

        images = [source.source for source in normalized]
        yield from begun.record("pretrain", origin, batch, images, facts)
        probe = Probe.of(labelled, config, ignore_value, begun.place) if labelled else None
        task = Pretraining(
            config, module, normalized, batch, begun.place, start=network, probe=probe
        )
        with closing(task):
            if not task.is_validated:
                missing = "no validation loss" + (", and no probe" if probe else "")
                yield Notice(f"there is {missing}: one plane alone cannot be split", "info")
            yield from train(task, folder, begun.runtime)


def _usable(
    sources: Sequence[ImageSource], config: PretrainConfig, batch: int
) -> Generator[Event, None, list[ImageSource]]:
    """Check the images; tell what was found, and leave out those with errors."""
    require_same_channels(sources, config.in_channels)
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
    start : Mapping[str, Any], optional
        ``preset`` and ``start`` of the run's record; those of random weights by default.
    probe : Probe, optional
        Measures the features at each validation.

    Attributes
    ----------
    is_validated : bool
        Whether planes are kept out of training.
    """

    kind = "pretrain"
    measures_start = True

    def __init__(
        self,
        config: PretrainConfig,
        module: AFFMAE,
        sources: Sequence[NormalizedSource],
        batch: BatchPlan,
        place: PoolPlan,
        *,
        start: Mapping[str, Any] | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.config: PretrainConfig = config
        self._probe = probe
        self._scores: dict[int, float] = {}
        self._start = start or {"preset": config.preset, "start": None}
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
        """Compute the loss of the same masked crops of held-out planes, and measure features."""
        yield from ()
        if not self.is_validated:
            return None
        at_once = self.batch.micro_batch
        if step == 0:  # a micro-batch may not fit, which the first step finds out
            at_once = min(at_once, _RANKED_CROPS)
        loss = mean_loss(self, runtime, self._fixed_batch, at_once)
        with evaluating(self.module), runtime.computing():
            ranks = self.feature_ranks(self._fixed_batch[0][: min(at_once, _RANKED_CROPS)])
        if self._probe is None:
            return Validated(step, loss, ranks=ranks)
        score = self._scores[step] = self._probe.score(self.module, runtime, at_once)
        return Validated(step, loss, ranks=ranks, probe=score)

    def feature_ranks(self, images: Tensor) -> Sequence[float]:
        """Compute the effective rank of the features of each stage; see `stage_ranks`."""
        return stage_ranks(self.module, images)

    def recall(self, measured: Sequence[Mapping[str, Any]]) -> None:
        """Take in the scores of the probe until now; see `Task.recall`."""
        known = ((line["step"], line.get("probe")) for line in measured)
        self._scores = {step: score for step, score in known if score is not None}

    def conclude(self) -> str | None:
        """Say what the probe has seen; see `Task.conclude`."""
        before = self._start["start"]
        return judge_scores(self._scores, None if before is None else Path(before).name)

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
        before = self._start["start"]
        little = "" if before is None else f", which may add little to {Path(before).name}"
        return (
            f"this run will see about {crops:,} crops{little}; pretraining begins to help at some "
            f"{WORTHWHILE_CROPS:,}, which take {duration(WORTHWHILE_CROPS * seconds_per_crop)} here"
        )

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata:
        """Describe the network; see `Task.metadata`."""
        training: dict[str, Any] = {
            "preset": self._start["preset"],
            "start": self._start["start"],
            "steps": step,
            "crops": step * self.batch.batch,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **learned_from([source.name for source in self._sources]),
        }
        if validated is not None:
            training["validation_loss"] = validated.loss
        gain = gain_of(self._scores)
        if gain is not None:
            training["probe"] = gain.model_dump()
        return ModelMetadata(
            kind="pretrain",
            model=self.module.config,
            normalization=NormalizationRecord.of(self._sources),
            crop=self.config.crop,
            pixel_size=common_pixel_size(item.source for item in self._sources),
            training=training,
        )
