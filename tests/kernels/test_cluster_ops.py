"""Cluster attention and merging against loops over single queries."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from affmae_kernels import Neighbourhood, cluster_attention, cluster_merge, find_neighbourhood

CANVAS = (12, 17)


def scattered(batch: int, tokens: int, seed: int = 0) -> Tensor:
    """Distinct integer positions (B, N, 2) on the canvas, in scan order of 3 x 3 blocks."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = CANVAS
    noise = torch.rand(batch, rows * columns, generator=generator)
    cells = noise.argsort(-1)[:, :tokens]
    pos = torch.stack([cells % columns, cells // columns], -1)
    block = pos[..., 1] // 3 * 10 + pos[..., 0] // 3
    order = block.sort(dim=-1, stable=True).indices
    return pos.gather(1, order[..., None].expand(-1, -1, 2)).double()


def geometry(query: Tensor, keys: Tensor) -> Tensor:
    rows = []
    for dx, dy in (keys - query).tolist():
        d = math.sqrt(dx * dx + dy * dy)
        rows.append([dx, dy, d, dy / d if d else 0.0, dx / d if d else 0.0])
    return torch.tensor(rows, dtype=torch.float64)


def visible_keys(neighbourhood: Neighbourhood, image: int, query: int) -> list[int]:
    size, tokens = neighbourhood.cluster_size, neighbourhood.key_pos.shape[1]
    clusters = neighbourhood.clusters[image, query].tolist()
    return [t for c in clusters for t in range(c * size, min((c + 1) * size, tokens))]


def attention_inputs(batch: int, tokens: int, heads: int = 2, width: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(batch, tokens, 3, heads, width), (3, heads, width)]
    shapes += [(heads, width)] * 2 + [(heads, 5), (heads,)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def merge_inputs(batch: int, tokens: int, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = [(batch, tokens, channels), (batch, tokens, 1), (4, 5), (4,), (4,), (4,)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def attend_by_loop(inputs: list[Tensor], neighbourhood: Neighbourhood) -> Tensor:
    query_key_value, projection_bias, blank_k, blank_v, weight, bias = inputs
    q, k, v = (query_key_value + projection_bias).unbind(2)
    out = torch.zeros_like(q)
    for b, i, h in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        keys = visible_keys(neighbourhood, b, i)
        g = geometry(neighbourhood.query_pos[b, i], neighbourhood.key_pos[b, keys])
        scale = q.shape[-1] ** -0.5
        logits = (k[b, keys, h] @ q[b, i, h]) * scale + g @ weight[h] + bias[h]
        blank = (blank_k[h] @ q[b, i, h] * scale)[None]
        share = torch.cat([logits, blank]).softmax(0)
        out[b, i, h] = share @ torch.cat([v[b, keys, h], blank_v[h][None]])
    return out


def merge_by_loop(inputs: list[Tensor], neighbourhood: Neighbourhood) -> Tensor:
    x, importance, weight, bias, norm_weight, norm_bias = inputs
    batch, queries = neighbourhood.query_pos.shape[:2]
    out = x.new_zeros(batch, queries, 4 * x.shape[2])
    for b in range(batch):
        for i in range(queries):
            keys = visible_keys(neighbourhood, b, i)
            g = geometry(neighbourhood.query_pos[b, i], neighbourhood.key_pos[b, keys])
            w = F.gelu(F.layer_norm(g @ weight.T + bias, (4,), norm_weight, norm_bias))
            out[b, i] = torch.cat(
                [(w[:, c] * importance[b, keys, 0]) @ x[b, keys] for c in range(4)]
            )
    return out


@pytest.mark.parametrize("tokens", [1, 7, 8, 63, 64, 65, 150])
def test_attention_equals_a_loop_over_queries(tokens: int) -> None:
    neighbourhood = find_neighbourhood(scattered(2, tokens), CANVAS, 24, 8)
    inputs = attention_inputs(2, tokens)
    torch.testing.assert_close(
        cluster_attention(*inputs, neighbourhood), attend_by_loop(inputs, neighbourhood)
    )


@pytest.mark.parametrize("tokens", [1, 9, 150])
def test_merging_equals_a_loop_over_queries(tokens: int) -> None:
    kept = torch.arange(0, tokens, 3).expand(2, -1)
    neighbourhood = find_neighbourhood(scattered(2, tokens), CANVAS, 24, 8).select(kept)
    inputs = merge_inputs(2, tokens)
    torch.testing.assert_close(
        cluster_merge(*inputs, neighbourhood), merge_by_loop(inputs, neighbourhood)
    )


def test_attention_gradients() -> None:
    neighbourhood = find_neighbourhood(scattered(2, 37), CANVAS, 16, 8)
    inputs = [t.requires_grad_() for t in attention_inputs(2, 37, width=2)]
    assert torch.autograd.gradcheck(lambda *t: cluster_attention(*t, neighbourhood), inputs)


def test_merging_gradients() -> None:
    kept = torch.tensor([[0, 2, 3, 20, 36], [1, 5, 9, 10, 11]])
    neighbourhood = find_neighbourhood(scattered(2, 37), CANVAS, 16, 8).select(kept)
    inputs = [t.requires_grad_() for t in merge_inputs(2, 37)]
    assert torch.autograd.gradcheck(lambda *t: cluster_merge(*t, neighbourhood), inputs)


def test_a_stage_no_larger_than_the_neighbourhood_attends_globally() -> None:
    neighbourhood = find_neighbourhood(scattered(1, 30), CANVAS, 30, 8)
    assert visible_keys(neighbourhood, 0, 0) == list(range(30))


def test_neighbour_clusters_come_nearest_first_and_ties_go_to_the_lower() -> None:
    row = torch.stack([torch.arange(6.0), torch.zeros(6)], -1)[None]
    neighbourhood = find_neighbourhood(row, (1, 6), 4, 2)
    # Centres lie at 0.5, 2.5 and 4.5, so tokens 0 to 2 have the first two nearest;
    # the token at 2 is half a cell from the second.
    assert neighbourhood.clusters[0].tolist() == [[0, 1], [0, 1], [1, 0], [1, 2], [2, 1], [2, 1]]


def test_non_contiguous_inputs_give_the_same_gradients() -> None:
    neighbourhood = find_neighbourhood(scattered(2, 40), CANVAS, 16, 8)
    plain = [t.requires_grad_() for t in attention_inputs(2, 40)]
    strided = [t.detach().mT.contiguous().mT.requires_grad_() for t in plain[:4]] + [
        t.detach().clone().requires_grad_() for t in plain[4:]
    ]
    outputs = [cluster_attention(*t, neighbourhood) for t in (plain, strided)]
    for out in outputs:
        out.transpose(1, 2).square().sum().backward()
    torch.testing.assert_close(*outputs)
    for a, b in zip(plain, strided, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
