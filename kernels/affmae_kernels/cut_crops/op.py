"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.cut_crops.plan import CropPlan, check_arguments
from affmae_kernels.cut_crops.reference import cut_crops_reference

IGNORED = -100


def cut_crops(
    pool: Tensor,
    plan: CropPlan,
    crop: int,
    *,
    labels: Tensor | None = None,
    bent: bool,
    lit: bool,
    blurred: bool,
    ignored: int = IGNORED,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Cut training crops out of blocks of image, and change them at random as planned.

    Pixel (i, j) of a crop has ``p = (i - c, j - c)`` with ``c = (crop - 1) / 2``
    and comes from ``matrix @ (p + bend(p)) + shift`` in its block, with::

        bend(p)[n] = sum_rc B_r(i) knots[n, r, c] B_c(j)

    B being the cubic B-splines of uniform knots 32 px apart. Beyond the edges a
    block is mirrored about the centres of its edge pixels. Values are clipped
    and scaled, then interpolated. With [a, b] the range that remains, and where
    `lit`, they become ``(a + (b - a) ((y - a) / (b - a))^gamma) contrast +
    brightness``. Where `blurred`, a Gaussian of 9 x 9 px, mirrored at the crop's
    edges, and noise, a function of key, channel and pixel alone, follow.

    No gradient passes. Nothing waits for a GPU: a call can be captured.

    Parameters
    ----------
    pool : Tensor of uint8, int16, uint16 or float32, shape (n,)
        Blocks of image, each of them (C, rows, columns); finite.
    plan : CropPlan
        Of B crops, on the pool's device. Offsets and sizes are not checked
        against the pool, which would have to be waited for.
    crop : int
        Side of the crops, pixels.
    labels : Tensor of uint8, shape (m,), optional
        Blocks of class indices, each of them (rows, columns); 255 is not
        labelled.
    bent : bool
        Whether any crop is bent, turned by less than a quarter, or scaled. If
        not, each matrix must be a signed permutation, each shift must put every
        pixel on a pixel, and knots are not read. If so, crops of which this is
        true all the same keep their exact pixels.
    lit, blurred : bool
        Whether any crop's light is changed; whether any is blurred or noisy.
    ignored : int
        Class of pixels that are not labelled.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    images : Tensor of float32, shape (B, C, crop, crop)
    targets : Tensor of int64, shape (B, crop, crop), or None
        Labels of the nearest pixels; None without labels.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    ValueError
        If a tensor's type, shape, device or layout is not as said here.
    """
    check_arguments(pool, plan, crop, labels)
    arguments = (pool, plan, crop, labels, bent, lit, blurred, ignored)
    if choose_backend(backend, pool.device) == "triton":
        from affmae_kernels.cut_crops._triton import cut_crops_triton

        return cut_crops_triton(*arguments)
    return cut_crops_reference(*arguments)
