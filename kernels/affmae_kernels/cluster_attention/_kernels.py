"""Triton kernels of cluster attention.

The forward pass and the gradient of the queries work on tiles of queries
against the union of the tile's clusters; the gradients of keys and values work
on one cluster against the queries that attend to it. Logits and geometry live
in registers only. Exponentials are taken to base 2.
"""

import triton
import triton.language as tl

from affmae_kernels.neighbours._tiles import load_positions, load_tile_keys, relative_distance

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load_map(weight, bias, head):
    """Load the six numbers of a head's geometric bias."""
    weight += head * 5
    return (
        tl.load(weight).to(tl.float32),
        tl.load(weight + 1).to(tl.float32),
        tl.load(weight + 2).to(tl.float32),
        tl.load(weight + 3).to(tl.float32),
        tl.load(weight + 4).to(tl.float32),
        tl.load(bias + head).to(tl.float32),
    )


@triton.jit
def _load_vectors(
    bias, blank_k, blank_v, head, heads,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Load a head's blank key and value and the biases of queries and of values.

    A softmax does not change when all its logits move by the same amount. So
    instead of adding the bias of the keys to every key but the blank one, it is
    subtracted from the blank key. The weights add up to one, so the bias of the
    values is likewise subtracted from the blank value; the caller then adds it to
    the result.
    """
    lane = tl.arange(0, BLOCK_D)
    real = lane < D
    blank_key = tl.load(blank_k + head * D + lane, mask=real, other=0.0).to(tl.float32)
    blank_value = tl.load(blank_v + head * D + lane, mask=real, other=0.0).to(tl.float32)
    of_queries = tl.zeros([BLOCK_D], tl.float32)
    of_values = of_queries
    if BIASED:
        bias += head * D + lane
        of_queries = tl.load(bias, mask=real, other=0.0).to(tl.float32)
        of_values = tl.load(bias + 2 * heads * D, mask=real, other=0.0).to(tl.float32)
        blank_key -= tl.load(bias + heads * D, mask=real, other=0.0).to(tl.float32)
        blank_value -= of_values
    return blank_key, blank_value, of_queries, of_values


@triton.jit
def _biased(rows, bias, BIASED: tl.constexpr):
    """Add a bias to rows, in float32."""
    if BIASED:
        rows = (rows.to(tl.float32) + bias[None, :]).to(rows.dtype)
    return rows


@triton.jit
def _bias(dx, dy, distance, inverse, w0, w1, w2, w3, w4, constant):
    """Map (dx, dy, d, dy/d, dx/d) to a head's bias."""
    return dx * (w0 + w4 * inverse) + dy * (w1 + w3 * inverse) + (w2 * distance + constant)


@triton.jit(do_not_specialize=["queries", "keys", "tiles", "width", "heads"])
def _cluster_attention_fwd_kernel(
    q, k, v, projection_bias, blank_k, blank_v, weight, bias, query_pos, key_pos, ids, bits,
    lengths, out, log_sum, heads, queries, keys, tiles, width, scale,
    sqb, sqn, sqh, skb, skn, skh, svb, svn, svh,
    D: tl.constexpr, BLOCK_D: tl.constexpr, CLUSTER: tl.constexpr,
    TILE: tl.constexpr, KEYS: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    head, tile, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, lane = tl.arange(0, TILE), tl.arange(0, BLOCK_D)
    query = tile * TILE + row
    row_real, lane_real = query < queries, lane < D
    both = row_real[:, None] & lane_real[None, :]
    blank_key, blank_value, q_bias, v_bias = _load_vectors(
        projection_bias, blank_k, blank_v, head, heads, D, BLOCK_D, BIASED
    )
    q += image * sqb + head * sqh
    queried = tl.load(q + query[:, None] * sqn + lane[None, :], mask=both, other=0.0)
    queried = _biased(queried, q_bias, BIASED)
    qx, qy = load_positions(query_pos + image * queries * 2, query, row_real)
    w0, w1, w2, w3, w4, constant = _load_map(weight, bias, head)
    scale *= _LOG2E

    # The blank key comes first, so that a maximum and a sum exist from the start.
    highest = tl.sum(queried.to(tl.float32) * blank_key[None, :], axis=1) * scale
    total = tl.full([TILE], 1.0, tl.float32)
    summed = tl.zeros([TILE, BLOCK_D], tl.float32) + blank_value[None, :]

    k += image * skb + head * skh
    v += image * svb + head * svh
    key_pos += image * keys * 2
    ids += (image * tiles + tile) * width
    bits += (image * tiles + tile) * width
    length = tl.load(lengths + image * tiles + tile)
    for start in range(0, length, KEYS // CLUSTER):
        token, real, owners = load_tile_keys(ids, bits, start, length, keys, CLUSTER, KEYS)
        there = real[:, None] & lane_real[None, :]
        key = tl.load(k + token[:, None] * skn + lane[None, :], mask=there, other=0.0)
        value = tl.load(v + token[:, None] * svn + lane[None, :], mask=there, other=0.0)
        kx, ky = load_positions(key_pos, token, real)
        dx, dy = kx[None, :] - qx[:, None], ky[None, :] - qy[:, None]
        distance, inverse = relative_distance(dx, dy)
        offset = _bias(dx, dy, distance, inverse, w0, w1, w2, w3, w4, constant)
        logits = tl.dot(queried, tl.trans(key), input_precision="ieee") * scale
        logits += offset * _LOG2E
        owned = ((owners[None, :] >> row[:, None]) & 1) != 0
        logits = tl.where(owned, logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(logits - higher[:, None])
        total = total * shrink + tl.sum(weights, axis=1)
        summed *= shrink[:, None]
        summed += tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        highest = higher
    summed = summed / total[:, None] + v_bias[None, :]
    place = (image * queries + query) * heads + head
    tl.store(out + place[:, None] * D + lane[None, :], summed.to(out.dtype.element_ty), mask=both)
    tl.store(log_sum + place, highest + tl.log2(total), mask=row_real)


@triton.jit(do_not_specialize=["queries", "keys", "tiles", "width", "heads"])
def _cluster_attention_bwd_queries_kernel(
    q, k, v, projection_bias, blank_k, blank_v, weight, bias, query_pos, key_pos, ids, bits,
    lengths, out, log_sum, grad, grad_q, shift, partial, heads, queries, keys, tiles, width, scale,
    sqb, sqn, sqh, skb, skn, skh, svb, svn, svh, sgb, sgn, sgh,
    D: tl.constexpr, BLOCK_D: tl.constexpr, CLUSTER: tl.constexpr,
    TILE: tl.constexpr, KEYS: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the queries, and this tile's part of the small tensors' gradients.

    `partial` gets, for each tile and head, the gradients of the geometric map
    (6 numbers), of the blank key and of the blank value (D each), and the sums of
    the gradients of queries and of results (D each), from which those of the
    projection's bias follow.
    """
    head, tile, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, lane = tl.arange(0, TILE), tl.arange(0, BLOCK_D)
    query = tile * TILE + row
    row_real, lane_real = query < queries, lane < D
    both = row_real[:, None] & lane_real[None, :]
    place = (image * queries + query) * heads + head
    blank_key, blank_value, q_bias, v_bias = _load_vectors(
        projection_bias, blank_k, blank_v, head, heads, D, BLOCK_D, BIASED
    )
    queried = tl.load(
        q + image * sqb + head * sqh + query[:, None] * sqn + lane[None, :], mask=both, other=0.0
    )
    queried = _biased(queried, q_bias, BIASED)
    arriving = tl.load(
        grad + image * sgb + head * sgh + query[:, None] * sgn + lane[None, :],
        mask=both, other=0.0,
    )  # fmt: skip
    result = tl.load(out + place[:, None] * D + lane[None, :], mask=both, other=0.0)
    # With P the weights, dlogits = P (dP - sum_j P_j dP_j), and the sum is <grad, out>.
    mean = tl.sum(arriving.to(tl.float32) * (result.to(tl.float32) - v_bias[None, :]), axis=1)
    tl.store(shift + place, mean, mask=row_real)
    norm = tl.load(log_sum + place, mask=row_real, other=0.0)
    qx, qy = load_positions(query_pos + image * queries * 2, query, row_real)
    w0, w1, w2, w3, w4, constant = _load_map(weight, bias, head)

    blank_logit = tl.sum(queried.to(tl.float32) * blank_key[None, :], axis=1) * (scale * _LOG2E)
    blank_weight = tl.where(row_real, tl.exp2(blank_logit - norm), 0.0)
    blank_grad = tl.sum(arriving.to(tl.float32) * blank_value[None, :], axis=1) - mean
    blank_grad *= blank_weight
    through = blank_grad[:, None] * blank_key[None, :]
    width_small: tl.constexpr = 6 + 4 * D
    partial += ((image * tiles + tile) * heads + head) * width_small
    sums = tl.sum(blank_grad[:, None] * queried.to(tl.float32), axis=0) * scale
    tl.store(partial + 6 + lane, sums, mask=lane_real)
    sums = tl.sum(blank_weight[:, None] * arriving.to(tl.float32), axis=0)
    tl.store(partial + 6 + D + lane, sums, mask=lane_real)
    sums = tl.sum(arriving.to(tl.float32), axis=0)
    tl.store(partial + 6 + 3 * D + lane, sums, mask=lane_real)

    k += image * skb + head * skh
    v += image * svb + head * svh
    key_pos += image * keys * 2
    ids += (image * tiles + tile) * width
    bits += (image * tiles + tile) * width
    length = tl.load(lengths + image * tiles + tile)
    d0 = tl.zeros([TILE], tl.float32)
    d1, d2, d3, d4 = d0, d0, d0, d0
    for start in range(0, length, KEYS // CLUSTER):
        token, real, owners = load_tile_keys(ids, bits, start, length, keys, CLUSTER, KEYS)
        there = real[:, None] & lane_real[None, :]
        key = tl.load(k + token[:, None] * skn + lane[None, :], mask=there, other=0.0)
        value = tl.load(v + token[:, None] * svn + lane[None, :], mask=there, other=0.0)
        kx, ky = load_positions(key_pos, token, real)
        dx, dy = kx[None, :] - qx[:, None], ky[None, :] - qy[:, None]
        distance, inverse = relative_distance(dx, dy)
        offset = _bias(dx, dy, distance, inverse, w0, w1, w2, w3, w4, constant)
        logits = tl.dot(queried, tl.trans(key), input_precision="ieee") * scale + offset
        owned = ((owners[None, :] >> row[:, None]) & 1) != 0
        weights = tl.where(owned, tl.exp2(logits * _LOG2E - norm[:, None]), 0.0)
        d_logits = tl.dot(arriving, tl.trans(value), input_precision="ieee") - mean[:, None]
        d_logits *= weights
        through += tl.dot(d_logits.to(key.dtype), key, input_precision="ieee")
        d0 += tl.sum(d_logits * dx, axis=1)
        d1 += tl.sum(d_logits * dy, axis=1)
        d2 += tl.sum(d_logits * distance, axis=1)
        d_logits_scaled = d_logits * inverse
        d3 += tl.sum(d_logits_scaled * dy, axis=1)
        d4 += tl.sum(d_logits_scaled * dx, axis=1)
    through *= scale
    sums = tl.sum(tl.where(both, through, 0.0), axis=0)
    tl.store(partial + 6 + 2 * D + lane, sums, mask=lane_real)
    # Gradients of a token's query, key and value lie together.
    row_place = ((image * queries + query) * (3 * heads) + head)[:, None] * D
    tl.store(grad_q + row_place + lane[None, :], through.to(grad_q.dtype.element_ty), mask=both)
    tl.store(partial, tl.sum(d0, axis=0))
    tl.store(partial + 1, tl.sum(d1, axis=0))
    tl.store(partial + 2, tl.sum(d2, axis=0))
    tl.store(partial + 3, tl.sum(d3, axis=0))
    tl.store(partial + 4, tl.sum(d4, axis=0))
    # The gradients of a softmax's logits add up to zero, so that of the constant, which moves all
    # logits but the blank one, is minus that of the blank logit.
    tl.store(partial + 5, -tl.sum(blank_grad, axis=0))


@triton.jit(do_not_specialize=["queries", "keys", "clusters", "heads"])
def _cluster_attention_bwd_keys_kernel(
    q, k, v, projection_bias, weight, bias, query_pos, key_pos, query_list, starts, ends,
    log_sum, shift, grad, grad_k, grad_v, heads, queries, keys, clusters, scale,
    sqb, sqn, sqh, skb, skn, skh, svb, svn, svh, sgb, sgn, sgh,
    D: tl.constexpr, BLOCK_D: tl.constexpr, CLUSTER: tl.constexpr,
    ROWS: tl.constexpr, QUERIES: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a cluster's keys and values from the queries that want it."""
    head, cluster, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row, lane = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    token = cluster * CLUSTER + row
    row_real, lane_real = (row < CLUSTER) & (token < keys), lane < D
    both = row_real[:, None] & lane_real[None, :]
    key = tl.load(
        k + image * skb + head * skh + token[:, None] * skn + lane[None, :], mask=both, other=0.0
    )
    value = tl.load(
        v + image * svb + head * svh + token[:, None] * svn + lane[None, :], mask=both, other=0.0
    )
    kx, ky = load_positions(key_pos + image * keys * 2, token, row_real)
    w0, w1, w2, w3, w4, constant = _load_map(weight, bias, head)
    q_bias = tl.zeros([BLOCK_D], tl.float32)
    if BIASED:
        q_bias = tl.load(projection_bias + head * D + lane, mask=lane_real, other=0.0)
        q_bias = q_bias.to(tl.float32)
    d_key = tl.zeros([ROWS, BLOCK_D], tl.float32)
    d_value = tl.zeros([ROWS, BLOCK_D], tl.float32)
    q += image * sqb + head * sqh
    grad += image * sgb + head * sgh
    query_pos += image * queries * 2
    begin = tl.load(starts + image * clusters + cluster)
    end = tl.load(ends + image * clusters + cluster)
    for start in range(begin, end, QUERIES):
        i = start + tl.arange(0, QUERIES)
        real = i < end
        query = tl.load(query_list + i, mask=real, other=0)
        there = real[:, None] & lane_real[None, :]
        queried = tl.load(q + query[:, None] * sqn + lane[None, :], mask=there, other=0.0)
        queried = _biased(queried, q_bias, BIASED)
        arriving = tl.load(grad + query[:, None] * sgn + lane[None, :], mask=there, other=0.0)
        place = (image * queries + query) * heads + head
        norm = tl.load(log_sum + place, mask=real, other=0.0)
        mean = tl.load(shift + place, mask=real, other=0.0)
        qx, qy = load_positions(query_pos, query, real)
        dx, dy = kx[:, None] - qx[None, :], ky[:, None] - qy[None, :]
        distance, inverse = relative_distance(dx, dy)
        offset = _bias(dx, dy, distance, inverse, w0, w1, w2, w3, w4, constant)
        logits = tl.dot(key, tl.trans(queried), input_precision="ieee") * scale + offset
        used = row_real[:, None] & real[None, :]
        weights = tl.where(used, tl.exp2(logits * _LOG2E - norm[None, :]), 0.0)
        d_value += tl.dot(weights.to(arriving.dtype), arriving, input_precision="ieee")
        d_logits = tl.dot(value, tl.trans(arriving), input_precision="ieee") - mean[None, :]
        d_logits *= weights
        d_key += tl.dot(d_logits.to(queried.dtype), queried, input_precision="ieee")
    d_key *= scale
    place = ((image * keys + token) * (3 * heads) + head)[:, None] * D + lane[None, :]
    tl.store(grad_k + place, d_key.to(grad_k.dtype.element_ty), mask=both)
    tl.store(grad_v + place, d_value.to(grad_v.dtype.element_ty), mask=both)


@triton.jit(do_not_specialize=["rows", "heads"])
def _sum_partials_kernel(
    partial, d_projection, d_weight, d_bias, d_blank_k, d_blank_v, rows, heads,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add up the tiles' parts of a head's small gradients, and store each parameter's.

    The second index of a program chooses the parameters: those of the geometric
    map (0), of the keys (1), of the queries (2), or of the values (3).
    """
    head, which = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, BLOCK_D)
    real = lane < D
    place = head * D + lane
    width: tl.constexpr = 6 + 4 * D
    partial += head * width
    # The bias of the keys was subtracted from the blank key (see `_load_vectors`): their
    # gradients differ in sign.
    if which == 0:
        slot = tl.arange(0, 8)
        of_map = _sum_columns(partial, slot, slot < 6, rows, heads * width, ROWS)
        tl.store(d_weight + head * 5 + slot, of_map, mask=slot < 5)
        tl.store(d_bias + head + slot * 0, of_map, mask=slot == 5)
    elif which == 1:
        sums = _sum_columns(partial + 6, lane, real, rows, heads * width, ROWS)
        tl.store(d_blank_k + place, sums, mask=real)
        tl.store(d_projection + heads * D + place, -sums, mask=real)
    elif which == 2:
        sums = _sum_columns(partial + 6 + 2 * D, lane, real, rows, heads * width, ROWS)
        tl.store(d_projection + place, sums, mask=real)
    else:
        sums = _sum_columns(partial + 6 + D, lane, real, rows, heads * width, ROWS)
        tl.store(d_blank_v + place, sums, mask=real)
        sums = _sum_columns(partial + 6 + 3 * D, lane, real, rows, heads * width, ROWS) - sums
        tl.store(d_projection + 2 * heads * D + place, sums, mask=real)


@triton.jit
def _sum_columns(partial, lane, real, rows, stride, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)
    summed = tl.zeros([ROWS, lane.shape[0]], tl.float32)
    for start in range(0, rows, ROWS):
        place = (start + row)[:, None] * stride + lane[None, :]
        mask = (start + row < rows)[:, None] & real[None, :]
        summed += tl.load(partial + place, mask=mask, other=0.0)
    return tl.sum(summed, axis=0)
