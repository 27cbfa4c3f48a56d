"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.dice_focal.reference import dice_focal_reference

# For more classes, a program's sums would not fit its registers.
MOST_CLASSES = 32
IGNORED = -100


def dice_focal(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignored: int = IGNORED,
    backend: Backend = "auto",
) -> Tensor:
    """Compute Dice plus focal loss over the labelled pixels.

    With p the softmax of the logits, y the classes as 0 and 1, q the p of each
    pixel's class, and sums over labelled pixels::

        Dice  = mean over images and all classes but the first of
                1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1)
        focal = -sum(weight (1 - q)^gamma log q) / labelled pixels of the batch

    (V-Net's Dice with a linear denominator, arXiv:1606.04797; arXiv:1708.02002).
    Without labelled pixels the loss and its gradient are zero.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K, H, W)
        Of K >= 2 classes; any strides.
    target : Tensor of int64, shape (B, H, W)
        Class indices or `ignored`. Other values are refused by PyTorch, and ignored
        by Triton.
    weight : Tensor of float, shape (K,), optional
        Weight of each class in the focal loss; Triton computes no gradient for it.
    gamma : float
        At least 0.
    ignored : int
        Pixels of this label enter neither loss.
    backend : {"auto", "triton", "torch"}
        What computes. "auto" leaves more than 32 classes to PyTorch.

    Returns
    -------
    Tensor of float32, or float64 like the logits, shape ()

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run, or not for so many classes.
    """
    limit = ("classes", logits.shape[1], MOST_CLASSES)
    if choose_backend(backend, logits.device, logits.dtype, limit) == "triton":
        from affmae_kernels.dice_focal._triton import dice_focal_triton

        return dice_focal_triton(logits, target, weight, gamma, ignored)
    return dice_focal_reference(logits, target, weight, gamma, ignored)
