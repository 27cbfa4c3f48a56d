"""What a masked autoencoder returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from affmae_kernels import TokenSearch


@dataclass(frozen=True)
class Level:
    """Features of one encoder stage.

    Attributes
    ----------
    x : Tensor
        Token features, (B, N, C).
    pos : Tensor
        Token positions (x, y) in cells of the token canvas, (B, N, 2) float.
    index : Callable or None
        Gives them prepared for the decoder, once; see `positions.index_later`.
    """

    x: Tensor
    pos: Tensor
    index: Callable[[], TokenSearch] | None = None


@dataclass(frozen=True)
class MAEOutput:
    """Result of a pretraining forward pass.

    Attributes
    ----------
    loss : Tensor
        Scalar to minimise.
    losses : Mapping[str, Tensor]
        Unweighted loss of each decoder stage that predicts pixels.
    predictions : Mapping[str, Tensor]
        The pixels that each of those stages predicts for the hidden patches,
        (B, n_masked, p * p * C) in the order of ``ids_masked``.
    features : Sequence[Level]
        Encoder features, fine to coarse.
    """

    loss: Tensor
    losses: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]
    features: Sequence[Level]
