"""The networks that are compared, and one training step of each, by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from vit import VIT_PRESETS, ViTMAE, ViTSegmenter

from napari_affmae.model import AFFMAE, AFFSegmenter, preset
from napari_affmae.model.losses import segmentation_loss
from napari_affmae.model.tokens.masking import draw_keys, draw_masks

MODELS = ("affmae-nano", "affmae-small", "affmae-base", "vit-small", "vit-base")
TASKS = ("pretrain", "finetune")
PATCH_SIZE = 8
MASK_RATIO = 0.5
NUM_CLASSES = 4

Step = Callable[[], Tensor]


def build(name: str, task: str) -> nn.Module:
    """Build a network in training mode, with random weights.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    task : str
        One of `TASKS`.
    """
    family, size = name.split("-")
    if family == "affmae":
        config = preset(size)
        model = AFFMAE(config) if task == "pretrain" else AFFSegmenter(config, NUM_CLASSES)
    else:
        vit = VIT_PRESETS[size]
        model = ViTMAE(vit) if task == "pretrain" else ViTSegmenter(vit, NUM_CLASSES)
    return model.train()


def make_loss(
    model: nn.Module, task: str, size: int, batch: int, device: torch.device, seed: int
) -> Step:
    """Prepare the forward pass of one training step on random images.

    Images, masks and labels are drawn here, so that timing the returned
    function times the network alone. Equal seeds give every network the same.

    Parameters
    ----------
    model : nn.Module
        What `build` returned, on `device`.
    task : str
        One of `TASKS`.
    size : int
        Side of the images, pixels.
    batch : int
        Number of images.
    device : torch.device
        Where the network is.
    seed : int
        Of images, masks and labels.

    Returns
    -------
    Callable
        Computes the scalar loss.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 1, size, size, generator=generator).to(device)
    if task == "pretrain":
        cells = -(-size // PATCH_SIZE)
        keys = draw_keys(batch, generator, device)
        ids_keep, ids_masked = draw_masks(keys, (cells, cells), MASK_RATIO)
        return lambda: model(images, ids_keep, ids_masked).loss
    labels = torch.randint(NUM_CLASSES, (batch, size, size), generator=generator).to(device)
    return lambda: segmentation_loss(model(images), labels)
