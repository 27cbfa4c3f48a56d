"""The hierarchical encoder: local attention between tokens, and adaptive merging."""

from collections.abc import Sequence
from itertools import islice, repeat

import torch
from torch import Tensor, nn

from affmae_kernels import (
    Neighbourhood,
    ascending,
    cluster_attention,
    cluster_merge,
    find_neighbourhood,
)
from napari_affmae.config import ModelConfig
from napari_affmae.model.parts.layers import MLP, Branch, Linear, Norm, draw_paths, initialise
from napari_affmae.model.parts.outputs import Level
from napari_affmae.model.parts.patch_embedding import PatchEmbedding
from napari_affmae.model.tokens.clustering import cluster_order
from napari_affmae.model.tokens.patches import take_tokens
from napari_affmae.model.tokens.positions import canvas_ids, index_later, positions_of

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
        self.query_key_value = Linear(width, 3 * width)
        self.geometry = nn.Linear(GEOMETRY, heads)
        self.blank_key = nn.Parameter(torch.zeros(width))
        self.blank_value = nn.Parameter(torch.zeros(width))
        self.project = Linear(width, width)

    def forward(self, x: Tensor, neighbourhood: Neighbourhood) -> Branch:
        """Attend within `neighbourhood`; `x` is (B, N, C), sorted by cluster."""
        rows, bias, _ = self.query_key_value.deferred(x)
        attended = cluster_attention(
            rows.unflatten(-1, (3, self.heads, -1)),
            None if bias is None else bias.view(3, self.heads, -1),
            self.blank_key.view(self.heads, -1),
            self.blank_value.view(self.heads, -1),
            self.geometry.weight,
            self.geometry.bias,
            neighbourhood,
        )
        return self.project.deferred(attended.flatten(2))


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
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention_norm = Norm(width)
        self.attention = ClusterAttention(width, heads)
        self.mlp_norm = Norm(width)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(
        self,
        x: Tensor,
        pending: Branch | None,
        neighbourhood: Neighbourhood,
        paths: Tensor | None = None,
    ) -> tuple[Tensor, Branch]:
        """Map tokens (B, N, C) to the same shape.

        A branch is added by the norm that follows it, in one kernel: the block
        takes the `pending` branch of the block before, and returns its own last
        one. For `paths` see `draw_paths`.
        """
        factors = (None, None) if paths is None else paths.unbind(0)
        normed, x = self.attention_norm.add(x, pending)
        attended = self.attention(normed, neighbourhood)._replace(factors=factors[0])
        normed, x = self.mlp_norm.add(x, attended)
        return x, self.mlp(normed)._replace(factors=factors[1])


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
        self.importance = Linear(width, 1)
        self.geometry = nn.Linear(GEOMETRY, self.maps)
        self.geometry_norm = nn.LayerNorm(self.maps)
        self.norm = Norm(self.maps * width)
        self.project = Linear(self.maps * width, next_width)

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
        kept = importance.detach().squeeze(-1).topk(count, dim=1, sorted=False).indices
        around = neighbourhood.select(ascending(kept, x.shape[1]))
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
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        width = config.channels[index]
        self.cluster_size, self.neighbourhood = config.cluster_size, config.neighbourhood
        self.blocks = nn.ModuleList(
            Block(width, config.heads[index], config.mlp_ratio) for _ in range(config.blocks[index])
        )
        self.norm = Norm(width)
        self.merging = (
            Merging(width, config.channels[index + 1], config.merge_ratio)
            if index + 1 < len(config.channels)
            else None
        )

    def forward(
        self, x: Tensor, pos: Tensor, canvas: tuple[int, int], paths: Sequence[Tensor | None]
    ) -> tuple[Level, Tensor, Tensor]:
        """Return this stage's features, and tokens and positions for the next.

        `paths` has what `draw_paths` drew for each block, or None.
        """
        order = cluster_order(pos, canvas, self.cluster_size)
        x, pos = take_tokens(x, order), take_tokens(pos, order)
        index = index_later(pos, canvas)
        neighbourhood = find_neighbourhood(pos, canvas, self.neighbourhood, self.cluster_size)
        pending = None
        for block, drawn in zip(self.blocks, paths, strict=True):
            x, pending = block(x, pending, neighbourhood, drawn)
        features, x = self.norm.add(x, pending)
        level = Level(features, pos, index)
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
        self.blocks = config.blocks
        # On the CPU even where a network is made without memory ("meta"), whose arithmetic makes
        # torch import its compiler, which takes a second.
        rates = torch.linspace(0, config.drop_path, sum(self.blocks), device="cpu")
        self.register_buffer("path_rates", rates, persistent=False)
        self.path_rates: Tensor
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(self.blocks)))
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
        drawn = iter(draw_paths(self.path_rates, len(images)) if self.training else repeat(None))
        levels = []
        for stage, count in zip(self.stages, self.blocks, strict=True):
            level, x, pos = stage(x, pos, canvas, list(islice(drawn, count)))
            levels.append(level)
        return levels

    def blocks_in_order(self) -> list[Block]:
        """List the attention blocks, first to last."""
        return [module for module in self.modules() if isinstance(module, Block)]
