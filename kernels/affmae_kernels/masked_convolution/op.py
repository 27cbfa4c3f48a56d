"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.masked_convolution.reference import masked_convolution_reference

# With more channels, the convolution is a large matrix product, which cuDNN computes faster.
MOST_CHANNELS = 8


def masked_convolution(
    x: Tensor,
    visible: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    backend: Backend = "auto",
) -> Tensor:
    """Convolve by 3 x 3 with stride 2 and zero hidden patches; then LayerNorm and GELU.

    A step of AFFMAE's patch embedding (section 3).

    Parameters
    ----------
    x : Tensor of float, shape (B, c, H, W)
        H and W are even, and their halves are multiples of the canvas.
    visible : Tensor of float, shape (B, 1, rows, columns), or None
        1 at visible patches, 0 at hidden ones; None: all are visible.
    weight : Tensor of float, shape (C, c, 3, 3)
    bias, norm_weight, norm_bias : Tensor of float, shape (C,)
    backend : {"auto", "triton", "torch"}
        What computes. With more than 8 input channels Triton leaves the
        convolution alone to cuDNN.

    Returns
    -------
    Tensor, shape (B, C, H / 2, W / 2), channels last in memory
        Triton: of autocast's type where that is on, else that of `weight`.
        PyTorch: what its operators return.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    arguments = (x, visible, weight, bias, norm_weight, norm_bias)
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.masked_convolution._triton import masked_convolution_triton

        # The kernel has no gradient for the image, which a network seldom needs.
        gathered = x.shape[1] <= MOST_CHANNELS and not x.requires_grad
        return masked_convolution_triton(*arguments, gathered)
    return masked_convolution_reference(*arguments)
