"""Check how operators are registered with PyTorch, and which operations it counts."""

import torch
from compare import CANVAS, scattered
from crop_plans import draw_plan, draw_pool
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from affmae_kernels import (
    cluster_attention,
    find_neighbourhood,
    index_tokens,
)
from affmae_kernels.add_positions import _triton as positions
from affmae_kernels.cluster_attention import _triton as attention
from affmae_kernels.cluster_merge import _triton as merge
from affmae_kernels.cut_crops import _triton as crops
from affmae_kernels.deformable_attention import _triton as deformable
from affmae_kernels.dice_focal import _triton as loss
from affmae_kernels.dropout import _triton as dropout
from affmae_kernels.gelu import _triton as gelus
from affmae_kernels.mask_noise import _triton as masks
from affmae_kernels.masked_convolution import _triton as convolution
from affmae_kernels.residual_norm import _triton as norm


def main() -> None:
    """PyTorch's own checks of registered operators, and the operations that it counts."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, requires_grad=True)

    around = find_neighbourhood(scattered(1, 20, 8), CANVAS, 16, 8, backend="triton")
    lists = around.lists
    given = (lists.query_pos, lists.key_pos, lists.ids, lists.bits, lists.lengths, lists.queries)
    rest = (*given, lists.bounds, 8, 2)
    large, blanks = draw(1, 20, 3, 2, 4), [draw(3, 2, 4), draw(2, 4), draw(2, 4)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        attention.cluster_attention_forward,
        (large, *blanks, draw(2, 5), draw(2), *rest),
        test_utils=tests,
    )
    maps = (draw(4, 5), draw(4), draw(4), draw(4))
    torch.library.opcheck(
        merge.cluster_merge_forward,
        (draw(1, 20, 6), draw(1, 20, 1), *maps, *rest),
        test_utils=tests,
    )
    table = index_tokens(scattered(1, 20, 8), CANVAS, 4, backend="triton")
    tokens = (table.points, table.buckets.heads, table.lists, table.lengths, 4)
    sampled = (draw(1, 20, 2, 6), scattered(1, 5, 9), draw(1, 5, 12))
    torch.library.opcheck(
        deformable.deformable_attention_forward,
        (*sampled, torch.tensor(1.0, requires_grad=True), *tokens),
        test_utils=tests,
    )
    images, visible = torch.randn(1, 1, 16, 16), torch.ones(1, 1, 2, 2)
    torch.library.opcheck(
        convolution.masked_convolution_forward,
        (images, visible, draw(4, 1, 3, 3), draw(4), draw(4), draw(4)),
        test_utils=tests,
    )
    torch.library.opcheck(
        convolution.masked_convolution_backward,
        (torch.randn(1, 8, 8, 4), images, visible, *(torch.randn(4, 1, 3, 3), *torch.randn(3, 4))),
        test_utils="test_faketensor",
    )
    torch.library.opcheck(
        norm.residual_norm_backward,
        (
            *torch.randn(3, 5, 8),
            *torch.randn(2, 8),
            torch.rand(5),
            torch.tensor([3]),
            *torch.rand(2, 5),
            0.1,
            torch.float32,
            torch.float32,
        ),
        test_utils="test_faketensor",
    )
    torch.library.opcheck(
        dropout.relu_dropout_forward,
        (draw(5, 8), draw(8), torch.tensor([3]), 0.1),
        test_utils=tests,
    )
    waves = (torch.randn(9, 4), torch.randn(6, 4))
    torch.library.opcheck(
        positions.add_positions_forward,
        (draw(1, 20, 8), scattered(1, 20, 8), *waves, torch.float32),
        test_utils=tests,
    )
    torch.library.opcheck(gelus.gelu_forward, (draw(5, 8), draw(8)), test_utils=tests)
    torch.library.opcheck(
        norm.residual_norm_forward,
        (
            *(draw(5, 8) for _ in range(2)),
            *(draw(8) for _ in range(3)),
            torch.rand(5),
            torch.tensor([3]),
            *(0.1, 1e-5, torch.float32),
        ),
        test_utils=tests,
    )
    target, weight = torch.randint(3, (2, 4, 5)), torch.rand(3)
    torch.library.opcheck(
        loss.dice_focal_forward, (draw(2, 3, 4, 5), target, weight, 2.0, -100), test_utils=tests
    )
    for logits in (torch.randn(2, 3, 4, 5), torch.randn(2, 4, 5, 3).permute(0, 3, 1, 2)):
        torch.library.opcheck(
            loss.dice_focal_backward,
            (
                torch.tensor(1.0),
                logits,
                target,
                None,
                torch.rand(2, 2, 3),
                torch.tensor(0.1),
                2.0,
                -100,
            ),
            test_utils="test_faketensor",
        )
    check_what_comes_before()
    with FlopCounterMode(display=False) as counter:
        out = cluster_attention(large, *blanks, draw(2, 5), draw(2), around, backend="triton")
        out.sum().backward()
    # Two products forwards and five backwards, for 16 keys and the blank one.
    assert counter.get_total_flops() == 7 * 2 * 20 * 2 * 4 * 17


def check_what_comes_before() -> None:
    """Crops and masks' noise, which have no gradients."""
    tests = ("test_schema", "test_faketensor")
    keys = torch.tensor([3, 4])
    for cells in (keys, None):
        torch.library.opcheck(masks.mask_noise_forward, (keys, cells, 5, 6), test_utils=tests)
    pool, labels, *starts = draw_pool(torch.uint8, 2)
    plan = draw_plan(*starts, 5, 2, bent=True)
    for given in (labels, None):
        torch.library.opcheck(
            crops.cut_crops_forward,
            (pool, given, *plan, 5, True, True, True, -100),
            test_utils=tests,
        )


if __name__ == "__main__":
    main()
