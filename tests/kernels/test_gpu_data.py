"""Crops and masks on a GPU, captured too; skipped without one."""

import pytest
import torch
from crop_plans import DTYPES, draw_plan, draw_pool
from torch import Tensor

from affmae_kernels import CropPlan, cut_crops, mask_noise
from affmae_kernels._dispatch import Backend
from napari_affmae.model.capture import Captured
from napari_affmae.model.tokens.masking import draw_keys, draw_masks

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("uninitialised_is_nan"),
]
BACKENDS: tuple[Backend, ...] = ("torch", "triton")


def on_gpu(plan: CropPlan) -> CropPlan:
    return CropPlan(*(field.cuda() for field in plan))


def assert_same_crops(
    found: tuple[Tensor, Tensor | None], expected: tuple[Tensor, Tensor | None], bent: bool
) -> None:
    scale = expected[0].abs().amax((1, 2, 3), keepdim=True).clamp(min=1)
    torch.testing.assert_close(found[0].cpu() / scale, expected[0] / scale, rtol=0, atol=3e-4)
    # Places that lie half-way between pixels may be rounded to either.
    different = (found[1].cpu() != expected[1]).float().mean()
    assert different <= (1e-3 if bent else 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("crop", [1, 33, 256])
@pytest.mark.parametrize(("dtype", "channels"), list(zip(DTYPES, (1, 3, 2, 1), strict=True)))
def test_crops_equal_those_on_the_cpu(
    dtype: torch.dtype, channels: int, crop: int, backend: Backend
) -> None:
    pool, labels, *starts = draw_pool(dtype, channels)
    for bent, changed in ((False, False), (True, False), (False, True), (True, True)):
        plan = draw_plan(*starts, crop, channels, bent)
        how = {"bent": bent, "lit": changed, "blurred": changed}
        expected = cut_crops(pool, plan, crop, labels=labels, **how)
        found = cut_crops(
            pool.cuda(), on_gpu(plan), crop, labels=labels.cuda(), **how, backend=backend
        )
        assert_same_crops(found, expected, bent)


@pytest.mark.parametrize("backend", BACKENDS)
def test_straight_crops_of_a_bent_batch_keep_their_exact_pixels(backend: Backend) -> None:
    pool, labels, *starts = draw_pool(torch.float32, 1)
    plan = on_gpu(draw_plan(*starts, 70, 1, bent=False))
    straight, bent = (
        cut_crops(
            pool.cuda(), plan, 70, labels=labels.cuda(),
            bent=bent, lit=False, blurred=False, backend=backend,
        )
        for bent in (False, True)
    )  # fmt: skip
    assert torch.equal(straight[0], bent[0])
    assert torch.equal(straight[1], bent[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_captured_cut_follows_new_plans(backend: Backend) -> None:
    pool, labels, *starts = draw_pool(torch.uint8, 1)
    plan = draw_plan(*starts, 64, 1, bent=True)
    images, classes = pool.cuda(), labels.cuda()

    def cut(*fields: Tensor) -> tuple[Tensor, Tensor | None]:
        return cut_crops(
            images, CropPlan(*fields), 64, labels=classes,
            bent=True, lit=True, blurred=True, backend=backend,
        )  # fmt: skip

    captured = Captured(cut, on_gpu(plan))
    for shift in (0, 5):
        moved = plan._replace(shift=plan.shift + shift, key=plan.key + shift)
        expected = cut_crops(pool, moved, 64, labels=labels, bent=True, lit=True, blurred=True)
        assert_same_crops(captured(*moved), expected, bent=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("canvas", [(1, 1), (13, 40), (128, 128)])
def test_noise_equals_that_on_the_cpu(canvas: tuple[int, int], backend: Backend) -> None:
    keys, cells = draw_keys(5, torch.Generator().manual_seed(0)), torch.tensor([1, 8, 16, 32, 64])
    expected = mask_noise(keys, canvas, "perlin", cells)
    found = mask_noise(keys.cuda(), canvas, "perlin", cells.cuda(), backend)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=3e-6)
    expected = mask_noise(keys, canvas, "uniform")
    assert torch.equal(mask_noise(keys.cuda(), canvas, "uniform", backend=backend).cpu(), expected)


def test_captured_masks_follow_new_keys() -> None:
    canvas, patches = (64, 64), 64 * 64
    keys = [draw_keys(6, torch.Generator().manual_seed(seed)) for seed in range(2)]
    uniform = Captured(lambda k: draw_masks(k, canvas, 0.75, "uniform"), [keys[0].cuda()])
    perlin = Captured(lambda k: draw_masks(k, canvas, 0.75), [keys[0].cuda()])
    for drawn in keys:
        for found, expected in zip(
            uniform(drawn), draw_masks(drawn, canvas, 0.75, "uniform"), strict=True
        ):
            assert torch.equal(found.cpu(), expected)
        ids_keep, ids_masked = perlin(drawn)
        together = torch.cat([ids_keep, ids_masked], 1).sort(1).values
        assert together.cpu().eq(torch.arange(patches)).all()
        # Noise of two patches may be so close that it comes in another order elsewhere.
        hidden = draw_masks(drawn, canvas, 0.75)[1]
        for mine, theirs in zip(ids_masked.cpu(), hidden, strict=True):
            assert torch.isin(mine, theirs).float().mean() > 0.999
