"""Triton kernels of cluster merging.

The forward pass works on tiles of kept tokens against the union of their
clusters; the backward pass works on one cluster against the kept tokens that
gather it, so that nothing is added atomically.
"""

import triton
import triton.language as tl

from affmae_kernels._gauss import gauss
from affmae_kernels.neighbours._tiles import load_positions, load_tile_keys, relative_distance

_EPSILON = tl.constexpr(1e-5)


@triton.jit
def _mapped(dx, dy, distance, inverse, weight, bias, ROW: tl.constexpr):
    """Map the geometry to one of the four numbers that are normalised together."""
    w0 = tl.load(weight + ROW * 5).to(tl.float32)
    w1 = tl.load(weight + ROW * 5 + 1).to(tl.float32)
    w2 = tl.load(weight + ROW * 5 + 2).to(tl.float32)
    w3 = tl.load(weight + ROW * 5 + 3).to(tl.float32)
    w4 = tl.load(weight + ROW * 5 + 4).to(tl.float32)
    constant = tl.load(bias + ROW).to(tl.float32)
    return dx * (w0 + w4 * inverse) + dy * (w1 + w3 * inverse) + (w2 * distance + constant)


@triton.jit
def _normalised(dx, dy, distance, inverse, weight, bias):
    """Compute LN4(W g + b) before its scale and shift, and the factor it divided by."""
    a = _mapped(dx, dy, distance, inverse, weight, bias, 0)
    b = _mapped(dx, dy, distance, inverse, weight, bias, 1)
    c = _mapped(dx, dy, distance, inverse, weight, bias, 2)
    d = _mapped(dx, dy, distance, inverse, weight, bias, 3)
    mean = (a + b + c + d) * 0.25
    a, b, c, d = a - mean, b - mean, c - mean, d - mean
    rstd = tl.rsqrt((a * a + b * b + c * c + d * d) * 0.25 + _EPSILON)
    return a * rstd, b * rstd, c * rstd, d * rstd, rstd


@triton.jit
def _activated(normed, norm_weight, norm_bias, ROW: tl.constexpr):
    """Scale and shift, and apply GELU."""
    scaled = normed * tl.load(norm_weight + ROW).to(tl.float32)
    scaled += tl.load(norm_bias + ROW).to(tl.float32)
    share, _density = gauss(scaled)
    return scaled * share


@triton.jit(do_not_specialize=["queries", "keys", "tiles", "width"])
def _cluster_merge_fwd_kernel(
    x, importance, weight, bias, norm_weight, norm_bias, query_pos, key_pos, ids, bits, lengths,
    out, queries, keys, tiles, width, channels, sxb, sxn,
    CLUSTER: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    part, tile, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = tl.arange(0, TILE)
    channel = part * CHANNELS + tl.arange(0, CHANNELS)
    query = tile * TILE + row
    row_real, channel_real = query < queries, channel < channels
    qx, qy = load_positions(query_pos + image * queries * 2, query, row_real)
    x += image * sxb
    importance += image * keys
    key_pos += image * keys * 2
    ids += (image * tiles + tile) * width
    bits += (image * tiles + tile) * width
    length = tl.load(lengths + image * tiles + tile)
    s0 = tl.zeros([TILE, CHANNELS], tl.float32)
    s1, s2, s3 = s0, s0, s0
    for start in range(0, length, KEYS // CLUSTER):
        token, real, owners = load_tile_keys(ids, bits, start, length, keys, CLUSTER, KEYS)
        there = real[:, None] & channel_real[None, :]
        value = tl.load(x + token[:, None] * sxn + channel[None, :], mask=there, other=0.0)
        score = tl.load(importance + token, mask=real, other=0.0).to(tl.float32)
        kx, ky = load_positions(key_pos, token, real)
        dx, dy = kx[None, :] - qx[:, None], ky[None, :] - qy[:, None]
        distance, inverse = relative_distance(dx, dy)
        a, b, c, d, _ = _normalised(dx, dy, distance, inverse, weight, bias)
        owned = ((owners[None, :] >> row[:, None]) & 1) != 0
        factor = tl.where(owned, score[None, :], 0.0)
        w = (_activated(a, norm_weight, norm_bias, 0) * factor).to(value.dtype)
        s0 += tl.dot(w, value, input_precision="ieee")
        w = (_activated(b, norm_weight, norm_bias, 1) * factor).to(value.dtype)
        s1 += tl.dot(w, value, input_precision="ieee")
        w = (_activated(c, norm_weight, norm_bias, 2) * factor).to(value.dtype)
        s2 += tl.dot(w, value, input_precision="ieee")
        w = (_activated(d, norm_weight, norm_bias, 3) * factor).to(value.dtype)
        s3 += tl.dot(w, value, input_precision="ieee")
    out += ((image * queries + query) * (4 * channels))[:, None] + channel[None, :]
    both = row_real[:, None] & channel_real[None, :]
    tl.store(out, s0.to(out.dtype.element_ty), mask=both)
    tl.store(out + channels, s1.to(out.dtype.element_ty), mask=both)
    tl.store(out + 2 * channels, s2.to(out.dtype.element_ty), mask=both)
    tl.store(out + 3 * channels, s3.to(out.dtype.element_ty), mask=both)


@triton.jit(do_not_specialize=["queries", "keys", "clusters"])
def _cluster_merge_bwd_tokens_kernel(
    importance, weight, bias, norm_weight, norm_bias, query_pos, key_pos, query_list,
    starts, ends, grad, grad_x, queries, keys, clusters, channels,
    CLUSTER: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of some channels of a cluster's tokens."""
    part, cluster, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = tl.arange(0, ROWS)
    channel = part * CHANNELS + tl.arange(0, CHANNELS)
    token = cluster * CLUSTER + row
    row_real, channel_real = (row < CLUSTER) & (token < keys), channel < channels
    kx, ky = load_positions(key_pos + image * keys * 2, token, row_real)
    score = tl.load(importance + image * keys + token, mask=row_real, other=0.0).to(tl.float32)
    grad += image * queries * 4 * channels + channel[None, :]
    query_pos += image * queries * 2
    begin = tl.load(starts + image * clusters + cluster)
    end = tl.load(ends + image * clusters + cluster)
    summed = tl.zeros([ROWS, CHANNELS], tl.float32)
    for start in range(begin, end, QUERIES):
        i = start + tl.arange(0, QUERIES)
        real = i < end
        query = tl.load(query_list + i, mask=real, other=0)
        there = real[:, None] & channel_real[None, :]
        place = grad + query[:, None] * (4 * channels)
        qx, qy = load_positions(query_pos, query, real)
        dx, dy = kx[:, None] - qx[None, :], ky[:, None] - qy[None, :]
        distance, inverse = relative_distance(dx, dy)
        a, b, c, d, _ = _normalised(dx, dy, distance, inverse, weight, bias)
        arriving = tl.load(place, mask=there, other=0.0)
        w = (_activated(a, norm_weight, norm_bias, 0) * score[:, None]).to(arriving.dtype)
        summed += tl.dot(w, arriving, input_precision="ieee")
        arriving = tl.load(place + channels, mask=there, other=0.0)
        w = (_activated(b, norm_weight, norm_bias, 1) * score[:, None]).to(arriving.dtype)
        summed += tl.dot(w, arriving, input_precision="ieee")
        arriving = tl.load(place + 2 * channels, mask=there, other=0.0)
        w = (_activated(c, norm_weight, norm_bias, 2) * score[:, None]).to(arriving.dtype)
        summed += tl.dot(w, arriving, input_precision="ieee")
        arriving = tl.load(place + 3 * channels, mask=there, other=0.0)
        w = (_activated(d, norm_weight, norm_bias, 3) * score[:, None]).to(arriving.dtype)
        summed += tl.dot(w, arriving, input_precision="ieee")
    place = (image * keys + token)[:, None] * channels + channel[None, :]
    both = row_real[:, None] & channel_real[None, :]
    tl.store(grad_x + place, summed.to(grad_x.dtype.element_ty), mask=both)


@triton.jit
def _at(slot, values, SLOT: tl.constexpr):
    """Put the sum of `values` into one slot of a vector of sums."""
    return tl.where(slot == SLOT, tl.sum(tl.sum(values, axis=1), axis=0), 0.0)


@triton.jit
def _through_activation(d_weight, normed, norm_weight, norm_bias, slot, ROW: tl.constexpr):
    """Go back through GELU and the norm's scale and shift.

    Returns the weight itself, the gradient of `normed`, and the summed
    gradients of scale (slots 24 to 27) and shift (28 to 31).
    """
    scale = tl.load(norm_weight + ROW).to(tl.float32)
    scaled = normed * scale + tl.load(norm_bias + ROW).to(tl.float32)
    cumulative, density = gauss(scaled)
    d_scaled = d_weight * (cumulative + scaled * density)
    sums = _at(slot, d_scaled * normed, 24 + ROW) + _at(slot, d_scaled, 28 + ROW)
    return cumulative * scaled, d_scaled * scale, sums


@triton.jit
def _map_sums(d_mapped, dx, dy, distance, inverse, slot, ROW: tl.constexpr):
    """Sum the gradients of a row of the geometric map (slots 0 to 19) and its bias (20 to 23)."""
    scaled = d_mapped * inverse
    sums = _at(slot, d_mapped * dx, ROW * 5) + _at(slot, d_mapped * dy, ROW * 5 + 1)
    sums += _at(slot, d_mapped * distance, ROW * 5 + 2)
    sums += _at(slot, scaled * dy, ROW * 5 + 3) + _at(slot, scaled * dx, ROW * 5 + 4)
    return sums + _at(slot, d_mapped, 20 + ROW)


@triton.jit(do_not_specialize=["queries", "keys", "clusters"])
def _cluster_merge_bwd_weights_kernel(
    x, importance, weight, bias, norm_weight, norm_bias, query_pos, key_pos, query_list,
    starts, ends, grad, grad_importance, partial, queries, keys, clusters, channels, sxb, sxn,
    CLUSTER: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a cluster's importances, and its part of the map's gradients.

    `partial` gets 32 numbers a cluster: the map's weights (20) and biases (4),
    the norm's scales (4) and shifts (4).
    """
    cluster, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, slot = tl.arange(0, ROWS), tl.arange(0, 32)
    token = cluster * CLUSTER + row
    row_real = (row < CLUSTER) & (token < keys)
    kx, ky = load_positions(key_pos + image * keys * 2, token, row_real)
    score = tl.load(importance + image * keys + token, mask=row_real, other=0.0).to(tl.float32)
    x += image * sxb + token[:, None] * sxn
    grad += image * queries * 4 * channels
    query_pos += image * queries * 2
    begin = tl.load(starts + image * clusters + cluster)
    end = tl.load(ends + image * clusters + cluster)
    sums = tl.zeros([32], tl.float32)
    d_score = tl.zeros([ROWS], tl.float32)
    for start in range(begin, end, QUERIES):
        i = start + tl.arange(0, QUERIES)
        real = i < end
        query = tl.load(query_list + i, mask=real, other=0)
        # The gradient of each of a pair's four weights is <x_j, grad of its output>.
        wa = tl.zeros([ROWS, QUERIES], tl.float32)
        wb, wc, wd = wa, wa, wa
        for first in range(0, channels, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            channel_real = channel < channels
            both = row_real[:, None] & channel_real[None, :]
            value = tl.load(x + channel[None, :], mask=both, other=0.0)
            there = real[None, :] & channel_real[:, None]
            place = grad + (query * (4 * channels))[None, :] + channel[:, None]
            arriving = tl.load(place, mask=there, other=0.0)
            wa += tl.dot(value, arriving, input_precision="ieee")
            arriving = tl.load(place + channels, mask=there, other=0.0)
            wb += tl.dot(value, arriving, input_precision="ieee")
            arriving = tl.load(place + 2 * channels, mask=there, other=0.0)
            wc += tl.dot(value, arriving, input_precision="ieee")
            arriving = tl.load(place + 3 * channels, mask=there, other=0.0)
            wd += tl.dot(value, arriving, input_precision="ieee")
        qx, qy = load_positions(query_pos, query, real)
        dx, dy = kx[:, None] - qx[None, :], ky[:, None] - qy[None, :]
        distance, inverse = relative_distance(dx, dy)
        a, b, c, d, rstd = _normalised(dx, dy, distance, inverse, weight, bias)
        # For pairs that do not exist, wa to wd are zero, so they add nothing to any sum.
        factor = score[:, None]
        ga, da, part = _through_activation(wa * factor, a, norm_weight, norm_bias, slot, 0)
        sums += part
        gb, db, part = _through_activation(wb * factor, b, norm_weight, norm_bias, slot, 1)
        sums += part
        gc, dc, part = _through_activation(wc * factor, c, norm_weight, norm_bias, slot, 2)
        sums += part
        gd, dd, part = _through_activation(wd * factor, d, norm_weight, norm_bias, slot, 3)
        sums += part
        d_score += tl.sum(ga * wa + gb * wb + gc * wc + gd * wd, axis=1)
        mean = (da + db + dc + dd) * 0.25
        slope = (da * a + db * b + dc * c + dd * d) * 0.25
        sums += _map_sums((da - mean - a * slope) * rstd, dx, dy, distance, inverse, slot, 0)
        sums += _map_sums((db - mean - b * slope) * rstd, dx, dy, distance, inverse, slot, 1)
        sums += _map_sums((dc - mean - c * slope) * rstd, dx, dy, distance, inverse, slot, 2)
        sums += _map_sums((dd - mean - d * slope) * rstd, dx, dy, distance, inverse, slot, 3)
    tl.store(grad_importance + image * keys + token, d_score, mask=row_real)
    tl.store(partial + (image * clusters + cluster) * 32 + slot, sums)
