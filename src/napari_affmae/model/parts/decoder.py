"""The decoder: queries anywhere on the canvas sample the encoder's tokens off any grid."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affmae_kernels import (
    TokenSearch,
    deformable_attention,
    relu_dropout,
    residual_norm,
)
from napari_affmae.config import ModelConfig
from napari_affmae.model.parts.layers import Branch, Linear, Norm, initialise, recomputed_linear
from napari_affmae.model.parts.outputs import Level
from napari_affmae.model.tokens.positions import SineEmbedding, index_later


class DeformableAttention(nn.Module):
    """Attention to values sampled around each query.

    Parameters
    ----------
    width, heads, points : int
        Channels, heads H, and sampling points P of a head.
    """

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        # Offsets (x, y) of all points, then their logits.
        self.sampling = Linear(width, heads * points * 3)
        self.value = Linear(width, width)
        self.project = Linear(width, width)
        self.power = nn.Parameter(torch.tensor(1.0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let the heads look in different directions, the points at different distances."""
        if self.power.is_meta:
            return  # there is nothing to set; for sums torch would import its compiler
        angle = 2 * math.pi * torch.arange(self.heads) / self.heads
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        reach = torch.arange(1, self.points + 1)
        with torch.no_grad():
            offsets = (direction[:, None] * reach[:, None]).flatten()
            self.sampling.bias.zero_()[: len(offsets)] = offsets
        nn.init.zeros_(self.sampling.weight)
        for linear in (self.value, self.project):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, queries: Tensor, query_pos: Tensor, values: Tensor, index: TokenSearch
    ) -> Branch:
        """Sample `values` (B, N, C) of indexed tokens for `queries` (B, Q, C)."""
        sampled = deformable_attention(
            values.unflatten(-1, (self.heads, -1)),
            query_pos,
            self.sampling(queries),
            self.power,
            index,
        )
        return self.project.deferred(sampled.flatten(2))


class DecoderStage(nn.Module):
    """Self-attention, cross-attention to one encoder level, and an MLP; post-norm.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    level_width : int
        Channels of the encoder level.
    """

    def __init__(self, config: ModelConfig, level_width: int) -> None:
        super().__init__()
        width = config.decoder_width
        attention = (width, config.decoder_heads, config.decoder_points)
        self.level_project = Linear(level_width, width)
        self.level_norm = Norm(width)
        self.expand = Linear(width, config.decoder_hidden)
        self.contract = Linear(config.decoder_hidden, width)
        self.apply(initialise)
        self.self_attention = DeformableAttention(*attention)
        self.cross_attention = DeformableAttention(*attention)
        self.self_norm, self.cross_norm, self.mlp_norm = (
            Norm(width, config.decoder_dropout) for _ in range(3)
        )
        self.dropout = config.decoder_dropout
        self.embedding = SineEmbedding(width)

    def forward(
        self,
        queries: Tensor,
        query_pos: Tensor,
        query_index: TokenSearch,
        level: Level,
        level_index: TokenSearch,
        canvas: tuple[int, int],
    ) -> Tensor:
        """Refine queries (B, Q, C) with the tokens of `level`."""
        values = self.self_attention.value(queries)
        attended = self.self_attention(queries, query_pos, values, query_index)
        queries, _ = self.self_norm.add(queries, attended)
        attended = self.cross_attention(
            queries, query_pos, self._level_values(level, canvas), level_index
        )
        queries, _ = self.cross_norm.add(queries, attended)
        hidden, bias, _ = self.expand.deferred(queries)
        hidden = relu_dropout(hidden, bias, self.dropout if self.training else 0.0)
        queries, _ = self.mlp_norm.add(queries, self.contract.deferred(hidden))
        return queries

    def _level_values(self, level: Level, canvas: tuple[int, int]) -> Tensor:
        """Compute what queries sample of an encoder level, (B, N, C)."""

        def compute(x: Tensor, *weights: Tensor) -> Tensor:
            project, bias, scale, shift = weights
            tokens, _ = residual_norm(F.linear(x, project, bias), None, scale, shift)
            return self.embedding(tokens, level.pos, canvas)

        value = self.cross_attention.value
        if not level.x.is_cpu:
            tokens = self.level_norm(self.level_project(level.x))
            out: Tensor = value(self.embedding(tokens, level.pos, canvas))
            return out
        # What lies between is cheap, but large in float32. GPUs keep it in 16 bits.
        layers = (self.level_project, self.level_norm)
        inputs = [level.x, *(weight for layer in layers for weight in layer.parameters())]
        return recomputed_linear(compute, inputs, value)


class Decoder(nn.Module):
    """Answer queries from the coarsest encoder level to the finest.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(config.decoder_width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.embedding = SineEmbedding(config.decoder_width)
        self.stages = nn.ModuleList(
            DecoderStage(config, width) for width in reversed(config.channels)
        )

    def forward(
        self,
        levels: list[Level],
        query_pos: Tensor,
        canvas: tuple[int, int],
        query_index: Callable[[], TokenSearch] | None = None,
    ) -> list[Tensor]:
        """Decode at `query_pos`.

        Parameters
        ----------
        levels : list of Level
            Encoder features, fine to coarse.
        query_pos : Tensor
            (B, Q, 2) float, (x, y) in cells.
        canvas : tuple[int, int]
            Rows and columns of the canvas.
        query_index : Callable, optional
            Gives the queries indexed, where `positions.index_later` began that before.

        Returns
        -------
        list of Tensor
            Query features (B, Q, C) after each stage: res5, res4, res3, res2.
        """
        queries = self.embedding(self.query, query_pos, canvas)
        own_index = (query_index or index_later(query_pos, canvas))()
        results = []
        for stage, level in zip(self.stages, levels[::-1], strict=True):
            index = (level.index or index_later(level.pos, canvas))()
            queries = stage(queries, query_pos, own_index, level, index, canvas)
            results.append(queries)
        return results
