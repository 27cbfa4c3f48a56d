"""The definition, in plain PyTorch."""

import math

import torch
from torch import Tensor

from affmae_kernels.cut_crops.arithmetic import (
    NOT_LABELLED,
    blurred,
    classes,
    decoded,
    interpolated,
    mirrored,
    nearest,
    normalised,
    normals,
    places,
    with_contrast,
    with_gamma,
)
from affmae_kernels.cut_crops.plan import CropPlan

Spans = tuple[tuple[int, int], tuple[int, int]]


def cut_crops_reference(
    pool: Tensor,
    plan: CropPlan,
    crop: int,
    labels: Tensor | None,
    bent: bool,
    lit: bool,
    blurry: bool,
    ignored: int,
) -> tuple[Tensor, Tensor | None]:
    """See `affmae_kernels.cut_crops`.

    On a CPU crops are cut one by one: their arrays stay in its cache, and each
    crop costs only what it needs. Elsewhere all are cut at once, and nothing
    waits for the device.
    """
    if not pool.is_cpu:
        return _cut_together(pool, plan, crop, labels, bent, lit, blurry, ignored)
    batch, channels, _ = plan.limits.shape
    images = torch.empty(batch, channels, crop, crop)
    targets = None if labels is None else torch.empty((batch, crop, crop), dtype=torch.int64)
    for n in range(batch):
        one = CropPlan(*(field[n : n + 1] for field in plan))
        image, label = _cut_one(pool, one, crop, labels, bent)
        images[n] = _change_one(image, one, lit, blurry)[0]
        if targets is not None and label is not None:
            targets[n] = classes(label, ignored)
    return images, targets


def _cut_together(
    pool: Tensor,
    plan: CropPlan,
    crop: int,
    labels: Tensor | None,
    bent: bool,
    lit: bool,
    blurry: bool,
    ignored: int,
) -> tuple[Tensor, Tensor | None]:
    row, column = places(plan.matrix, plan.shift, plan.knots if bent else None, crop)
    rows, columns = plan.size[:, :, None, None].unbind(1)
    channels = plan.limits.shape[1]
    channel = torch.arange(channels, device=pool.device)[:, None, None]
    first = plan.offset[:, None, None, None] + channel * (rows.long() * columns)[:, None]
    values = _as_signed(pool)

    def pixel(down: Tensor, right: Tensor) -> Tensor:
        """Address pixels in a block."""
        return mirrored(down, rows).long() * columns + mirrored(right, columns).long()

    def load(down: Tensor, right: Tensor) -> Tensor:
        at = first + pixel(down, right)[:, None]
        return normalised(decoded(values[at], pool.dtype), plan.limits)

    top, left = (row.floor(), column.floor()) if bent else (nearest(row), nearest(column))
    images = load(top, left)
    if bent:
        corners = (images, load(top, left + 1), load(top + 1, left), load(top + 1, left + 1))
        images = interpolated(corners, (row - top)[:, None], (column - left)[:, None])
    images = _changed(images, plan, lit, blurry)
    if labels is None:
        return images, None
    down, right = nearest(row), nearest(column)
    inside = (down >= 0) & (down < rows) & (right >= 0) & (right < columns)
    label = labels[plan.label_offset[:, None, None] + pixel(down, right)]
    return images, classes(torch.where(inside, label, NOT_LABELLED), ignored)


def _changed(images: Tensor, plan: CropPlan, lit: bool, blurry: bool) -> Tensor:
    """Change light and noise of all crops; what is to stay as it is stays."""
    gamma, contrast, brightness, sigma, deviation = plan.light.unbind(1)
    if lit:
        images = with_gamma(images, plan.limits, gamma)
        images = with_contrast(images, contrast, brightness)
    if blurry:
        images = blurred(images, sigma)
        noise = normals(plan.key, images.shape[1], images.shape[2])
        images = images + deviation[:, None, None, None] * noise
    return images


def _change_one(image: Tensor, one: CropPlan, lit: bool, blurry: bool) -> Tensor:
    """Change light and noise of a crop (1, C, crop, crop), each only where it is changed."""
    gamma, contrast, brightness, sigma, deviation = one.light[0].tolist()
    by = one.light.unbind(1)
    if lit and gamma != 1:
        image = with_gamma(image, one.limits, by[0])
    if lit and (contrast != 1 or brightness != 0):
        image = with_contrast(image, by[1], by[2])
    if blurry and sigma > 0:
        image = blurred(image, by[3])
    if blurry and deviation > 0:
        image = image + deviation * normals(one.key, image.shape[1], image.shape[2])
    return image


def _cut_one(
    pool: Tensor, one: CropPlan, crop: int, labels: Tensor | None, bent: bool
) -> tuple[Tensor, Tensor | None]:
    """Cut a crop (1, C, crop, crop), and its labels (crop, crop) of uint8."""
    (rows, columns), channels = one.size[0].tolist(), one.limits.shape[1]
    block = _as_signed(pool).narrow(0, int(one.offset), channels * rows * columns)
    block = block.view(1, channels, rows, columns)
    label = None
    if labels is not None:
        label = labels.narrow(0, int(one.label_offset), rows * columns).view(rows, columns)
    curved = bent and bool(one.knots.any())
    if not bent or (not curved and _is_straight(one, crop)):
        spans, turn = _straight_spans(one, crop), _turn_of(one)
        image = _turned(_window(block, spans), *turn)
        image = normalised(decoded(image, pool.dtype), one.limits)
        return image, None if label is None else _turned(_label_window(label, spans), *turn)
    row, column = (t[0] for t in places(one.matrix, one.shift, one.knots if curved else None, crop))
    spans = _span(row), _span(column)
    window = normalised(decoded(_window(block, spans), pool.dtype), one.limits)
    image = _bent(window, spans, row, column)
    if label is not None:
        window = _label_window(label, spans)
        at = _address(nearest(row), nearest(column), spans)
        label = window.flatten().index_select(0, at).view(crop, crop)
    return image, label


def _bent(window: Tensor, spans: Spans, row: Tensor, column: Tensor) -> Tensor:
    """Interpolate a window (1, C, h, w) of a block at places (crop, crop) of the block."""
    width = window.shape[-1]
    top, left = row.floor(), column.floor()
    at = _address(top, left, spans)
    down, right = row - top, column - left
    channels = []
    for channel in window[0].flatten(1):
        # The neighbours of a pixel have its address in the rest of the window.
        corners = (
            channel[step:].index_select(0, at).view_as(row) for step in (0, 1, width, width + 1)
        )
        channels.append(interpolated(tuple(corners), down, right))
    return torch.stack(channels)[None]


def _address(row: Tensor, column: Tensor, spans: Spans) -> Tensor:
    """Address whole places of a block in the window of it that `spans` cut out."""
    (first_row, _), (first_column, last_column) = spans
    width = last_column - first_column + 1
    return ((row.int() - first_row) * width + (column.int() - first_column)).flatten().long()


def _span(place: Tensor) -> tuple[int, int]:
    """First and last pixel that the places of a crop need on one axis."""
    low, high = (float(end) for end in place.aminmax())
    return math.floor(low), math.floor(high) + 1


def _is_straight(one: CropPlan, crop: int) -> bool:
    """Tell whether the pixels of a crop without displacement are pixels of its block."""
    (a, b), (c, d) = one.matrix[0].tolist()
    permuted = {abs(a), abs(b)} == {0.0, 1.0} and abs(d) == abs(a) and abs(c) == abs(b)
    return permuted and all((s - (crop - 1) / 2).is_integer() for s in one.shift[0].tolist())


def _straight_spans(one: CropPlan, crop: int) -> Spans:
    """First and last row and column of the block that are in a straight crop."""
    reach = (crop - 1) / 2
    row, column = one.shift[0].tolist()
    return (
        (round(row - reach), round(row + reach)),
        (round(column - reach), round(column + reach)),
    )


def _turn_of(one: CropPlan) -> tuple[list[int], bool]:
    """Tell which axes of the block a straight crop reverses, and whether it swaps them."""
    (a, b), (c, d) = one.matrix[0].tolist()
    return [axis for axis, sign in ((-2, a + b), (-1, c + d)) if sign < 0], a == 0


def _turned(window: Tensor, reverse: list[int], swap: bool) -> Tensor:
    window = window.flip(reverse) if reverse else window
    # Transposed while the values are small; else the copy of float32 would be slow.
    return window.mT.contiguous() if swap else window


def _window(block: Tensor, spans: Spans) -> Tensor:
    """Cut spans of rows and columns out of a block (..., rows, columns), mirrored beyond it."""
    for axis, (first, last) in zip((-2, -1), spans, strict=True):
        size = block.shape[axis]
        if first >= 0 and last < size:
            block = block.narrow(axis, first, last - first + 1)
        else:
            place = torch.arange(first, last + 1)
            block = block.index_select(axis, mirrored(place, torch.tensor(size)).long())
    return block


def _label_window(labels: Tensor, spans: Spans) -> Tensor:
    """Cut spans of rows and columns out of labels; beyond these nothing is labelled."""
    window = _window(labels, spans)
    for axis, (first, last) in enumerate(spans):
        place = torch.arange(first, last + 1)
        outside = ((place < 0) | (place >= labels.shape[axis])).nonzero()[:, 0]
        if len(outside):
            window = window.index_fill(axis, outside, NOT_LABELLED)
    return window


def _as_signed(values: Tensor) -> Tensor:
    """PyTorch has few operations for uint16; see `decoded`."""
    return values.view(torch.int16) if values.dtype == torch.uint16 else values
