"""Small pools of image, and plans of crops that go far beyond their blocks."""

import numpy as np
import torch
from torch import Tensor

from affmae_kernels import CropPlan

# Each block of its own size: also one pixel, one row, one column.
SIZES = ((9, 13), (1, 1), (1, 7), (6, 1), (40, 33), (2, 2))
STRAIGHT = (
    [[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]],
    [[0, -1], [1, 0]], [[1, 0], [0, -1]], [[0, 1], [1, 0]],
)  # fmt: skip
DTYPES = (torch.uint8, torch.int16, torch.uint16, torch.float32)


def draw_pool(dtype: torch.dtype, channels: int) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Blocks one after the other with something between, labels, and where each begins."""
    random = np.random.default_rng(0)
    lengths = [channels * rows * columns + 3 for rows, columns in SIZES]
    numbers = random.integers(0, 65536, sum(lengths))
    kind = str(dtype).removeprefix("torch.")
    pool = (numbers / 7).astype("float32") if kind == "float32" else numbers.astype(kind)
    areas = [rows * columns + 2 for rows, columns in SIZES]
    labels = random.choice(np.array([0, 1, 2, 255], np.uint8), sum(areas))
    starts = [np.cumsum([3, *each])[:-1].tolist() for each in (lengths, areas)]
    pool, labels = np.append(pool, pool[:3]), np.append(labels, labels[:3])
    return torch.from_numpy(pool), torch.from_numpy(labels), *starts


def draw_plan(
    starts: list[int], label_starts: list[int], crop: int, channels: int, bent: bool
) -> CropPlan:
    random = np.random.default_rng(1)
    batch, knots = len(SIZES), -(-crop // 32) + 3
    matrix, shift = np.array(STRAIGHT, np.float32), np.zeros((batch, 2), np.float32)
    bends = np.zeros((batch, 2, knots, knots), np.float32)
    # Far beyond the edges of the small blocks, and in part inside.
    shift[:] = random.integers(-30, 30, (batch, 2)) + (crop - 1) / 2
    shift[0], shift[4] = np.add(((4, 6), (20, 16)), (crop - 1) / 2 % 1)
    if bent:
        # One stays straight; two lie half-way between rows or columns; the others are bent.
        shift[0, 0] += 0.5
        shift[2, 1] += 0.5
        matrix[3:5] += random.normal(0, 0.4, (2, 2, 2))
        shift[3:] += random.normal(0, 3, (3, 2))
        bends[4:] = random.normal(0, 4, (2, 2, knots, knots))
    low = random.uniform(-20, 100, (batch, channels))
    limits = (
        low,
        low + random.uniform(50, 9000, low.shape),
        1 / random.uniform(-90, 90, low.shape),
    )
    limits = np.stack([*limits, random.normal(size=low.shape)], -1)
    limits[1, :, 1] = limits[1, :, 0]
    light = np.stack([random.uniform(a, b, batch) for a, b in ((0.5, 2), (0.7, 1.4), (-1, 1))])
    light = np.concatenate([light, [[0, 0.6, 1.2, 0, 2.0, 0.3], [0, 0, 0.2, 0.7, 0, 0]]])
    fields = {
        "offset": np.array(starts, np.int64),
        "label_offset": np.array(label_starts, np.int64),
        "size": np.array(SIZES, np.int32),
        "matrix": matrix,
        "shift": shift,
        "knots": bends,
        "limits": limits.astype(np.float32),
        "light": np.ascontiguousarray(light.T.astype(np.float32)),
        "key": random.integers(-(2**63), 2**63 - 1, batch),
    }
    return CropPlan(**{name: torch.from_numpy(field) for name, field in fields.items()})
