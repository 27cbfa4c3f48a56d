"""What exported graphs compute, whose sizes follow from shapes alone, against the definitions."""

import pytest
import torch
from torch import Tensor

from affmae_kernels import find_neighbourhood
from affmae_kernels.cluster_attention.reference import _ClusterAttention
from affmae_kernels.cluster_attention.static import attend_statically
from affmae_kernels.cluster_merge.reference import _ClusterMerge
from affmae_kernels.cluster_merge.static import merge_statically
from affmae_kernels.deformable_attention.reference import _DeformableAttention
from affmae_kernels.deformable_attention.static import sample_statically
from affmae_kernels.neighbours import TokenIndex
from affmae_kernels.neighbours.static_search import StaticSearch

CANVAS = (9, 11)
CELLS = CANVAS[0] * CANVAS[1]


def scattered(batch: int, tokens: int) -> Tensor:
    """Distinct cells, in any order."""
    generator = torch.Generator().manual_seed(tokens)
    cells = torch.rand(batch, CELLS, generator=generator).argsort(-1)[:, :tokens]
    return torch.stack([cells % CANVAS[1], cells // CANVAS[1]], -1).float()


def locations(batch: int) -> Tensor:
    """Places on the canvas, far off it, and in the middle between cells, where points tie."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.rand(batch, 400, 2, generator=generator) * 60 - 25
    near = torch.rand(batch, 400, 2, generator=generator) * 12 - 1
    ties = torch.randint(-6, 30, (batch, 400, 2), generator=generator) / 2
    return torch.cat([spread, near, ties], dim=1)


@pytest.mark.parametrize("tokens", [CELLS, CELLS - 1, 40, 5, 2])
@pytest.mark.parametrize("count", [1, 4])
def test_the_nearest_points_are_those_of_the_index(tokens: int, count: int) -> None:
    points = scattered(2, tokens)
    found = StaticSearch.build(points, CANVAS, count, whole=True)
    assert (found.table is not None) == (tokens == CELLS)
    expected = TokenIndex.build(points, CANVAS, count).nearest(locations(2))
    torch.testing.assert_close(found.nearest(locations(2)), expected)


def test_more_neighbours_than_there_are_cannot_be_asked_for() -> None:
    search = StaticSearch.build(scattered(1, 3), CANVAS, 4, whole=True)
    with pytest.raises(ValueError, match="up to 3"):
        search.nearest(locations(1), 4)


def inputs(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("tokens", [1, 7, 63, CELLS])
@pytest.mark.parametrize("neighbourhood", [16, 200])
def test_attention_and_merging_equal_their_definitions(tokens: int, neighbourhood: int) -> None:
    around = find_neighbourhood(scattered(2, tokens).double(), CANVAS, neighbourhood, 8)
    attention = inputs(*[(2, tokens, 3, 4)] * 3, (3, 4), (3, 4), (3, 5), (3,))
    torch.testing.assert_close(
        attend_statically(around, *attention), _ClusterAttention.apply(around, *attention)
    )
    chosen = around.select(torch.arange(0, tokens, 2).expand(2, -1))
    merging = inputs((2, tokens, 6), (2, tokens, 1), (4, 5), (4,), (4,), (4,))
    torch.testing.assert_close(
        merge_statically(chosen, *merging), _ClusterMerge.apply(chosen, *merging)
    )


@pytest.mark.parametrize("tokens", [CELLS, 30, 3])
def test_sampling_equals_its_definition(tokens: int) -> None:
    points = scattered(2, tokens)
    index = TokenIndex.build(points, CANVAS, 4)
    values, offsets, weights = inputs((2, tokens, 3, 4), (2, 20, 3, 5, 2), (2, 20, 3, 5))
    tensors = (scattered(2, 20).double(), values, 3 * offsets, weights.softmax(-1))
    power = torch.tensor(1.3, dtype=torch.float64)
    torch.testing.assert_close(
        sample_statically(index, *tensors, power, 1e-6),
        _DeformableAttention.apply(index, *tensors, power),
    )
