"""Triton kernels of off-grid deformable attention.

A program works on one head of some queries. Forwards, samples and their nearest
tokens are loops over constants, so the rows of values are gathered whole and
added in registers. Backwards, each nearest token of each sample of all queries
is one element of a vector, so that those that are the same token can be found
and combined before they are added to memory.
"""

import triton
import triton.language as tl


@triton.jit
def _distances(x, y, points, near, real, COUNT: tl.constexpr):
    """Load the four nearest tokens of a sample, and their distances.

    Tokens beyond COUNT repeat the first, with an infinite distance.
    """
    t0 = tl.load(near, mask=real, other=0)
    t1, t2, t3 = t0, t0, t0
    far = tl.zeros_like(x) + float("inf")
    d0 = _distance(x, y, points, t0, real)
    d1, d2, d3 = far, far, far
    if COUNT > 1:
        t1 = tl.load(near + 1, mask=real, other=0)
        d1 = _distance(x, y, points, t1, real)
    if COUNT > 2:
        t2 = tl.load(near + 2, mask=real, other=0)
        d2 = _distance(x, y, points, t2, real)
    if COUNT > 3:
        t3 = tl.load(near + 3, mask=real, other=0)
        d3 = _distance(x, y, points, t3, real)
    return t0, t1, t2, t3, d0, d1, d2, d3


@triton.jit
def _distance(x, y, points, token, real):
    dx = x - tl.load(points + 2 * token, mask=real, other=0.0)
    dy = y - tl.load(points + 2 * token + 1, mask=real, other=0.0)
    return tl.sqrt(dx * dx + dy * dy)


@triton.jit
def _shares(d0, d1, d2, d3, power):
    """Compute softmax(-power * d) over four distances, the first being the least."""
    s1 = tl.exp(power * (d0 - d1))
    s2 = tl.exp(power * (d0 - d2))
    s3 = tl.exp(power * (d0 - d3))
    s0 = 1.0 / (1.0 + s1 + s2 + s3)
    return s0, s1 * s0, s2 * s0, s3 * s0


@triton.jit
def _sample(query_pos, offsets, query, real):
    x = tl.load(query_pos + 2 * query, mask=real, other=0.0)
    y = tl.load(query_pos + 2 * query + 1, mask=real, other=0.0)
    x += tl.load(offsets, mask=real, other=0.0).to(tl.float32)
    y += tl.load(offsets + 1, mask=real, other=0.0).to(tl.float32)
    return x, y


@triton.jit(do_not_specialize=["queries", "tokens", "heads"])
def _deformable_attention_fwd_kernel(
    values, query_pos, sampling, power, points, near, out, heads, queries, tokens,
    svb, svn, svh, ssb, ssq,
    SAMPLES: tl.constexpr, COUNT: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    query = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, BLOCK_D)
    real, lane_real = query < queries, lane < D
    both = real[:, None] & lane_real[None, :]
    sharpness = tl.maximum(tl.load(power).to(tl.float32), 1e-6)
    values += image * svb + head * svh + lane[None, :]
    offsets = sampling + image * ssb + query * ssq + head * SAMPLES * 2
    logits = sampling + image * ssb + query * ssq + (heads * 2 + head) * SAMPLES
    query_pos += image * queries * 2
    points += image * tokens * 2
    place = (image * queries + query) * heads + head
    highest = tl.load(logits, mask=real, other=0.0).to(tl.float32)
    for p in tl.static_range(1, SAMPLES):
        logit = tl.load(logits + p, mask=real, other=0.0).to(tl.float32)
        highest = tl.maximum(highest, logit)
    total = tl.zeros([BLOCK], tl.float32)
    summed = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for p in tl.static_range(SAMPLES):
        x, y = _sample(query_pos, offsets + p * 2, query, real)
        t0, t1, t2, t3, d0, d1, d2, d3 = _distances(
            x, y, points, near + (place * SAMPLES + p) * COUNT, real, COUNT
        )
        s0, s1, s2, s3 = _shares(d0, d1, d2, d3, sharpness)
        w = tl.exp(tl.load(logits + p, mask=real, other=0.0).to(tl.float32) - highest)
        total += w
        row = tl.load(values + t0[:, None] * svn, mask=both, other=0.0)
        summed += (w * s0)[:, None] * row.to(tl.float32)
        if COUNT > 1:
            row = tl.load(values + t1[:, None] * svn, mask=both, other=0.0)
            summed += (w * s1)[:, None] * row.to(tl.float32)
        if COUNT > 2:
            row = tl.load(values + t2[:, None] * svn, mask=both, other=0.0)
            summed += (w * s2)[:, None] * row.to(tl.float32)
        if COUNT > 3:
            row = tl.load(values + t3[:, None] * svn, mask=both, other=0.0)
            summed += (w * s3)[:, None] * row.to(tl.float32)
    summed /= total[:, None]
    tl.store(out + place[:, None] * D + lane[None, :], summed.to(out.dtype.element_ty), mask=both)


@triton.jit
def _spread_sum(x, GROUP: tl.constexpr):
    """Give every element the sum of its group of GROUP consecutive ones."""
    groups = tl.reshape(x, (x.shape[0] // GROUP, GROUP))
    total = tl.sum(groups, axis=1)[:, None]
    return tl.reshape(tl.broadcast_to(total, groups.shape), x.shape)


@triton.jit
def _spread_max(x, GROUP: tl.constexpr):
    """Give every element the maximum of its group of GROUP consecutive ones."""
    groups = tl.reshape(x, (x.shape[0] // GROUP, GROUP))
    highest = tl.max(groups, axis=1)[:, None]
    return tl.reshape(tl.broadcast_to(highest, groups.shape), x.shape)


@triton.jit(do_not_specialize=["queries", "tokens", "heads"])
def _deformable_attention_bwd_kernel(
    values, query_pos, sampling, power, points, near, grad,
    d_values, d_sampling, d_power, heads, queries, tokens,
    svb, svn, svh, ssb, ssq, sgb, sgq, sgh,
    SAMPLES: tl.constexpr, COUNT: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    WIDE_SAMPLES: tl.constexpr, WIDE_COUNT: tl.constexpr, GROUPS: tl.constexpr,
    POWER_PARTS: tl.constexpr,
):  # fmt: skip
    """Compute all gradients; those of values and power are added atomically in float32.

    A row is one of the nearest tokens of one sample of one query; WIDE_SAMPLES
    and WIDE_COUNT are SAMPLES and COUNT rounded up to powers of two. The
    matrix units take GROUPS rows of `grad`, each for a group of rows of the
    same query.
    """
    query_rows: tl.constexpr = WIDE_SAMPLES * WIDE_COUNT
    ROWS: tl.constexpr = BLOCK * query_rows
    group_rows: tl.constexpr = ROWS // GROUPS
    head, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    first_query = tl.program_id(1) * BLOCK
    row, lane, group = tl.arange(0, ROWS), tl.arange(0, BLOCK_D), tl.arange(0, GROUPS)
    lane_real = lane < D
    sample, kth = row // WIDE_COUNT % WIDE_SAMPLES, row % WIDE_COUNT
    query = first_query + row // query_rows
    real = (query < queries) & (sample < SAMPLES)
    used = real & (kth < COUNT)
    place = (image * queries + query) * heads + head
    # Rows that do not exist get -1, which is no token.
    token = tl.load(near + (place * SAMPLES + sample) * COUNT + kth, mask=used, other=-1)
    both = used[:, None] & lane_real[None, :]
    values += image * svb + head * svh
    value = tl.load(values + token[:, None] * svn + lane[None, :], mask=both, other=0.0)
    group_query = first_query + group * group_rows // query_rows
    arriving = tl.load(
        grad + image * sgb + group_query[:, None] * sgq + head * sgh + lane[None, :],
        mask=(group_query < queries)[:, None] & lane_real[None, :], other=0.0,
    )  # fmt: skip

    sampling += image * ssb + query * ssq
    offset = (head * SAMPLES + sample) * 2
    x, y = _sample(query_pos + image * queries * 2, sampling + offset, query, real)
    points += image * tokens * 2 + token * 2
    dx = x - tl.load(points, mask=used, other=0.0)
    dy = y - tl.load(points + 1, mask=used, other=0.0)
    squared = dx * dx + dy * dy
    inverse = tl.rsqrt(tl.maximum(squared, 1e-30))
    distance = squared * inverse
    raw_power = tl.load(power).to(tl.float32)
    sharpness = tl.maximum(raw_power, 1e-6)
    exponent = tl.where(kth < COUNT, -sharpness * distance, float("-inf"))
    share = tl.exp(exponent - _spread_max(exponent, WIDE_COUNT))
    share /= _spread_sum(share, WIDE_COUNT)
    logit_place = (heads * 2 + head) * SAMPLES + sample
    logit = tl.load(sampling + logit_place, mask=real, other=0.0).to(tl.float32)
    logit = tl.where(sample < SAMPLES, logit, float("-inf"))
    weight = tl.exp(logit - _spread_max(logit, query_rows))
    # The sum counts each sample as often as it has rows.
    weight *= WIDE_COUNT / _spread_sum(weight, query_rows)

    # The product of each row's value with the gradient of its query, which each of the query's
    # groups holds.
    products = tl.dot(value, tl.trans(arriving), input_precision="ieee")
    products = tl.reshape(products, (ROWS * GROUPS,))
    pulled = tl.gather(products, row * GROUPS + row // group_rows, 0)
    mean = _spread_sum(share * pulled, WIDE_COUNT)
    d_logit = weight * (mean - _spread_sum(weight * mean, query_rows) / WIDE_COUNT)
    # The gradient of the exponent -power * d of each share.
    d_exponent = weight * share * (pulled - mean)
    # Where the distance is zero, so are dx and dy.
    pull = -sharpness * d_exponent * inverse
    d_x, d_y = _spread_sum(pull * dx, WIDE_COUNT), _spread_sum(pull * dy, WIDE_COUNT)
    d_sampling += (image * queries + query) * heads * SAMPLES * 3
    dtype = d_sampling.dtype.element_ty
    once = real & (kth == 0)
    tl.store(d_sampling + offset, d_x.to(dtype), mask=once)
    tl.store(d_sampling + offset + 1, d_y.to(dtype), mask=once)
    tl.store(d_sampling + logit_place, d_logit.to(dtype), mask=once)
    power_sum = -tl.sum(d_exponent * (distance + 1e-6), axis=0)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * heads + head
    power_sum = tl.where(raw_power < 1e-6, 0.0, power_sum)
    tl.atomic_add(d_power + program % POWER_PARTS, power_sum, sem="relaxed")

    # Several rows may hold the same token. Only the first of them is written, with the sum of
    # all their shares of each group's gradient. A thread holds whole columns, so it can sum them
    # without the others.
    same = token[:, None] == token[None, :]
    writer = tl.min(tl.where(same, row[:, None], ROWS), axis=0)
    taken = tl.where(same, (weight * share)[:, None], 0.0)
    taken = tl.sum(tl.reshape(taken, (GROUPS, group_rows, ROWS)), axis=1)
    combined = tl.dot(tl.trans(taken.to(arriving.dtype)), arriving, input_precision="ieee")
    tl.atomic_add(
        d_values + (image * tokens * heads + head) * D + token[:, None] * (heads * D)
        + lane[None, :],
        combined, mask=(used & (writer == row))[:, None] & lane_real[None, :], sem="relaxed",
    )  # fmt: skip
