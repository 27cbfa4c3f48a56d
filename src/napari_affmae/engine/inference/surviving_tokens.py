"""Shows which patches of an image remain tokens in each stage of the encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_affmae.engine.compute.device import memory_errors, plan_device
from napari_affmae.engine.compute.runtime import Runtime, evaluating
from napari_affmae.engine.store.model_files import load_model
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.parts.encoder import Encoder, Merging
from napari_affmae.model.parts.outputs import Level
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import check_images, pad_to_patches


@dataclass(frozen=True)
class TokenStage:
    """Tokens of one encoder stage.

    Attributes
    ----------
    positions : ndarray, (N, 2), float32
        Centre of each token's patch, (row, column) in pixels of the image; the
        centre of the first pixel is (0, 0).
    importance : ndarray, (N,), float32, or None
        0 to 1: the most important tokens go on to the next stage, and weigh
        more when others are merged into them. None in the last stage.
    """

    positions: NDArray[np.float32]
    importance: NDArray[np.float32] | None


def surviving_tokens(
    model: Path,
    image: NDArray[np.float32],
    *,
    mask_ratio: float = 0.0,
    mask: Literal["perlin", "uniform"] = "perlin",
    seed: int = 0,
    device: str = "auto",
) -> list[TokenStage]:
    """Compute where a network keeps its tokens on an image.

    Every patch starts as a token; after each stage the less important ones are
    merged into their neighbours, so tokens remain where the network finds detail.

    Parameters
    ----------
    model : Path
        Model file or run folder, pretrained or fine-tuned.
    image : ndarray, (C, H, W), float32
        Normalised as for the model (`segmentation.normalize_like`); at least
        64 pixels a side. The whole of it is computed at once.
    mask_ratio : float
        Share of the patches that is hidden as in pretraining; 0 hides none.
    mask : {"perlin", "uniform"}
        How hidden patches are drawn.
    seed : int
        Seed of the choice of hidden patches.
    device : str
        As in `TrainingConfig.device`.

    Returns
    -------
    list of TokenStage
        From fine to coarse; the positions of a stage are a subset of those before.

    Raises
    ------
    ValueError
        If the image or the ratio does not fit the network.
    CheckpointError
        If there is no model.
    OutOfMemoryError
        If the image is too large.
    """
    module, metadata = load_model(Path(model))
    images = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
    check_images(images, metadata.model.in_channels)
    patch = metadata.model.patch_size
    padded = pad_to_patches(images, patch)
    canvas = canvas_of(padded, patch)
    ids_keep = None
    if mask_ratio:
        keys = draw_keys(1, torch.Generator().manual_seed(seed))
        ids_keep, _ = draw_masks(keys, canvas, mask_ratio, mask)
    plan = plan_device(device)
    runtime = Runtime(plan)
    what = f"an image of {image.shape[1]} x {image.shape[2]} pixels"
    with memory_errors(plan, what, "Take a smaller window"):
        with plan.active():
            module.to(runtime.plan.device)
        encoder = module.encoder
        with _importance(encoder) as importance, evaluating(encoder), runtime.computing():
            visible = None if ids_keep is None else ids_keep.to(plan.device)
            levels = encoder(*runtime.to_device((padded,)), canvas, visible)
    values = [*importance, *[None] * (len(levels) - len(importance))]
    return [_stage(level, value, patch) for level, value in zip(levels, values, strict=True)]


@contextmanager
def _importance(encoder: Encoder) -> Iterator[list[Tensor]]:
    """Collect the importance that each merging step gives to its tokens, in order."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.float().sigmoid().squeeze(-1))

    merging = [module for module in encoder.modules() if isinstance(module, Merging)]
    handles = [module.importance.register_forward_hook(note) for module in merging]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _stage(level: Level, importance: Tensor | None, patch: int) -> TokenStage:
    cells = level.pos[0].flip(-1).float().cpu().numpy()
    return TokenStage(
        positions=cells * np.float32(patch) + np.float32((patch - 1) / 2),
        importance=None if importance is None else importance[0].cpu().numpy(),
    )
