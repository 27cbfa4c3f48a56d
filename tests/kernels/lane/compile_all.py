"""Compile every kernel as its launcher would: compile_all.py <capability> <bytes of shared memory>.

The launchers run on fake tensors, and what they would launch is compiled for
the capability instead.
"""

import sys
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from affmae_kernels import _launch
from affmae_kernels.add_positions import _kernels as position_kernels
from affmae_kernels.add_positions import _triton as positions
from affmae_kernels.cluster_attention import _kernels as attention_kernels
from affmae_kernels.cluster_attention import _triton as attention
from affmae_kernels.cluster_merge import _kernels as merge_kernels
from affmae_kernels.cluster_merge import _triton as merge
from affmae_kernels.column_sums import _kernels as sum_kernels
from affmae_kernels.column_sums import _triton as sums
from affmae_kernels.cut_crops import _kernels as crop_kernels
from affmae_kernels.cut_crops import _triton as crops
from affmae_kernels.cut_crops.plan import POOL_DTYPES, CropPlan
from affmae_kernels.deformable_attention import _kernels as deformable_kernels
from affmae_kernels.deformable_attention import _triton as deformable
from affmae_kernels.dice_focal import _kernels as loss_kernels
from affmae_kernels.dice_focal import _triton as loss
from affmae_kernels.dropout import _kernels as dropout_kernels
from affmae_kernels.dropout import _triton as dropout
from affmae_kernels.gelu import _kernels as gelu_kernels
from affmae_kernels.gelu import _triton as gelu
from affmae_kernels.mask_noise import _kernels as mask_kernels
from affmae_kernels.mask_noise import _triton as masks
from affmae_kernels.masked_convolution import _kernels as convolution_kernels
from affmae_kernels.masked_convolution import _triton as convolution
from affmae_kernels.neighbours import _kernels as neighbour_kernels
from affmae_kernels.neighbours import _list_kernels as list_kernels
from affmae_kernels.neighbours import _triton as neighbours
from affmae_kernels.ordering import _kernels as order_kernels
from affmae_kernels.ordering import _triton as orders
from affmae_kernels.residual_norm import _kernels as norm_kernels
from affmae_kernels.residual_norm import _triton as norm

POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.uint16: "*u16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


class Compiler:
    """Stands where a kernel stands, and compiles instead of launching."""

    limit = 0
    target = GPUTarget("cuda", 90, 32)
    compiled: ClassVar[set[str]] = set()

    def __init__(self, kernel: JITFunction) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: object) -> Any:
        return self.launch

    def launch(self, *arguments: Any, **keywords: Any) -> None:
        """Compile for the arguments' types, aligned as the real ones are."""
        options = {k: keywords.pop(k) for k in OPTIONS if k in keywords}
        names = self.kernel.arg_names
        values = dict(zip(names, arguments, strict=False)) | keywords
        signature, constants, attributes = {}, {}, {}
        for place, name in enumerate(names):
            value = values[name]
            if self.kernel.params[place].is_constexpr:
                signature[name], constants[(place,)] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
                attributes[(place,)] = [["tt.divisibility", 16]]
            elif isinstance(value, float):
                signature[name] = "fp32"
            else:
                signature[name] = "i32"
                fixed = not self.kernel.params[place].do_not_specialize
                if fixed and value % 16 == 0:
                    attributes[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, attributes)
        shared = triton.compile(source, target=self.target, options=options).metadata.shared
        name = f"{self.kernel.__name__} {next(v for v in signature.values() if v[0] == '*')}"
        assert shared <= self.limit, f"{name} takes {shared} bytes of shared memory"
        self.compiled.add(self.kernel.__name__)


def replace_kernels() -> set[str]:
    """Put a `Compiler` in the place of every kernel; returns their names."""
    names = set()
    for module in (
        attention_kernels,
        merge_kernels,
        crop_kernels,
        mask_kernels,
        deformable_kernels,
        loss_kernels,
        dropout_kernels,
        gelu_kernels,
        position_kernels,
        order_kernels,
        sum_kernels,
        convolution_kernels,
        neighbour_kernels,
        list_kernels,
        norm_kernels,
    ):
        for name, kernel in vars(module).copy().items():
            if isinstance(kernel, JITFunction) and name.endswith("_kernel"):
                setattr(module, name, Compiler(kernel))
                names.add(name)
    return names


# Each type on chips with little shared memory and with much; 7.5 has no bfloat16.
DTYPES = {
    75: (torch.float16, torch.float32),
    80: (torch.bfloat16,),
    86: (torch.float16,),
    89: (torch.bfloat16,),
    90: (torch.float16,),
    120: (torch.bfloat16,),
}


def launch_all(dtype: torch.dtype) -> None:
    """Call every launcher on inputs of a preset's widths."""
    new = torch.zeros
    batch, tokens, heads, width, channels, size, wanted = 1, 64, 2, 32, 128, 8, 4
    whole = {"dtype": torch.int32}
    query_key_value = new(batch, tokens, 3, heads, width, dtype=dtype)
    small = (new(3, heads, width), new(heads, width), new(heads, width))
    small = (*small, new(heads, 5), new(heads))
    pos = new(batch, tokens, 2)
    ids, lengths = new(batch, 2, 8, **whole), new(batch, 2, **whole)
    lists = (pos, pos, ids, ids, lengths, new(batch * tokens * wanted, **whole), new(2, 8, **whole))
    attended = attention.cluster_attention_forward(query_key_value, *small, *lists, size, wanted)
    attention.cluster_attention_backward(
        attended[0], query_key_value, *small, *lists, *attended, size, wanted
    )
    x, score = new(batch, tokens, channels, dtype=dtype), new(batch, tokens, 1)
    maps = (new(4, 5), new(4), new(4), new(4))
    merged = merge.cluster_merge_forward(x, score, *maps, *lists, size, wanted)
    merge.cluster_merge_backward(merged, x, score, *maps, *lists, size, wanted)
    values = new(batch, tokens, heads, 64, dtype=dtype)
    sampling = new(batch, tokens, heads * 4 * 3, dtype=dtype)
    table = (pos, new(batch, 16, 16, **whole), new(batch, 32, 32, 64, dtype=torch.int64))
    table = (*table, new(batch, 32, 32, **whole))
    sampled, near = deformable.deformable_attention_forward(
        values, pos, sampling, new(()), *table, 4
    )
    deformable.deformable_attention_backward(sampled, values, pos, sampling, new(()), pos, near)
    images, visible = new(1, 1, 64, 64), new(1, 1, 8, 8)
    convolved = new(1, 32, 32, 64, dtype=dtype)
    filters = new(64, 1, 3, 3, dtype=dtype)
    for given in ((images, visible, filters), (convolved, visible, None)):
        rows = convolution.masked_convolution_forward(*given, *(new(64) for _ in range(3)))
        convolution.masked_convolution_backward(rows, *given, *(new(64) for _ in range(3)))
    rows, gain, seed = new(64, 384, dtype=dtype), new(384), new(1, dtype=torch.int64)
    options = (gain, new(64), seed)
    _, *kept = norm.residual_norm_forward(rows, rows, gain, gain, *options, 0.1, 1e-5, dtype)
    norm.residual_norm_backward(rows, rows, kept[0], gain, *options, *kept[1:], 0.1, dtype, dtype)
    dropout.relu_dropout_forward(rows, gain, seed, 0.1)
    dropout.relu_dropout_backward(rows, rows, 0.1, True)
    gelu.gelu_forward(rows, gain)
    gelu.gelu_backward(rows, rows, gain)
    sums.column_sums_forward(rows)
    positions.add_positions_forward(gain, pos, new(16, 192), new(16, 192), dtype)
    for classes in (4, 32):
        logits, weight = new(1, classes, 16, 16, dtype=dtype), new(classes)
        target = new(1, 16, 16, dtype=torch.int64)
        value, *slopes = loss.dice_focal_forward(logits, target, weight, 2.0, -100)
        loss.dice_focal_backward(value, logits, target, weight, *slopes, 2.0, -100)


def search_all() -> None:
    """Call every launcher of the neighbour search."""
    pos = torch.zeros(1, 64, 2)
    heads, links = neighbours.fill_buckets(pos, 16, 16, 1.0)
    neighbours.nearest_points(pos, pos, heads, links, 1.0, 8, True)
    neighbours.list_candidates(heads, 64, 4)
    neighbours.cluster_centres(pos, 8)
    cells = torch.zeros(256, dtype=torch.int32)
    orders.order_by_place(pos, cells, cells, 16, 4)
    orders.sort_distinct(torch.zeros(1, 32, dtype=torch.int64), 64)
    clusters = torch.zeros(1, 64, 8, dtype=torch.int64)
    neighbours.tile_lists(clusters, 8)
    neighbours.query_lists(clusters, 8)


def prepare_all() -> None:
    """Call every launcher of what comes before the network."""
    keys = torch.zeros(2, dtype=torch.int64)
    masks.mask_noise_forward(keys, keys, 8, 8)
    masks.mask_noise_forward(keys, None, 8, 8)
    plan = CropPlan(
        offset=keys, label_offset=keys, size=torch.ones(2, 2, dtype=torch.int32),
        matrix=torch.zeros(2, 2, 2), shift=torch.zeros(2, 2), knots=torch.zeros(2, 2, 4, 4),
        limits=torch.zeros(2, 1, 4), light=torch.ones(2, 5), key=keys,
    )  # fmt: skip
    labels = torch.zeros(8, dtype=torch.uint8)
    for dtype in POOL_DTYPES:
        pool = torch.zeros(8).to(dtype)
        crops.cut_crops_forward(pool, labels, *plan, 32, True, True, True, -100)
    crops.cut_crops_forward(labels, None, *plan, 32, False, False, False, -100)


if __name__ == "__main__":
    capability, limit = int(sys.argv[1]), int(sys.argv[2])
    Compiler.target, Compiler.limit = GPUTarget("cuda", capability, 32), limit
    _launch.on_device_of = lambda tensor: nullcontext()
    expected = replace_kernels()
    search_all()
    prepare_all()
    for dtype in DTYPES[capability]:
        launch_all(dtype)
    assert Compiler.compiled == expected, expected - Compiler.compiled
