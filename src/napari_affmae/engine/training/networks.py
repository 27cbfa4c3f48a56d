"""The networks that trainings start with: random ones, or ones that were trained before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_affmae.config import FinetuneConfig, ModelConfig, PretrainConfig
from napari_affmae.engine.compute.seeds import Stream, seeded
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_model
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.engine.store.starting_weights import Origin
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE, AFFSegmenter, QuickSegmenter, preset

Facts = dict[str, Any]
"""What a run's record says of its network: its shape, its size, and the model it began as."""


def starting_autoencoder(config: PretrainConfig, start: Origin) -> tuple[AFFMAE, Facts]:
    """Make the network that a pretraining starts with.

    Parameters
    ----------
    config : PretrainConfig
        Settings; with a `start` that has learned, its preset does not matter.
    start : Origin
        Pretrained model to go on from, or random weights.

    Returns
    -------
    AFFMAE
        The network.
    dict
        ``model``, ``preset`` and ``start`` of the run's record.

    Raises
    ------
    CheckpointError
        If `start` is no pretrained model, or one for other channels.
    """
    # A network has random weights before it is given others.
    with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
        if start.path is None:
            network, size = AFFMAE(preset(config.preset, config.in_channels)), str(config.preset)
        else:
            module, metadata = _load(start.path, config)
            if not isinstance(module, AFFMAE):
                raise CheckpointError(
                    f"{start.path} is a segmentation model, and pretraining goes on from a "
                    "pretrained one; choose the run that it was fine-tuned from"
                )
            network, size = module.train(), _size(metadata)
    return network, _facts(network.config, size, "start", start)


def autoencoder_of(
    folder: RunFolder, stored: Mapping[str, Any] | None, config: PretrainConfig, start: Origin
) -> tuple[AFFMAE, Facts]:
    """Make the network of a run, new or resumed.

    Parameters
    ----------
    folder : RunFolder
        The run folder; open. Where it has a checkpoint, the weights will come from there.
    stored : Mapping[str, Any] or None
        Record of the run that is resumed; None for a new one.
    config : PretrainConfig
        Settings.
    start : Origin
        What the run starts from, or has started from; see `starting_autoencoder`.
    """
    if stored is None or folder.latest() is None:
        return starting_autoencoder(config, start)
    model = ModelConfig.model_validate(stored["model"])
    size = stored.get("preset", config.preset)  # runs of earlier versions do not have it
    return AFFMAE(model), _facts(model, size, "start", start)


def starting_segmenter(
    config: FinetuneConfig, classes: int, pretrained: Origin
) -> tuple[AFFSegmenter, Facts]:
    """Make the network that a fine-tuning starts with.

    Parameters
    ----------
    config : FinetuneConfig
        Settings; with a model in `pretrained`, its preset does not matter.
    classes : int
        Number of classes.
    pretrained : Origin
        Model to start from, or random weights.

    Returns
    -------
    AFFSegmenter
        The network.
    dict
        ``model``, ``preset`` and ``pretrained`` of the run's record.

    Raises
    ------
    CheckpointError
        If `pretrained` is no model, or one for other channels or classes.
    """
    with seeded(config.seed, Stream.WEIGHTS, 0, torch.device("cpu")):
        if pretrained.path is None:
            module = AFFSegmenter(preset(config.preset, config.in_channels), classes)
            size: str = config.preset
        else:
            module, size = _segmenter_from(pretrained.path, config, classes)
    return module, _facts(module.config, size, "pretrained", pretrained)


def segmenter_of(
    folder: RunFolder,
    stored: Mapping[str, Any] | None,
    config: FinetuneConfig,
    classes: int,
    pretrained: Origin,
) -> tuple[AFFSegmenter, Facts]:
    """Make the network of a run, new or resumed; see `autoencoder_of` and `starting_segmenter`."""
    if stored is None or folder.latest() is None:
        return starting_segmenter(config, classes, pretrained)
    model = ModelConfig.model_validate(stored["model"])
    start = _facts(model, stored["preset"], "pretrained", pretrained)
    return AFFSegmenter(model, classes), start


def _segmenter_from(path: Path, config: FinetuneConfig, classes: int) -> tuple[AFFSegmenter, str]:
    module, metadata = _load(path, config)
    size = _size(metadata)
    if isinstance(module, AFFMAE):
        return AFFSegmenter.from_pretrained(module, classes), size
    if isinstance(module, QuickSegmenter):
        body = (module.config, module.encoder, module.decoder)
        return AFFSegmenter.from_body(*body, classes), size
    if module.num_classes != classes:
        raise CheckpointError(
            f"the model {path} knows {module.num_classes} classes and the labels have {classes}; "
            "start from a pretrained model, or give the same classes"
        )
    return module.train(), size


def _load(
    path: Path, config: PretrainConfig | FinetuneConfig
) -> tuple[AFFMAE | AFFSegmenter | QuickSegmenter, ModelMetadata]:
    module, metadata = load_model(path)
    channels = config.in_channels
    if metadata.model.in_channels != channels:
        raise CheckpointError(
            f"the model {path} takes {metadata.model.in_channels} channels and the images have "
            f"{channels}; choose channels of the images, or another model"
        )
    return module, metadata


def _size(metadata: ModelMetadata) -> str:
    """Return the preset, which only serves the estimate of memory; imported models have none."""
    return str(metadata.training.get("preset", "base"))


def _facts(model: ModelConfig, size: str, key: str, origin: Origin) -> Facts:
    return {"model": model.model_dump(mode="json"), "preset": size, key: origin.name}
