"""Compare the kernels of crops and of masks' noise with PyTorch; ends with an error."""

import torch
from crop_plans import DTYPES, draw_plan, draw_pool
from uninitialised import filled

from affmae_kernels import cut_crops, mask_noise


def check_crops() -> None:
    """All types, straight and bent, changed and not; crops that fill no tile and two tiles."""
    for dtype, channels, crop in zip(DTYPES, (1, 3, 1, 2), (1, 12, 33, 32), strict=True):
        pool, labels, *starts = draw_pool(dtype, channels)
        for bent, changed in ((False, False), (True, False), (False, True), (True, True)):
            plan = draw_plan(*starts, crop, channels, bent)
            given = None if changed and not bent else labels
            expected, found = (
                cut_crops(
                    pool,
                    plan,
                    crop,
                    labels=given,
                    bent=bent,
                    lit=changed,
                    blurred=changed,
                    backend=b,
                )
                for b in ("torch", "triton")
            )
            scale = expected[0].abs().amax((1, 2, 3), keepdim=True).clamp(min=1)
            torch.testing.assert_close(
                found[0] / scale,
                expected[0] / scale,
                rtol=0,
                atol=0 if not (bent or changed) else 1e-4,
            )
            if given is None:
                assert found[1] is None
            else:
                assert torch.equal(found[1], expected[1])


def check_mask_noise() -> None:
    """Canvases that fill no block and two blocks; as few cells as there are, and too many."""
    keys = torch.tensor([5, -(2**40), 2**62 + 3])
    for canvas in ((1, 1), (10, 7), (13, 40)):
        for cells in (torch.tensor([1, 4, 64]), torch.tensor([0, 7, 3], dtype=torch.int32)):
            expected, found = (
                mask_noise(keys, canvas, "perlin", cells, backend=b) for b in ("torch", "triton")
            )
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert torch.equal(
            *(mask_noise(keys, canvas, "uniform", backend=b) for b in ("torch", "triton"))
        )


if __name__ == "__main__":
    with filled():
        check_crops()
        check_mask_noise()
