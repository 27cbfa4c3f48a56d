"""The hierarchical encoder: local attention between tokens, and adaptive merging."""

import numpy as np
import torch
from torch import Tensor, nn

from affmae_kernels import Neighbourhood, cluster_attention, cluster_merge, find_neighbourhood
from napari_affmae.config import ModelConfig
from napari_affmae.model.clustering import cluster_order
from napari_affmae.model.layers import MLP, DropPath, initialise
from napari_affmae.model.outputs import Level
from napari_affmae.model.patch_embedding import PatchEmbedding
from napari_affmae.model.patches import take_tokens
from napari_affmae.model.positions import canvas_ids, positions_of

GEOMETRY = 5  # dx, dy, d, dy/d, dx/d


class ClusterAttention(nn.Module):
    """Multi-head attention of tokens to the clusters around them.

    Parameters
    ----------
    width : int
        Channels C.
    heads : int
        Heads H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.geometry = nn.Linear(GEOMETRY, heads)
        self.blank_key = nn.Parameter(torch.zeros(width))
        self.blank_value = nn.Parameter(torch.zeros(width))
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Attend within `neighbourhood`; `x` is (B, N, C), sorted by cluster."""
        q = self.query(x).unflatten(-1, (self.heads, -1))
        k, v = self.key_value(x).unflatten(-1, (self.heads, -1)).chunk(2, dim=-1)
        attended = cluster_attention(
            q,
            k,
            v,
            self.blank_key.view(self.heads, -1),
            self.blank_value.view(self.heads, -1),
            self.geometry.weight,
            self.geometry.bias,
            neighbourhood,
        )
        out: Tensor = self.project(attended.flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    width : int
        Channels C.
    heads : int
        Attention heads.
    mlp_ratio : float
        Hidden channels of the MLP over `width`.
    drop_path : float
        Share of images that skip a branch in training.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = ClusterAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """Map tokens (B, N, C) to the same shape."""
        x = x + self.drop_path(self.attention(self.attention_norm(x), neighbourhood))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class Merging(nn.Module):
    """Keep the most important tokens and merge their neighbourhoods into them.

    Parameters
    ----------
    width, next_width : int
        Channels before and after.
    ratio : float
        Share of tokens kept.
    """

    maps = 4  # weights of a neighbour

    def __init__(self, width: int, next_width: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.importance = nn.Linear(width, 1)
        self.geometry = nn.Linear(GEOMETRY, self.maps)
        self.geometry_norm = nn.LayerNorm(self.maps)
        self.norm = nn.LayerNorm(self.maps * width)
        self.project = nn.Linear(self.maps * width, next_width)

    def forward(self, x: Tensor, neighbourhood: Neighbourhood) -> tuple[Tensor, Tensor]:
        """Merge tokens.

        Parameters
        ----------
        x : Tensor
            (B, N, C), sorted by cluster.
        neighbourhood : Neighbourhood
            That of all N tokens.

        Returns
        -------
        x : Tensor
            (B, max(1, int(N * ratio)), next_width).
        pos : Tensor
            Their positions (x, y), in the order in which they stood.
        """
        importance = self.importance(x).sigmoid()
        count = max(1, int(x.shape[1] * self.ratio))
        kept = importance.detach().squeeze(-1).topk(count, dim=1).indices.sort(dim=1).values
        around = neighbourhood.select(kept)
        merged = cluster_merge(
            x,
            importance,
            self.geometry.weight,
            self.geometry.bias,
            self.geometry_norm.weight,
            self.geometry_norm.bias,
            around,
        )
        return self.project(self.norm(merged)), around.query_pos


class Stage(nn.Module):
    """Attention blocks at one token density, and the merging after them.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    index : int
        Which of its stages, 0 being the finest.
    drop_path : list of float
        Rate of each block.
    """

    def __init__(self, config: ModelConfig, index: int, drop_path: list[float]) -> None:
        super().__init__()
        width = config.channels[index]
        self.cluster_size, self.neighbourhood = config.cluster_size, config.neighbourhood
        self.blocks = nn.ModuleList(
            Block(width, config.heads[index], config.mlp_ratio, rate) for rate in drop_path
        )
        self.norm = nn.LayerNorm(width)
        self.merging = (
            Merging(width, config.channels[index + 1], config.merge_ratio)
            if index + 1 < len(config.channels)
            else None
        )

    def forward(
        self, x: Tensor, pos: Tensor, canvas: tuple[int, int]
    ) -> tuple[Level, Tensor, Tensor]:
        """Return this stage's features, and tokens and positions for the next."""
        order = cluster_order(pos, canvas, self.cluster_size)
        x, pos = take_tokens(x, order), take_tokens(pos, order)
        neighbourhood = find_neighbourhood(pos, canvas, self.neighbourhood, self.cluster_size)
        for block in self.blocks:
            x = block(x, neighbourhood)
        level = Level(self.norm(x), pos)
        if self.merging is not None:
            x, pos = self.merging(x, neighbourhood)
        return level, x, pos


class Encoder(nn.Module):
    """Patch embedding and four stages (AFFMAE, arXiv 2602.16249, section 3).

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(
            config.in_channels, config.channels[0], config.patch_size
        )
        rates = np.linspace(0, config.drop_path, sum(config.blocks))
        parts = np.split(rates, np.cumsum(config.blocks)[:-1])
        self.stages = nn.ModuleList(
            Stage(config, index, part.tolist()) for index, part in enumerate(parts)
        )
        self.apply(initialise)
        for block in self.blocks_in_order():
            nn.init.trunc_normal_(block.attention.blank_key, std=0.02)
            nn.init.trunc_normal_(block.attention.blank_value, std=0.02)

    def forward(
        self, images: Tensor, canvas: tuple[int, int], ids_keep: Tensor | None = None
    ) -> list[Level]:
        """Encode the visible patches.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W), padded to whole patches.
        canvas : tuple[int, int]
            Rows and columns of patches.
        ids_keep : Tensor, optional
            (B, N) int64, the visible patches; all of them by default.

        Returns
        -------
        list of Level
            Features of each stage, fine to coarse.
        """
        x = self.patch_embedding(images, canvas, ids_keep)
        ids = canvas_ids(len(images), canvas, images.device) if ids_keep is None else ids_keep
        pos = positions_of(ids, canvas)
        levels = []
        for stage in self.stages:
            level, x, pos = stage(x, pos, canvas)
            levels.append(level)
        return levels

    def blocks_in_order(self) -> list[Block]:
        """List the attention blocks, first to last."""
        return [module for module in self.modules() if isinstance(module, Block)]
