"""A segmentation network as other programs run it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_affmae.config import ModelConfig, QuickConfig
from napari_affmae.model.quick.segmenter import QuickSegmenter
from napari_affmae.model.segmenter import AFFSegmenter


class PortableSegmenter(nn.Module):
    """A segmentation network that takes grey values from 0 to 1 and gives probabilities.

    It takes out the mean and the deviation itself: not all programs do what a package
    says of that, and some do it to the values before they are scaled.

    Exported packages name this class and its arguments, and their weights are loaded into
    it, so none of these may change.

    Parameters
    ----------
    model : Mapping[str, Any]
        Shape of the network, as JSON has it; see `ModelConfig`.
    n_classes : int
        Classes, at least two. Other programs look for this name.
    mean, std : sequence of float
        What is taken out of each channel. A negative deviation inverts the image.
    quick : Mapping[str, Any], optional
        Settings of the head if it was trained quickly; see `QuickConfig`.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        n_classes: int,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        quick: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        config = ModelConfig.model_validate(model)
        self.network: AFFSegmenter | QuickSegmenter
        if quick is None:
            self.network = AFFSegmenter(config, n_classes)
        else:
            head = QuickConfig.model_validate(quick)
            self.network = QuickSegmenter(config, n_classes, head.hidden, head.smoothness)
        self.mean: Tensor
        self.std: Tensor
        # They are arguments already, so the weights need not hold them.
        self.register_buffer("mean", _by_channel(mean), persistent=False)
        self.register_buffer("std", _by_channel(std), persistent=False)
        # A module, and the last one, so that other programs see that these are probabilities.
        self.probabilities = nn.Softmax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probability of each class at each pixel.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, from 0 to 1; at least 64 px a side.

        Returns
        -------
        Tensor
            (B, classes, H, W) float32.
        """
        logits: Tensor = self.network((images - self.mean) / self.std)
        chances: Tensor = self.probabilities(logits.float())
        return chances


def _by_channel(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)
