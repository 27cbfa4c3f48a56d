"""The product's trainings, of any network with the same signatures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vit import VIT_PRESETS, ViTMAE, ViTSegmenter

from accuracy.jobs import PretrainJob, SegmentJob
from napari_affmae.config import FinetuneConfig, PretrainConfig, Settings
from napari_affmae.data import NormalizedSource
from napari_affmae.engine.compute.seeds import Stream, seeded
from napari_affmae.engine.events import Validated
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_weights
from napari_affmae.engine.store.starting_weights import Origin
from napari_affmae.engine.training.finetuning import Finetuning
from napari_affmae.engine.training.gauge.effective_rank import effective_rank
from napari_affmae.engine.training.image_memory import PoolPlan
from napari_affmae.engine.training.labelled_data import Labelled
from napari_affmae.engine.training.networks import starting_segmenter
from napari_affmae.engine.training.pretraining import Pretraining
from napari_affmae.engine.training.steps.batch import BatchPlan
from napari_affmae.engine.training.steps.optimiser import layer_scales
from napari_affmae.model import AFFMAE, AFFSegmenter, preset
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.tokens.patches import pad_to_patches, patchify
from napari_affmae.model.tokens.positions import canvas_ids, positions_of


class OtherNetwork(Settings):
    """What is written beside the weights of a network that the product does not know."""

    network: str
    step: int


class MaskedPretraining(Pretraining):
    """Pretraining of any masked autoencoder.

    Parameters
    ----------
    job : PretrainJob
        Network and variant.
    config, sources, batch, place
        See `Pretraining`.
    """

    def __init__(
        self,
        job: PretrainJob,
        config: PretrainConfig,
        sources: list[NormalizedSource],
        batch: BatchPlan,
        place: PoolPlan,
    ) -> None:
        super().__init__(config, _masked_autoencoder(job, config), sources, batch, place)
        self._job = job

    def loss(
        self, network: Callable[..., Any], *batch: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Reconstruct hidden patches; see `Task.loss`."""
        output = network(*batch)
        if self._job.deep_supervision:
            return output.loss, output.losses
        return output.losses["res2"], {}

    def feature_ranks(self, images: Tensor) -> Sequence[float]:
        """Measure each stage of AFFMAE; the ViT's encoder is one."""
        if isinstance(self.module, AFFMAE):
            return super().feature_ranks(images)
        size = self.module.config.patch_size
        padded = pad_to_patches(images, size)
        canvas = canvas_of(padded, size)
        pos = positions_of(canvas_ids(len(padded), canvas, padded.device), canvas)
        features = self.module.encoder(patchify(padded, size), pos)
        return [effective_rank(features.flatten(0, 1).float())]

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata | OtherNetwork:
        """Describe the network; see `Task.metadata`."""
        if isinstance(self.module, AFFMAE):
            return super().metadata(step, validated)
        return OtherNetwork(network=self._job.network, step=step)


class Segmentation(Finetuning):
    """Fine-tuning of any segmentation network.

    Parameters
    ----------
    job : SegmentJob
        Network and method.
    module : nn.Module
        The network.
    scales : Mapping[str, float]
        Factors of the learning rate by parameter name, where they are not 1.
    config, data, batch, place
        See `Finetuning`.
    """

    def __init__(
        self,
        job: SegmentJob,
        module: nn.Module,
        scales: Mapping[str, float],
        config: FinetuneConfig,
        data: Labelled,
        batch: BatchPlan,
        place: PoolPlan,
    ) -> None:
        start = {"preset": job.preset, "pretrained": None}
        super().__init__(config, module, data, start, batch, place)
        self._job = job
        self._factors = scales

    def rate_scale(self, name: str) -> float:
        """Lower the rate from block to block down; see `Task.rate_scale`."""
        return self._factors.get(name, 1.0)

    def metadata(self, step: int, validated: Validated | None) -> ModelMetadata | OtherNetwork:
        """Describe the network; see `Task.metadata`."""
        if isinstance(self.module, AFFSegmenter):
            return super().metadata(step, validated)
        return OtherNetwork(network=self._job.network, step=step)


def _masked_autoencoder(job: PretrainJob, config: PretrainConfig) -> nn.Module:
    with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
        if job.family == "vit":
            return ViTMAE(VIT_PRESETS[job.preset])
        model = preset(job.preset)
        if job.merge_ratio is not None:
            model = model.model_copy(update={"merge_ratio": job.merge_ratio})
        return AFFMAE(model)


def segmenter(
    job: SegmentJob, config: FinetuneConfig, classes: int, start: Path | None
) -> tuple[nn.Module, Mapping[str, float]]:
    """Make the network that a job trains.

    Parameters
    ----------
    job : SegmentJob
        The job.
    config : FinetuneConfig
        Its settings.
    classes : int
        Number of classes.
    start : Path or None
        Pretrained run or model file.

    Returns
    -------
    module : nn.Module
        The network, on the CPU.
    scales : Mapping[str, float]
        Factors of the learning rate by parameter name, where they are not 1.
    """
    decay = config.layer_decay
    if job.family == "affmae":
        module, _ = starting_segmenter(config, classes, Origin(start))
        return module, {} if start is None else layer_scales(module, decay)
    with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
        if job.family == "vit":
            mae = ViTMAE(VIT_PRESETS[job.preset])
            if start is not None:
                load_weights(mae, start)
            module = ViTSegmenter.from_pretrained(mae, classes)
            return module, {} if start is None else vit_scales(module, decay)
        return DynUNetSegmenter(classes), {}


def vit_scales(module: ViTSegmenter, decay: float) -> dict[str, float]:
    """Give each parameter of the ViT's encoder its factor of the learning rate.

    As `layer_scales`: the last block has ``decay``, the first and the patch
    embedding ``decay**blocks``.
    """
    depth = module.config.blocks
    scales = {}
    for name, _ in module.named_parameters():
        if name.startswith("encoder.patch_embed."):
            scales[name] = decay**depth
        elif name.startswith("encoder.blocks."):
            scales[name] = decay ** (depth - int(name.split(".")[2]))
    return scales


class DynUNetSegmenter(nn.Module):
    """MONAI's DynUNet of 15 million parameters, after nnU-Net, each part registered once.

    Parameters
    ----------
    num_classes : int
        Classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # Only one of the networks needs MONAI.
        from monai.networks.nets import DynUNet  # noqa: PLC0415

        self.num_classes = num_classes
        net = DynUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=num_classes,
            kernel_size=[3] * 6,
            strides=[1] + [2] * 5,
            upsample_kernel_size=[2] * 5,
            filters=[32, 64, 128, 256, 384, 512],
            norm_name=("INSTANCE", {"affine": True}),
        )
        names = ("input_block", "downsamples", "bottleneck", "upsamples", "output_block")
        self.parts = nn.ModuleDict({name: getattr(net, name) for name in names})
        # It holds its parts a second time, nested, and no file may hold a weight twice:
        # in a tuple nobody looks for weights.
        self._whole = (net,)

    def forward(self, images: Tensor) -> Tensor:
        """Compute class logits (B, classes, H, W) of images (B, 1, H, W)."""
        logits: Tensor = self._whole[0](images)
        return logits
