"""What the other tests rely on to find elements that a kernel does not write."""

import torch
from torch import Tensor
from uninitialised import filled


def test_uninitialised_memory_is_visible_also_inside_operators() -> None:
    @torch.library.custom_op("affmae_tests::half_written", mutates_args=())
    def half_written(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        out[::2] = x[::2]
        return out

    before = torch.empty, torch.empty_like, Tensor.new_empty
    with filled():
        assert half_written(torch.ones(4)).isnan().tolist() == [False, True, False, True]
        assert torch.empty(2, dtype=torch.float16).isnan().all()
        whole = torch.ones(1).new_empty((2,), dtype=torch.int32)
        assert whole.tolist() == [2**31 - 1] * 2
        assert torch.empty(2, dtype=torch.bool).all()
    assert (torch.empty, torch.empty_like, Tensor.new_empty) == before
