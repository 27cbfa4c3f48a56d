"""A segmentation network as other programs run it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from napari_affmae.config import ModelConfig, QuickConfig
from napari_affmae.model.quick import QuickSegmenter
from napari_affmae.model.segmenter import AFFSegmenter


class PortableSegmenter(nn.Module):
    """A segmentation network that gives probabilities instead of logits.

    Exported packages name this class and its arguments, and their weights are loaded into
    it, so none of these may change.

    Parameters
    ----------
    model : Mapping[str, Any]
        Shape of the network, as JSON has it; see `ModelConfig`.
    num_classes : int
        Classes, at least two.
    quick : Mapping[str, Any], optional
        Settings of the head if it was trained quickly; see `QuickConfig`.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        num_classes: int,
        quick: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        config = ModelConfig.model_validate(model)
        self.network: AFFSegmenter | QuickSegmenter
        if quick is None:
            self.network = AFFSegmenter(config, num_classes)
        else:
            head = QuickConfig.model_validate(quick)
            self.network = QuickSegmenter(config, num_classes, head.hidden, head.smoothness)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probability of each class at each pixel.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, normalised; at least 64 px a side.

        Returns
        -------
        Tensor
            (B, classes, H, W) float32.
        """
        logits: Tensor = self.network(images)
        return logits.float().softmax(1)
