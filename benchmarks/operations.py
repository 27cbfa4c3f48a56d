"""Counting the arithmetic that a network really does.

PyTorch's counter sees matrix products, convolutions and fused attention. It
does not see sums of gathered rows (`embedding_bag`, `index_add`), sorting and
searching, norms, activations and all other arithmetic element by element,
which is where a network of irregular tokens does much of its work. Here every
operator that PyTorch executes is counted, integer arithmetic and comparisons
included, by these rules:

- products: PyTorch's own formulas, two operations a multiplication and addition;
- element by element: the operations of the textbook formula for each output
  element, an elementary function (exp, sqrt, sin, erf, a division) being one;
- reductions likewise for each input element;
- sorting n values: n log2 n comparisons; the k smallest of n: n log2(k + 1), as
  with a heap; searching among n values: log2 n for each searched one;
- sums of gathered rows: two operations an element with weights, one without;
- views, copies, gathers and fills are free.

An operator without a rule is an error, not zero.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop,
    sdpa_flop,
)

# PyTorch's counter knows fused attention on GPUs only; the CPU's has the same arguments.
CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
register_flop_formula(getattr(torch.ops.aten, CPU_ATTENTION), get_raw=True)(sdpa_flop)
register_flop_formula(getattr(torch.ops.aten, f"{CPU_ATTENTION}_backward"), get_raw=True)(
    sdpa_backward_flop
)

ONE_EACH = (
    "abs add bernoulli bitwise_and bitwise_not bitwise_or clamp cos div eq erf exp expm1 floor "
    "floor_divide ge gt le log logical_and logical_not logical_or lt maximum minimum mul ne "
    "neg pow rand random reciprocal relu remainder round rsqrt rsub sign sin sqrt sub "
    "threshold_backward uniform __lshift__ __rshift__"
)
# Operations for each element of the (first) output.
POINTWISE = dict.fromkeys(ONE_EACH.split(), 1) | {
    "hypot": 4,  # two squares, a sum, a root
    "logaddexp": 5,  # max, difference, exp, sum, log
    "sigmoid": 4,  # sign, exp, sum, quotient
    "sigmoid_backward": 3,  # g y (1 - y)
    "native_dropout": 2,  # a comparison, a product
    "native_dropout_backward": 2,
    "gelu": 5,  # x/2 (1 + erf(x / sqrt 2))
    "gelu_backward": 12,  # that, and x exp(-x^2/2) / sqrt(2 pi)
    "mse_loss_backward": 3,
    "_softmax_backward_data": 4,  # y (g - sum g y)
    "_log_softmax_backward_data": 4,
    "native_layer_norm_backward": 14,  # two means over products, their combination, two weights
}

# Operations for each element of the first argument.
ONE_EACH_INPUT = ("all", "amax", "amin", "any", "cumsum", "max", "mean", "min", "sum")
REDUCTIONS = dict.fromkeys(ONE_EACH_INPUT, 1) | {
    "linalg_vector_norm": 2,
    "mse_loss": 3,
    "logsumexp": 4,  # max, difference, exp, sum
    "_softmax": 5,  # max, difference, exp, sum, quotient
    "_log_softmax": 5,
    "native_layer_norm": 8,  # mean 1, variance 3, difference, quotient, scale, shift
}

MOVES = (
    "_local_scalar_dense _to_copy _unsafe_view alias arange as_strided cat clone "
    "constant_pad_nd copy detach device empty empty_like empty_strided expand fill flip full "
    "full_like gather index index_select lift_fresh masked_fill new_empty new_empty_strided "
    "new_full new_ones new_zeros nonzero ones ones_like permute promote_types repeat "
    "scalar_tensor scatter select select_backward slice slice_backward split split_with_sizes "
    "squeeze stack t transpose unbind unfold unsqueeze view where zero zeros zeros_like"
)
FREE = frozenset(MOVES.split())


class OperationCounter(TorchDispatchMode):
    """Count what PyTorch executes inside this context.

    Attributes
    ----------
    counts : Counter
        Operations by kind: products, gathered sums, reductions, pointwise,
        sorting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Execute and count one operator."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        kind, operations = count_operator(func.overloadpacket, args, kwargs, out)
        self.counts[kind] += operations
        return out


def count_operator(
    packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
) -> tuple[str, int]:
    """Count one executed operator.

    Returns
    -------
    tuple of str and int
        Its kind and its number of operations.

    Raises
    ------
    NotImplementedError
        If no rule counts it.
    """
    if packet in flop_registry:
        return "products", flop_registry[packet](*args, **kwargs, out_val=out)
    name = packet.__name__
    if not name.startswith("__"):
        name = name.removesuffix("_")  # the variant that works in place
    if name in POINTWISE:
        first = out[0] if isinstance(out, tuple) else out
        return "pointwise", POINTWISE[name] * first.numel()
    if name in REDUCTIONS:
        return "reductions", REDUCTIONS[name] * args[0].numel()
    if name in OTHERS:
        kind, formula = OTHERS[name]
        return kind, formula(*args)
    if name in FREE:
        return "free", 0
    raise NotImplementedError(f"no rule in operations.py counts {packet}; add one")


def _weighted_rows(table: Tensor, rows: Tensor, *_: Any) -> int:
    """Count the weighted sum of gathered rows."""
    return 2 * rows.numel() * table.shape[1]


def _weights_of_rows(_grad: Tensor, table: Tensor, rows: Tensor, *_: Any) -> int:
    """Count a dot product for each gathered row."""
    return 2 * rows.numel() * table.shape[1]


def _added_rows(_out: Tensor, _axis: int, _rows: Tensor, source: Tensor, *_: Any) -> int:
    """Count an addition for each element."""
    return source.numel()


def _put_values(_out: Tensor, _rows: Any, source: Tensor, accumulate: bool = False, *_: Any) -> int:
    """Count an addition for each element, where values accumulate."""
    return source.numel() if accumulate else 0


def _sort(values: Tensor, *_: Any) -> int:
    """Count the comparisons of sorting the last axis."""
    return int(values.numel() * math.log2(max(values.shape[-1], 2)))


def _topk(values: Tensor, k: int, *_: Any) -> int:
    """Count the comparisons of a heap of k."""
    return int(values.numel() * math.log2(k + 1))


def _searchsorted(ordered: Tensor, values: Tensor, *_: Any) -> int:
    """Count the comparisons of a binary search."""
    return int(values.numel() * math.log2(max(ordered.shape[-1], 2)))


OTHERS: Mapping[str, tuple[str, Callable[..., int]]] = {
    "_embedding_bag": ("gathered sums", _weighted_rows),
    "_embedding_bag_forward_only": ("gathered sums", _weighted_rows),
    "_embedding_bag_per_sample_weights_backward": ("gathered sums", _weights_of_rows),
    "index_add": ("gathered sums", _added_rows),
    "scatter_add": ("gathered sums", _added_rows),
    "index_put": ("gathered sums", _put_values),
    "sort": ("sorting", _sort),
    "topk": ("sorting", _topk),
    "searchsorted": ("sorting", _searchsorted),
}
