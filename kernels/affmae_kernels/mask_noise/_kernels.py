"""The Triton kernel of masks' noise: some patches of an image a program."""

import triton
import triton.language as tl

from affmae_kernels._hash_kernels import hashed, seed_of, uniform

_LATTICE = tl.constexpr(65536)
_TURN = tl.constexpr(6.283185307179586)


@triton.jit
def _fade(t):
    """Ease from 0 to 1 with vanishing first and second derivatives at both ends."""
    return t * t * t * (t * (6.0 * t - 15.0) + 10.0)


@triton.jit
def _corner(row, column, y, x, seed):
    """Multiply a lattice point's gradient with the vectors from it."""
    angle = uniform(hashed(row * _LATTICE + column, seed)) * _TURN
    return tl.sin(angle) * y + tl.cos(angle) * x


@triton.jit(do_not_specialize=["rows", "columns"])
def _mask_noise_fwd_kernel(
    keys, cells, out, rows, columns, PERLIN: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    patch = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    seed = seed_of(tl.load(keys + image))
    if PERLIN:
        count = tl.load(cells + image).to(tl.int32)
        count = tl.minimum(tl.maximum(count, 1), tl.minimum(rows, columns))
        # Doubled integers, because a rounding error would put a centre into the wrong cell.
        down = (2 * (patch // columns) + 1) * count
        right = (2 * (patch % columns) + 1) * count
        row, column = down // (2 * rows), right // (2 * columns)
        y = (down - row * 2 * rows).to(tl.float32) / (2 * rows)
        x = (right - column * 2 * columns).to(tl.float32) / (2 * columns)
        top = _corner(row, column, y, x, seed)
        top += (_corner(row, column + 1, y, x - 1.0, seed) - top) * _fade(x)
        noise = _corner(row + 1, column, y - 1.0, x, seed)
        noise += (_corner(row + 1, column + 1, y - 1.0, x - 1.0, seed) - noise) * _fade(x)
        noise = top + (noise - top) * _fade(y)
    else:
        noise = uniform(hashed(patch, seed))
    tl.store(out + image * rows * columns + patch, noise, mask=patch < rows * columns)
