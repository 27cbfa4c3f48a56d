"""The operations of AFFMAE on tensors.

Shapes: B batch, N tokens, Q queries, H heads, D head width, C channels,
M clusters of a query, P sampling points.
"""

from affmae_kernels._dispatch import BackendUnavailableError, choose_backend
from affmae_kernels.add_positions import add_positions
from affmae_kernels.cluster_attention import cluster_attention
from affmae_kernels.cluster_merge import cluster_merge
from affmae_kernels.column_sums import column_sums
from affmae_kernels.cut_crops import CropPlan, cut_crops
from affmae_kernels.deformable_attention import deformable_attention
from affmae_kernels.dice_focal import dice_focal
from affmae_kernels.drawing import drawing_from, generator_of
from affmae_kernels.dropout import dropout, relu_dropout
from affmae_kernels.gelu import gelu
from affmae_kernels.mask_noise import mask_noise
from affmae_kernels.masked_convolution import hide, masked_convolution
from affmae_kernels.neighbours import (
    Neighbourhood,
    TokenIndex,
    TokenSearch,
    find_neighbourhood,
    index_later,
    index_tokens,
    relative_geometry,
)
from affmae_kernels.ordering import CellOrder, ascending, order_tokens
from affmae_kernels.residual_norm import residual_norm

__all__ = [
    "BackendUnavailableError",
    "CellOrder",
    "CropPlan",
    "Neighbourhood",
    "TokenIndex",
    "TokenSearch",
    "add_positions",
    "ascending",
    "choose_backend",
    "cluster_attention",
    "cluster_merge",
    "column_sums",
    "cut_crops",
    "deformable_attention",
    "dice_focal",
    "drawing_from",
    "dropout",
    "find_neighbourhood",
    "gelu",
    "generator_of",
    "hide",
    "index_later",
    "index_tokens",
    "mask_noise",
    "masked_convolution",
    "order_tokens",
    "relative_geometry",
    "relu_dropout",
    "residual_norm",
]
