"""The token index and deformable attention against exhaustive search."""

import pytest
import torch
from torch import Tensor

from affmae_kernels import TokenIndex, deformable_attention


def blobs(batch: int, canvas: tuple[int, int], tokens: int) -> Tensor:
    """Distinct integer positions (B, N, 2) in blobs, with large empty regions."""
    generator = torch.Generator().manual_seed(tokens)
    noise = torch.randn(batch, 1, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, canvas, mode="bicubic").flatten(1)
    cells = smooth.argsort(-1)[:, :tokens]
    return torch.stack([cells % canvas[1], cells // canvas[1]], -1).float()


def nearest_by_sorting(points: Tensor, locations: Tensor, count: int) -> Tensor:
    offset = points[:, None] - locations[:, :, None]
    squared = offset[..., 0].square() + offset[..., 1].square()
    return squared.sort(dim=-1, stable=True).indices[..., :count]


@pytest.mark.parametrize(
    ("canvas", "tokens", "count"),
    [((8, 8), 1, 4), ((8, 8), 3, 4), ((32, 32), 512, 4), ((5, 40), 63, 8), ((40, 24), 12, 4)],
)
def test_nearest_tokens_equal_exhaustive_search(
    canvas: tuple[int, int], tokens: int, count: int
) -> None:
    points = blobs(2, canvas, tokens)
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([canvas[1], canvas[0]])
    # Inside, in the margin, and far off the canvas.
    locations = torch.cat(
        [
            (torch.rand(2, 300, 2, generator=generator) - 0.5) * size * scale + size / 2
            for scale in (1, 2, 9)
        ],
        1,
    )
    index = TokenIndex.build(points, canvas, count)
    expected = nearest_by_sorting(points, locations, min(count, tokens))
    assert torch.equal(index.nearest(locations), expected)


def test_ties_go_to_the_lower_index() -> None:
    points = torch.tensor([[[3.0, 2.0], [2.0, 3.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]])
    found = TokenIndex.build(points, (5, 5), 4).nearest(torch.tensor([[[2.0, 2.0], [2.5, 2.5]]]))
    assert found.tolist() == [[[4, 0, 1, 2], [0, 1, 4, 2]]]


def test_asking_for_more_than_indexed_is_refused() -> None:
    index = TokenIndex.build(blobs(1, (8, 8), 9), (8, 8), 2)
    with pytest.raises(ValueError, match="up to 2 neighbours, not 3"):
        index.nearest(torch.zeros(1, 1, 2), 3)


def deformable_inputs(
    tokens: int, queries: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor, TokenIndex]:
    generator = torch.Generator().manual_seed(3)
    canvas, batch, heads, width, points = (9, 14), 2, 2, 3, 4
    index = TokenIndex.build(blobs(batch, canvas, tokens), canvas, 4)
    query_pos = torch.rand(batch, queries, 2, generator=generator, dtype=torch.float64) * 9
    inputs = [
        torch.randn(batch, tokens, heads, width, generator=generator, dtype=torch.float64),
        torch.randn(batch, queries, heads * points * 3, generator=generator, dtype=torch.float64)
        * 2,
        torch.tensor(1.3, dtype=torch.float64),
    ]
    return [t.to(dtype) for t in inputs], query_pos.to(dtype), index


def deform_by_sorting(inputs: list[Tensor], query_pos: Tensor, index: TokenIndex) -> Tensor:
    values, sampling, power = inputs
    heads = values.shape[2]
    offsets, logits = sampling.split([sampling.shape[2] // 3 * 2, sampling.shape[2] // 3], -1)
    offsets = offsets.unflatten(-1, (heads, -1, 2))
    weights = logits.unflatten(-1, (heads, -1)).softmax(-1)
    out = values.new_zeros(*offsets.shape[:3], values.shape[3])
    for b, q, h, p in torch.cartesian_prod(*(torch.arange(n) for n in weights.shape)).tolist():
        location = query_pos[b, q] + offsets[b, q, h, p]
        distance = (index.points[b].to(location.dtype) - location).norm(dim=-1)
        near = distance.sort(stable=True).indices[:4]
        share = (-power * (distance[near] + 1e-6)).softmax(0)
        out[b, q, h] += weights[b, q, h, p] * (share @ values[b, near, h])
    return out


@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_deformable_attention_equals_a_loop_over_samples(tokens: int) -> None:
    inputs, query_pos, index = deformable_inputs(tokens, 5, torch.float64)
    values, sampling, power = inputs
    torch.testing.assert_close(
        deformable_attention(values, query_pos, sampling, power, index),
        deform_by_sorting(inputs, query_pos, index),
    )


def test_deformable_gradients() -> None:
    inputs, query_pos, index = deformable_inputs(11, 3, torch.float64)
    leaves = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(
        lambda v, s, p: deformable_attention(v, query_pos, s, p, index), leaves
    )


def test_a_sample_on_a_token_has_a_finite_gradient() -> None:
    inputs, _, index = deformable_inputs(11, 3, torch.float32)
    values, sampling, power = inputs
    sampling = torch.zeros_like(sampling).requires_grad_()
    out = deformable_attention(values, index.points[:, :3], sampling, power, index)
    out.sum().backward()
    assert sampling.grad is not None
    assert torch.isfinite(sampling.grad).all()


def test_points_that_fit_no_head_are_refused() -> None:
    inputs, query_pos, index = deformable_inputs(11, 3, torch.float32)
    values, sampling, power = inputs
    with pytest.raises(ValueError, match="must be a multiple of 6, got 23"):
        deformable_attention(values, query_pos, sampling[..., 1:], power, index)
