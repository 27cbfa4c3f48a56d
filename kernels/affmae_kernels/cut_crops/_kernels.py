"""Triton kernels of crops: one tile of one channel of a crop a program.

A tile is as large as the space between knots, so all its pixels are moved by the
same 16 of them.
"""

import triton
import triton.language as tl

from affmae_kernels._hash_kernels import hashed, normal, seed_of

_RADIUS = tl.constexpr(4)
_NOT_LABELLED = tl.constexpr(255)


@triton.jit
def _mirrored(place, size):
    """Reflect whole places, as float32, beyond 0 and `size` - 1 about these."""
    period = tl.maximum(2 * (size - 1), 1).to(tl.float32)
    # Whole places are far enough from the ties of this rounding.
    return tl.abs(place - period * tl.floor(place * (1.0 / period) + 0.5))


@triton.jit
def _weights(t):
    """Evaluate the four cubic B-splines that reach a place between two knots."""
    u = 1.0 - t
    first, last = u * u * u / 6.0, t * t * t / 6.0
    second = ((3.0 * t - 6.0) * t * t + 4.0) / 6.0
    third = (((3.0 - 3.0 * t) * t + 3.0) * t + 1.0) / 6.0
    return first, second, third, last


@triton.jit
def _displacement(knots, columns, down, right):
    """Add up 16 knots, weighted for the rows and for the columns of a tile."""
    i0, i1, i2, i3 = _weights(down)
    j0, j1, j2, j3 = _weights(right)
    total = i0[:, None] * _knot_row(knots, j0, j1, j2, j3)[None, :]
    total += i1[:, None] * _knot_row(knots + columns, j0, j1, j2, j3)[None, :]
    total += i2[:, None] * _knot_row(knots + 2 * columns, j0, j1, j2, j3)[None, :]
    total += i3[:, None] * _knot_row(knots + 3 * columns, j0, j1, j2, j3)[None, :]
    return total


@triton.jit
def _knot_row(knots, j0, j1, j2, j3):
    total = tl.load(knots) * j0 + tl.load(knots + 1) * j1
    return total + tl.load(knots + 2) * j2 + tl.load(knots + 3) * j3


@triton.jit
def _scaled(values, low, high, scale, offset):
    """Clip and scale values of a pool."""
    return tl.minimum(tl.maximum(values.to(tl.float32), low), high) * scale + offset


@triton.jit
def _take(source, y, x, y_real, x_real, turned, OTHER: tl.constexpr):
    """Load a tile whose addresses are sums of one number for each row and each column.

    Where the crop is turned, its columns run along the block's rows: a tile is
    read with these together and transposed.
    """
    if turned:
        mask = x_real[:, None] & y_real[None, :]
        values = tl.trans(tl.load(source + x[:, None] + y[None, :], mask=mask, other=OTHER))
    else:
        mask = y_real[:, None] & x_real[None, :]
        values = tl.load(source + y[:, None] + x[None, :], mask=mask, other=OTHER)
    return values


@triton.jit
def _with_light(value, light, low, high, scale, offset):
    """Change gamma, contrast and brightness."""
    gamma = tl.load(light)
    first, last = low * scale + offset, high * scale + offset
    least = tl.minimum(first, last)
    span = tl.maximum(first, last) - least
    if (gamma != 1.0) & (span > 0.0):
        # Rounding may have put an interpolated value just outside the range.
        share = tl.minimum(tl.maximum((value - least) / span, 0.0), 1.0)
        power = tl.exp2(gamma * tl.log2(tl.maximum(share, 1e-37)))
        value = tl.where(share > 0.0, power, 0.0) * span + least
    return value * tl.load(light + 1) + tl.load(light + 2)


@triton.jit
def _with_noise(value, light, key, channel, pixel):
    """Add what noise there is."""
    deviation = tl.load(light + 4)
    if deviation > 0.0:
        seed = seed_of(tl.load(key))
        value += deviation * normal(pixel, hashed(2 * channel, seed), hashed(2 * channel + 1, seed))
    return value


@triton.jit
def _is_straight(m00, m01, m10, m11, s0, s1, centre):
    """Tell whether a crop without displacement has its pixels on those of the block."""
    upright = (m01 == 0.0) & (m10 == 0.0) & (tl.abs(m00) == 1.0) & (tl.abs(m11) == 1.0)
    turned = (m00 == 0.0) & (m11 == 0.0) & (tl.abs(m01) == 1.0) & (tl.abs(m10) == 1.0)
    top, left = s0 - centre, s1 - centre
    return (upright | turned) & (top == tl.floor(top)) & (left == tl.floor(left))


@triton.jit
def _cut_straight(
    pool, labels, rows, columns, m00, m01, m10, m11, s0, s1, down, right, i_real, j_real, labelled,
    low, high, scale, offset, LABELLED: tl.constexpr,
):  # fmt: skip
    """Load a tile of a straight crop, whose axes run along those of the block."""
    turned = m00 == 0.0
    y = tl.where(turned, m10, m00) * down + tl.where(turned, s1, s0)
    x = tl.where(turned, m01, m11) * right + tl.where(turned, s0, s1)
    y, x = tl.floor(y + 0.5), tl.floor(x + 0.5)
    height, width = tl.where(turned, columns, rows), tl.where(turned, rows, columns)
    along_y = _mirrored(y, height).to(tl.int64) * tl.where(turned, 1, columns)
    along_x = _mirrored(x, width).to(tl.int64) * tl.where(turned, columns, 1)
    values = _take(pool, along_y, along_x, i_real, j_real, turned, 0)
    label = tl.zeros(values.shape, tl.uint8)
    if LABELLED:
        y_real, x_real = labelled & (y >= 0) & (y < height), j_real & (x >= 0) & (x < width)
        label = _take(labels, along_y, along_x, y_real, x_real, turned, _NOT_LABELLED)
    return _scaled(values, low, high, scale, offset), label


@triton.jit
def _cut_bent(
    pool, labels, rows, columns, m00, m01, m10, m11, s0, s1, y, x, i_real, j_real, labelled,
    low, high, scale, offset, LABELLED: tl.constexpr,
):  # fmt: skip
    """Interpolate a tile of a bent crop, and take the nearest pixels' labels."""
    real = i_real[:, None] & j_real[None, :]
    row, column = m00 * y + m01 * x + s0, m10 * y + m11 * x + s1
    top, left = tl.floor(row), tl.floor(column)
    down, right = row - top, column - left
    upper = pool + _mirrored(top, rows).to(tl.int64) * columns
    lower = pool + _mirrored(top + 1.0, rows).to(tl.int64) * columns
    first = _mirrored(left, columns).to(tl.int32)
    second = _mirrored(left + 1.0, columns).to(tl.int32)
    a = _scaled(tl.load(upper + first, mask=real, other=0), low, high, scale, offset)
    b = _scaled(tl.load(upper + second, mask=real, other=0), low, high, scale, offset)
    value = a + (b - a) * right
    a = _scaled(tl.load(lower + first, mask=real, other=0), low, high, scale, offset)
    b = _scaled(tl.load(lower + second, mask=real, other=0), low, high, scale, offset)
    value += (a + (b - a) * right - value) * down
    label = tl.zeros(value.shape, tl.uint8)
    if LABELLED:
        row, column = tl.floor(row + 0.5), tl.floor(column + 0.5)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        label = tl.load(
            labels + row.to(tl.int64) * columns + column.to(tl.int32),
            mask=labelled[:, None] & j_real[None, :] & inside, other=_NOT_LABELLED,
        )  # fmt: skip
    return value, label


@triton.jit
def _any_knot(knots, columns):
    """Tell whether one of the 16 knots around a tile moves it in rows or in columns."""
    lane = tl.arange(0, 16)
    around = lane // 4 * columns + lane % 4
    moved = tl.abs(tl.load(knots + around)) + tl.abs(tl.load(knots + columns * columns + around))
    return tl.max(moved, axis=0) > 0.0


@triton.jit(do_not_specialize=["crop", "knot_columns", "ignored"])
def _cut_crops_fwd_kernel(
    pool, labels, offset, label_offset, size, matrix, shift, knots, limits, light, key,
    out, unblurred, targets, crop, knot_columns, ignored,
    BENT: tl.constexpr, LIT: tl.constexpr, BLURRED: tl.constexpr, LABELLED: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Cut a tile; what is still to be blurred goes to `unblurred`."""
    n, channel = tl.program_id(1).to(tl.int64), tl.program_id(2)
    across = tl.cdiv(crop, TILE)
    tile_row, tile_column = tl.program_id(0) // across, tl.program_id(0) % across
    lane = tl.arange(0, TILE)
    i, j = tile_row * TILE + lane, tile_column * TILE + lane
    i_real, j_real = i < crop, j < crop
    # Labels are the same for all channels: the first one's programs take them.
    labelled = i < tl.where(channel == 0, crop, 0)
    rows, columns = tl.load(size + 2 * n), tl.load(size + 2 * n + 1)
    m00, m01 = tl.load(matrix + 4 * n), tl.load(matrix + 4 * n + 1)
    m10, m11 = tl.load(matrix + 4 * n + 2), tl.load(matrix + 4 * n + 3)
    s0, s1 = tl.load(shift + 2 * n), tl.load(shift + 2 * n + 1)
    image = n * tl.num_programs(2) + channel
    low, high = tl.load(limits + 4 * image), tl.load(limits + 4 * image + 1)
    scale, bias = tl.load(limits + 4 * image + 2), tl.load(limits + 4 * image + 3)
    pool += tl.load(offset + n) + channel * rows.to(tl.int64) * columns
    if LABELLED:
        labels += tl.load(label_offset + n)
    centre = (crop - 1) * 0.5
    down, right = i.to(tl.float32) - centre, j.to(tl.float32) - centre
    straight, curved = True, False
    if BENT:
        knots += n * 2 * knot_columns * knot_columns + tile_row * knot_columns + tile_column
        curved = _any_knot(knots, knot_columns)
        straight = _is_straight(m00, m01, m10, m11, s0, s1, centre) & (curved == 0)
    if straight:
        value, label = _cut_straight(
            pool, labels, rows, columns, m00, m01, m10, m11, s0, s1, down, right,
            i_real, j_real, labelled, low, high, scale, bias, LABELLED,
        )  # fmt: skip
    else:
        y = tl.broadcast_to(down[:, None], (TILE, TILE))
        x = tl.broadcast_to(right[None, :], (TILE, TILE))
        if curved:
            t = lane.to(tl.float32) / TILE
            y += _displacement(knots, knot_columns, t, t)
            x += _displacement(knots + knot_columns * knot_columns, knot_columns, t, t)
        value, label = _cut_bent(
            pool, labels, rows, columns, m00, m01, m10, m11, s0, s1, y, x,
            i_real, j_real, labelled, low, high, scale, bias, LABELLED,
        )  # fmt: skip
    pixel = i[:, None] * crop + j[None, :]
    if LABELLED:
        index = tl.where(label == _NOT_LABELLED, ignored, label.to(tl.int32)).to(tl.int64)
        here = labelled[:, None] & j_real[None, :]
        tl.store(targets + n * crop * crop + pixel, index, mask=here)
    light += 5 * n
    if LIT:
        value = _with_light(value, light, low, high, scale, bias)
    out += image * crop * crop
    real = i_real[:, None] & j_real[None, :]
    blurry = False
    if BLURRED:
        blurry = tl.load(light + 3) > 0.0
    if blurry:
        tl.store(unblurred + image * crop * crop + pixel, value, mask=real)
    else:
        if BLURRED:
            value = _with_noise(value, light, key + n, channel, pixel)
        tl.store(out + pixel, value, mask=real)


@triton.jit(do_not_specialize=["crop"])
def _cut_crops_blur_kernel(unblurred, light, key, out, crop, TILE: tl.constexpr):
    """Blur a tile of a crop that is to be blurred, and add its noise."""
    n, channel = tl.program_id(1).to(tl.int64), tl.program_id(2)
    light += 5 * n
    sigma = tl.load(light + 3)
    if sigma > 0.0:
        across = tl.cdiv(crop, TILE)
        lane = tl.arange(0, TILE)
        i = tl.program_id(0) // across * TILE + lane
        j = tl.program_id(0) % across * TILE + lane
        real = (i < crop)[:, None] & (j < crop)[None, :]
        image = (n * tl.num_programs(2) + channel) * crop * crop
        # A blur by less changes no pixel.
        fall = -0.5 / (tl.maximum(sigma, 0.05) * tl.maximum(sigma, 0.05))
        total = 1.0
        for k in tl.static_range(1, _RADIUS + 1):
            total += 2.0 * tl.exp(fall * (k * k))
        blurred = tl.zeros([TILE, TILE], tl.float32)
        for a in range(-_RADIUS, _RADIUS + 1):
            row = _mirrored((i + a).to(tl.float32), crop).to(tl.int32) * crop
            line = tl.zeros([TILE, TILE], tl.float32)
            for b in tl.static_range(-_RADIUS, _RADIUS + 1):
                column = _mirrored((j + b).to(tl.float32), crop).to(tl.int32)
                at = unblurred + image + row[:, None] + column[None, :]
                line += tl.exp(fall * (b * b)) * tl.load(at, mask=real, other=0.0)
            blurred += tl.exp(fall * (a * a)) * line
        pixel = i[:, None] * crop + j[None, :]
        value = _with_noise(blurred / (total * total), light, key + n, channel, pixel)
        tl.store(out + image + pixel, value, mask=real)
