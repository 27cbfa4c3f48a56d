"""Cluster order against the definition, token by token."""

import math

import pytest
import torch
from torch import Tensor

from napari_affmae.model.tokens.clustering import cluster_order


def scattered(canvas: tuple[int, int], tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    cells = torch.stack(
        [torch.randperm(canvas[0] * canvas[1], generator=generator)[:tokens] for _ in range(2)]
    )
    return torch.stack([cells % canvas[1], cells // canvas[1]], dim=-1).float()


def order_by_definition(pos: list[list[float]], canvas: tuple[int, int], size: int) -> list[int]:
    height, width = canvas
    clusters = math.ceil(len(pos) / size)
    side = math.sqrt(width * height / clusters)
    boxes_y, boxes_x = max(1, round(height / side)), max(1, round(width / side))
    if boxes_x * boxes_y == 1:
        return list(range(len(pos)))
    box_x, box_y = width / boxes_x, height / boxes_y
    snake = []
    for row in range(boxes_y):
        columns = range(boxes_x) if row % 2 == 0 else reversed(range(boxes_x))
        snake += [(column, row) for column in columns]
    centres = [((x + 0.5) * box_x - 0.5, (y + 0.5) * box_y - 0.5) for x, y in snake]

    def beyond(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        return (2 * a[0] - b[0], 2 * a[1] - b[1])

    stops = [beyond(*centres[:2]), *centres, beyond(centres[-1], centres[-2])]

    def key(index: int) -> tuple[int, int]:
        x, y = pos[index]
        rank = snake.index((math.floor(x / box_x), math.floor(y / box_y)))
        before, after = (
            (x - stop[0]) ** 2 + (y - stop[1]) ** 2 for stop in (stops[rank], stops[rank + 2])
        )
        return rank, round(before / (after + 1e-5) * 1e4)

    return sorted(range(len(pos)), key=key)


@pytest.mark.parametrize(
    ("canvas", "tokens"),
    [((8, 8), 1), ((8, 8), 9), ((8, 8), 64), ((13, 30), 63), ((32, 32), 512), ((40, 9), 200)],
)
def test_order_follows_the_snake(canvas: tuple[int, int], tokens: int) -> None:
    pos = scattered(canvas, tokens)
    expected = [order_by_definition(image, canvas, 8) for image in pos.tolist()]
    assert cluster_order(pos, canvas, 8).tolist() == expected


def test_a_full_canvas_gives_compact_clusters() -> None:
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    pos = torch.stack([columns, rows], dim=-1).view(1, 256, 2).float()
    clusters = pos[0, cluster_order(pos, (16, 16), 8)[0]].view(32, 8, 2)
    extent = clusters.amax(1) - clusters.amin(1)
    assert extent.max() <= 4
