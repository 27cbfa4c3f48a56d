"""Triton kernels of off-grid deformable attention.

A program works on one head of some queries. Samples and their nearest tokens
are loops over constants, so the rows of values are gathered whole and added in
registers.
"""

import triton
import triton.language as tl


@triton.jit
def _distances(x, y, points, near, real, COUNT: tl.constexpr):
    """Load the nearest tokens of a sample, and how far they are.

    Of up to four; those beyond COUNT repeat the first and are infinitely far.
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
    values, query_pos, offsets, weights, power, points, near, out, heads, queries, tokens,
    svb, svn, svh, sob, soq, soh, sop, swb, swq, swh, swp,
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
    offsets += image * sob + query * soq + head * soh
    weights += image * swb + query * swq + head * swh
    query_pos += image * queries * 2
    points += image * tokens * 2
    place = (image * queries + query) * heads + head
    summed = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for p in tl.static_range(SAMPLES):
        x, y = _sample(query_pos, offsets + p * sop, query, real)
        t0, t1, t2, t3, d0, d1, d2, d3 = _distances(
            x, y, points, near + (place * SAMPLES + p) * COUNT, real, COUNT
        )
        s0, s1, s2, s3 = _shares(d0, d1, d2, d3, sharpness)
        w = tl.load(weights + p * swp, mask=real, other=0.0).to(tl.float32)
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
    tl.store(out + place[:, None] * D + lane[None, :], summed.to(out.dtype.element_ty), mask=both)


@triton.jit
def _pull(values, d_values, token, arriving, factor, both, svn, spread):
    """Project a token's values on the gradient, and add the token's own gradient."""
    row = tl.load(values + token[:, None] * svn, mask=both, other=0.0).to(tl.float32)
    tl.atomic_add(
        d_values + token[:, None] * spread, factor[:, None] * arriving, mask=both, sem="relaxed"
    )
    return tl.sum(row * arriving, axis=1)


@triton.jit
def _pull_offset(x, y, points, token, distance, d_distance, real):
    """Pass the gradient of a distance on to the location; zero where the distance is."""
    slope = d_distance / tl.maximum(distance, 1e-30)
    inverse = tl.where((distance > 0) & real, slope, 0.0)
    dx = x - tl.load(points + 2 * token, mask=real, other=0.0)
    dy = y - tl.load(points + 2 * token + 1, mask=real, other=0.0)
    return dx * inverse, dy * inverse


@triton.jit(do_not_specialize=["queries", "tokens", "heads"])
def _deformable_attention_bwd_kernel(
    values, query_pos, offsets, weights, power, points, near, grad,
    d_values, d_offsets, d_weights, d_power, heads, queries, tokens,
    svb, svn, svh, sob, soq, soh, sop, swb, swq, swh, swp, sgb, sgq, sgh,
    SAMPLES: tl.constexpr, COUNT: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute all gradients; those of the values are added atomically in float32."""
    head, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    query = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, BLOCK_D)
    real, lane_real = query < queries, lane < D
    both = real[:, None] & lane_real[None, :]
    raw_power = tl.load(power).to(tl.float32)
    sharpness = tl.maximum(raw_power, 1e-6)
    values += image * svb + head * svh + lane[None, :]
    d_values += (image * tokens * heads + head) * D + lane[None, :]
    offsets += image * sob + query * soq + head * soh
    weights += image * swb + query * swq + head * swh
    query_pos += image * queries * 2
    points += image * tokens * 2
    place = (image * queries + query) * heads + head
    arriving = tl.load(
        grad + image * sgb + query[:, None] * sgq + head * sgh + lane[None, :],
        mask=both, other=0.0,
    ).to(tl.float32)  # fmt: skip
    power_sum = tl.zeros([BLOCK], tl.float32)
    for p in tl.static_range(SAMPLES):
        x, y = _sample(query_pos, offsets + p * sop, query, real)
        t0, t1, t2, t3, d0, d1, d2, d3 = _distances(
            x, y, points, near + (place * SAMPLES + p) * COUNT, real, COUNT
        )
        s0, s1, s2, s3 = _shares(d0, d1, d2, d3, sharpness)
        w = tl.load(weights + p * swp, mask=real, other=0.0).to(tl.float32)
        g0 = _pull(values, d_values, t0, arriving, w * s0, both, svn, heads * D)
        g1, g2, g3 = g0, g0, g0
        mean = s0 * g0
        if COUNT > 1:
            g1 = _pull(values, d_values, t1, arriving, w * s1, both, svn, heads * D)
            mean += s1 * g1
        if COUNT > 2:
            g2 = _pull(values, d_values, t2, arriving, w * s2, both, svn, heads * D)
            mean += s2 * g2
        if COUNT > 3:
            g3 = _pull(values, d_values, t3, arriving, w * s3, both, svn, heads * D)
            mean += s3 * g3
        tl.store(d_weights + place * SAMPLES + p, mean.to(d_weights.dtype.element_ty), mask=real)
        # Of the exponent -power * d of each share.
        e0 = w * s0 * (g0 - mean)
        e1 = w * s1 * (g1 - mean)
        e2 = w * s2 * (g2 - mean)
        e3 = w * s3 * (g3 - mean)
        power_sum -= e0 * (d0 + 1e-6)
        gx, gy = _pull_offset(x, y, points, t0, d0, -sharpness * e0, real)
        if COUNT > 1:
            power_sum -= e1 * (d1 + 1e-6)
            ax, ay = _pull_offset(x, y, points, t1, d1, -sharpness * e1, real)
            gx += ax
            gy += ay
        if COUNT > 2:
            power_sum -= e2 * (d2 + 1e-6)
            ax, ay = _pull_offset(x, y, points, t2, d2, -sharpness * e2, real)
            gx += ax
            gy += ay
        if COUNT > 3:
            power_sum -= e3 * (d3 + 1e-6)
            ax, ay = _pull_offset(x, y, points, t3, d3, -sharpness * e3, real)
            gx += ax
            gy += ay
        offset_place = d_offsets + (place * SAMPLES + p) * 2
        tl.store(offset_place, gx.to(d_offsets.dtype.element_ty), mask=real)
        tl.store(offset_place + 1, gy.to(d_offsets.dtype.element_ty), mask=real)
    power_sum = tl.where(real, power_sum, 0.0) * tl.where(raw_power < 1e-6, 0.0, 1.0)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * heads + head
    tl.store(d_power + program, tl.sum(power_sum, axis=0))
