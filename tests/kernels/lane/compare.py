"""Compare every kernel with PyTorch on tiny inputs, outputs and gradients; ends with an error.

Memory is filled with NaN before the kernels write to it.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from uninitialised import filled

from affmae_kernels import (
    CellOrder,
    TokenIndex,
    TokenSearch,
    add_positions,
    ascending,
    cluster_attention,
    cluster_merge,
    column_sums,
    deformable_attention,
    dice_focal,
    find_neighbourhood,
    gelu,
    index_tokens,
    masked_convolution,
    order_tokens,
    relu_dropout,
    residual_norm,
)
from affmae_kernels._dispatch import Backend
from affmae_kernels.dice_focal import _triton as loss
from affmae_kernels.dropout import _triton as dropout
from affmae_kernels.neighbours import _triton as neighbours
from affmae_kernels.residual_norm import _triton as norm

CANVAS = (6, 9)


def scattered(batch: int, tokens: int, seed: int) -> Tensor:
    """Draw distinct integer positions (B, N, 2), sorted by 3 x 3 blocks."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(batch, CANVAS[0] * CANVAS[1], generator=generator).argsort(-1)[:, :tokens]
    pos = torch.stack([cells % CANVAS[1], cells // CANVAS[1]], -1)
    order = (pos[..., 1] // 3 * 3 + pos[..., 0] // 3).sort(dim=-1, stable=True).indices
    return pos.gather(1, order[..., None].expand(-1, -1, 2)).float()


def compare(
    name: str,
    call: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    strided: bool = False,
) -> None:
    """Hold outputs and gradients of both backends against each other."""
    results = []
    for backend in ("torch", "triton"):
        leaves = [t.clone().requires_grad_() for t in inputs]
        given = leaves
        if strided and backend == "triton":
            given = [t.mT.contiguous().mT if t.ndim > 2 else t for t in leaves]
        result = call(*given, backend=backend)
        outs = result if isinstance(result, tuple) else (result,)
        generator = torch.Generator().manual_seed(5)
        sums = [(out * torch.randn(out.shape, generator=generator)).sum() for out in outs]
        torch.stack(sums).sum().backward()
        results.append([*(out.detach() for out in outs), *(leaf.grad for leaf in leaves)])
    for place, (expected, found) in enumerate(zip(*results, strict=True)):
        torch.testing.assert_close(
            found, expected, rtol=2e-4, atol=2e-5, msg=lambda m, p=place: f"{name}, {p}: {m}"
        )


def check_neighbours() -> None:
    """Nearest clusters and tokens, on and off the canvas, with lists that are too short."""
    pos = scattered(2, 41, 0)
    nearest = [find_neighbourhood(pos, CANVAS, 24, 8, backend=b) for b in ("torch", "triton")]
    assert torch.equal(nearest[0].clusters, nearest[1].clusters)
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([CANVAS[1], CANVAS[0]])
    locations = (torch.rand(2, 20, 2, generator=generator) * 2 - 0.5) * spread
    locations[:, 0] = 40.0
    locations = torch.cat([locations, locations.round()], 1)
    for tokens in (1, 3, 7, 41):
        points = scattered(2, tokens, tokens)
        expected = TokenIndex.build(points, CANVAS, 4).nearest(locations)
        table = index_tokens(points, CANVAS, 4, backend="triton")
        assert torch.equal(table.nearest(locations), expected), tokens
    short = neighbours.list_candidates(table.buckets.heads, 41, 4, 2, 6)
    found = neighbours.nearest_samples(
        locations, torch.zeros(2, 40, 1, 2), table.buckets.heads, table.points, *short, 4, margin=2
    )
    assert torch.equal(found[:, :, 0].long(), expected)


def check_orders() -> None:
    """Cells that tie, several images, and tables that fill no block."""
    generator = torch.Generator().manual_seed(14)
    for tokens in (1, 20, 54):
        pos = scattered(2, tokens, tokens)
        for ranks in (torch.arange(54) // 5, torch.randperm(54, generator=generator)):
            order = CellOrder.of(ranks, pos.device)
            found = [order_tokens(pos, CANVAS[1], order, backend=b) for b in ("torch", "triton")]
            assert torch.equal(*found)
    indices = torch.rand(3, 5000, generator=generator).argsort(-1)[:, :700]
    assert torch.equal(*(ascending(indices, 5000, backend=b) for b in ("torch", "triton")))


def check_lists() -> None:
    """Clusters of tiles with their owners, and queries of clusters."""
    found = find_neighbourhood(scattered(2, 41, 0), CANVAS, 24, 8, backend="triton")
    lists, count = found.lists, found.cluster_count
    for image, tile in ((0, 0), (0, 1), (1, 0), (1, 1)):
        owners: dict[int, int] = {}
        for row, clusters in enumerate(found.clusters[image, tile * 32 : tile * 32 + 32].tolist()):
            for cluster in clusters:
                owners[cluster] = owners.get(cluster, 0) | 1 << row
        length = lists.lengths[image, tile]
        bits = [b & 0xFFFFFFFF for b in lists.bits[image, tile, :length].tolist()]
        ids = lists.ids[image, tile, :length].tolist()
        assert dict(zip(ids, bits, strict=True)) == owners
    for image in range(2):
        for cluster in range(count):
            start, end = lists.bounds[:, image * count + cluster]
            wanted = (found.clusters[image] == cluster).any(-1).nonzero().flatten()
            assert torch.equal(lists.queries[start:end].long(), wanted)


def check_cluster_ops() -> None:
    """Several tiles and a short last cluster, a global stage, one token, odd widths."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    for tokens, heads, width in ((41, 2, 5), (13, 1, 16), (1, 1, 4)):
        around = find_neighbourhood(scattered(1, tokens, 3), CANVAS, 16, 8, backend="triton")
        inputs = [draw(1, tokens, 3, heads, width), draw(3, heads, width)]
        inputs += [draw(heads, width), draw(heads, width), draw(heads, 5), draw(heads)]
        compare(
            f"attention of {tokens}",
            lambda *t, backend, around=around: cluster_attention(*t, around, backend=backend),
            inputs,
            strided=tokens == 41,
        )
        compare(
            f"attention of {tokens} without a bias",
            lambda x, *t, backend, around=around: cluster_attention(
                x, None, *t, around, backend=backend
            ),
            [inputs[0], *inputs[2:]],
        )
        kept = torch.arange(0, tokens, 3)[None]
        selected = around.select(kept)
        inputs = [draw(1, tokens, 6), draw(1, tokens, 1).sigmoid(), draw(4, 5), draw(4)]
        inputs += [draw(4), draw(4)]
        compare(
            f"merging of {tokens}",
            lambda *t, backend, selected=selected: cluster_merge(*t, selected, backend=backend),
            inputs,
            strided=tokens == 41,
        )


def check_deformable() -> None:
    """More and fewer tokens than are interpolated, a sample on a token, odd numbers of points.

    All queries share a token or three, and neighbours some of 25.
    """
    generator = torch.Generator().manual_seed(4)
    for tokens, points, width in ((1, 2, 6), (2, 1, 4), (3, 5, 6), (25, 3, 20), (25, 4, 16)):
        pos, queries = scattered(2, tokens, 6), scattered(2, 9, 7)
        indices = {b: index_tokens(pos, CANVAS, 4, backend=b) for b in ("torch", "triton")}
        offsets = torch.randn(2, 9, 2, points, 2, generator=generator) * 2
        offsets[:, 0] = (pos[:, 0] - queries[:, 0])[:, None, None]
        logits = torch.randn(2, 9, 2, points, generator=generator) * 2
        inputs = [
            torch.randn(2, tokens, 2, width, generator=generator),
            torch.cat([offsets.flatten(2), logits.flatten(2)], -1),
            torch.tensor(1.3),
        ]

        def call(
            v: Tensor, s: Tensor, p: Tensor, backend: Backend,
            queries: Tensor = queries, indices: Mapping[str, TokenSearch] = indices,
        ) -> Tensor:  # fmt: skip
            wide = torch.cat([s, s], -1)[..., : s.shape[-1]]  # rows apart in memory
            return deformable_attention(v, queries, wide, p, indices[backend], backend=backend)

        name = f"deformable attention to {tokens} with {points} points"
        compare(name, call, inputs, strided=tokens == 25)


def check_convolution() -> None:
    """Hidden patches and none, several channels, sizes that fill no block."""
    generator = torch.Generator().manual_seed(10)
    for channels, outputs, masked in ((1, 5, True), (3, 16, True), (1, 24, False)):
        images = torch.randn(2, channels, 24, 40, generator=generator)
        shown = torch.rand(2, 1, 3, 5, generator=generator).round() if masked else None
        inputs = [torch.randn(outputs, channels, 3, 3, generator=generator)]
        inputs += [torch.randn(outputs, generator=generator) for _ in range(3)]
        compare(
            f"convolution of {channels} channels",
            lambda *t, backend, images=images, shown=shown: masked_convolution(
                images, shown, *t, backend=backend
            ),
            inputs,
        )
        compare(
            f"convolution of {channels} channels, with a gradient for them",
            lambda images, *t, backend, shown=shown: masked_convolution(
                images, shown, *t, backend=backend
            ),
            [images, *inputs],
        )


def check_norm() -> None:
    """A sum and a single summand, few rows and many, and what is dropped."""
    generator = torch.Generator().manual_seed(11)
    for rows, channels in ((1, 7), (70, 48)):
        inputs = [torch.randn(2, rows, channels, generator=generator) for _ in range(2)]
        inputs += [torch.randn(channels, generator=generator) for _ in range(3)]
        factors = torch.tensor([0.0, 1.3])
        compare(
            f"norm of a sum of {rows} rows",
            lambda x, y, w, b, c, backend, f=factors: residual_norm(
                x, y, w, b, branch_bias=c, factors=f, backend=backend
            ),
            inputs,
        )
        compare(
            f"norm of a sum of {rows} rows that ends there",
            lambda x, y, w, b, backend: residual_norm(x, y, w, b, backend=backend)[0],
            inputs[:4],
        )
        compare(
            f"a sum of {rows} rows alone",
            lambda x, y, backend, c=channels: residual_norm(
                x, y, torch.ones(c), torch.zeros(c), backend=backend
            )[1],
            inputs[:2],
        )
        compare(
            f"norm of {rows} rows",
            lambda x, w, b, backend: residual_norm(x, None, w, b, backend=backend),
            [inputs[0], *inputs[2:4]],
        )
    x, branch = (torch.randn(50, 40, generator=generator) for _ in range(2))
    seed, ones = torch.tensor([7]), torch.ones(40)
    _, total, *kept = norm.residual_norm_forward(
        x, branch, ones, 0 * ones, None, None, seed, 0.3, 1e-5, x.dtype
    )
    added = total - x
    dropped = added.abs() < 1e-6
    assert 0.25 < dropped.float().mean() < 0.35
    torch.testing.assert_close(added[~dropped], branch[~dropped] / 0.7)
    grads = norm.residual_norm_backward(
        branch, None, total, ones, None, None, seed, *kept, 0.3, x.dtype, x.dtype
    )
    torch.testing.assert_close(grads[1], torch.where(dropped, 0.0, grads[0] / 0.7))


def check_activations() -> None:
    """With a bias and without, and what is dropped; sizes that fill no tile."""
    generator = torch.Generator().manual_seed(12)
    for rows, channels in ((1, 7), (2100, 40), (37, 130)):
        x = torch.randn(rows, channels, generator=generator)
        bias = torch.randn(channels, generator=generator)
        for inputs in ([x], [x, bias]):
            compare(f"GELU of {rows} rows", gelu, inputs)
            compare(
                f"ReLU of {rows} rows",
                lambda x, b=None, *, backend: relu_dropout(x * 1, b, 0.0, backend=backend),
                inputs,
            )
        sums = [column_sums(x, backend=b) for b in ("torch", "triton")]
        torch.testing.assert_close(sums[1], sums[0], rtol=1e-5, atol=1e-4)
    x, bias, seed = torch.randn(50, 40), torch.randn(40), torch.tensor([7])
    x.requires_grad_()
    out = dropout.relu_dropout_forward(x, bias, seed, 0.3)
    grad = torch.randn(50, 40)
    out.backward(grad)
    kept, positive = out > 0, x + bias > 0
    assert 0.65 < kept[positive].float().mean() < 0.75
    torch.testing.assert_close(out[kept], (x + bias)[kept] / 0.7)
    torch.testing.assert_close(x.grad, torch.where(kept, grad / 0.7, 0.0))


def check_positions() -> None:
    """Tokens of their own, and a shared vector."""
    generator = torch.Generator().manual_seed(13)
    pos = scattered(2, 41, 4)
    waves = tuple(torch.randn(n, 10, generator=generator) for n in reversed(CANVAS))
    for shape in ((2, 41, 20), (20,)):
        compare(
            f"positions added to {shape}",
            lambda x, backend: add_positions(x, pos, waves, backend=backend),
            [torch.randn(shape, generator=generator)],
        )


def check_loss() -> None:
    """Pixels that are ignored, all of them too; views of larger logits; many steps and programs."""
    generator = torch.Generator().manual_seed(12)
    sizes = (loss.NUMBERS, loss.PROGRAMS)
    for classes, height, width, gamma, ignored, few in (
        (2, 1, 1, 2.0, -100, False),
        (3, 33, 31, 0.0, 1, False),
        (5, 40, 32, 0.5, -100, True),
        (32, 9, 17, 1.7, 255, False),
    ):
        loss.NUMBERS, loss.PROGRAMS = (64, 20) if few else sizes
        logits = 4 * torch.randn(2, classes, height + 2, width + 3, generator=generator)
        target = torch.randint(classes, (2, height, width), generator=generator)
        target[1, : height // 2, ::3] = ignored
        weight = torch.rand(classes, generator=generator) if few else None
        for labels in (target, torch.full_like(target, ignored)):
            for layout in (torch.contiguous_format, torch.channels_last, None):
                compare(
                    f"loss of {classes} classes, {layout}",
                    # Times the pixels, so that gradients are not all below the tolerance.
                    lambda x, backend, t=labels, w=weight, g=gamma, i=ignored, m=layout: (
                        dice_focal(cropped(x, t.shape[1:], m), t, w, g, i, backend) * t.numel()
                    ),
                    [logits],
                )
    loss.NUMBERS, loss.PROGRAMS = sizes


def cropped(x: Tensor, size: Sequence[int], layout: torch.memory_format | None) -> Tensor:
    """Cut off what is beyond `size`: a view, or laid out anew."""
    x = x[..., : size[0], : size[1]]
    return x if layout is None else x.contiguous(memory_format=layout)


if __name__ == "__main__":
    with filled():
        check_neighbours()
        check_orders()
        check_lists()
        check_cluster_ops()
        check_deformable()
        check_convolution()
        check_norm()
        check_activations()
        check_positions()
        check_loss()
