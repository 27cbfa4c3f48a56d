"""Crops against loops over their pixels, and against scipy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from crop_plans import DTYPES, SIZES, draw_plan, draw_pool
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter
from torch import Tensor

from affmae_kernels import CropPlan, cut_crops
from affmae_kernels.cut_crops import reference


def fold(place: int, size: int) -> int:
    """Walk to a place, turning round at each edge."""
    at, step = 0, 1
    for _ in range(abs(place)):
        if size > 1 and not 0 <= at + step < size:
            step = -step
        at += step if size > 1 else 0
    return at


def loop(
    pool: NDArray, labels: NDArray, plan: CropPlan, n: int, crop: int, bent: bool
) -> tuple[NDArray, NDArray]:
    """Cut a crop pixel by pixel in float64, without changes of light."""
    field = {name: tensor[n].numpy() for name, tensor in plan._asdict().items()}
    (rows, columns), channels = field["size"].tolist(), len(field["limits"])
    offset, label_offset = int(field["offset"]), int(field["label_offset"])
    block = pool[offset : offset + channels * rows * columns].astype(float)
    block = block.reshape(channels, rows, columns)
    label = labels[label_offset : label_offset + rows * columns].reshape(rows, columns)
    intervals = max(1, -(-crop // 32))
    basis = BSpline.design_matrix(
        np.arange(crop, dtype=float), np.arange(-3, intervals + 4) * 32.0, 3
    ).toarray()
    image, classes = np.zeros((channels, crop, crop)), np.full((crop, crop), -100)
    for i in range(crop):
        for j in range(crop):
            p = np.array([i, j]) - (crop - 1) / 2
            if bent:
                p = p + np.array([basis[i] @ k @ basis[j] for k in field["knots"].astype(float)])
            y, x = field["matrix"].astype(float) @ p + field["shift"]
            for c in range(channels):
                low, high, scale, shift = field["limits"][c].astype(float)
                for r, down in ((math.floor(y), 1 - y % 1), (math.floor(y) + 1, y % 1)):
                    for s, right in ((math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)):
                        value = block[c, fold(r, rows), fold(s, columns)]
                        value = min(max(value, low), high) * scale + shift
                        image[c, i, j] += down * right * value
            r, s = math.floor(y + 0.5), math.floor(x + 0.5)
            if 0 <= r < rows and 0 <= s < columns and label[r, s] != 255:
                classes[i, j] = label[r, s]
    return image, classes


def mix(place: int, seed: int) -> int:
    h = (place * 0x9E3779B9 + seed) % 2**32
    h = (h ^ h >> 16) * 0x7FEB352D % 2**32
    h = (h ^ h >> 15) * 0x846CA68B % 2**32
    return h ^ h >> 16


def change(image: NDArray, plan: CropPlan, n: int, lit: bool, blurred: bool) -> NDArray:
    gamma, contrast, brightness, sigma, deviation = plan.light[n].tolist()
    key = int(plan.key[n])
    seed = mix((key >> 32) % 2**32, mix(key % 2**32, 0))
    for c, channel in enumerate(image):
        low, high, scale, shift = plan.limits[n, c].double().tolist()
        a, b = sorted((low * scale + shift, high * scale + shift))
        if lit and b > a:
            channel[:] = a + (b - a) * ((channel - a) / (b - a)).clip(0, 1) ** gamma
        if lit:
            channel[:] = channel * contrast + brightness
        if blurred and sigma > 0:
            channel[:] = gaussian_filter(channel, sigma, mode="mirror", radius=4)
        if blurred and deviation > 0:
            for pixel in range(channel.size):
                first, second = ((mix(pixel, mix(2 * c + k, seed)) >> 8) / 2**24 for k in range(2))
                radius = math.sqrt(-2 * math.log(1 - first))
                channel.flat[pixel] += deviation * radius * math.cos(2 * math.pi * second)
    return image


def together(pool: Tensor, plan: CropPlan, crop: int, *, labels: Tensor | None, **how: bool):
    """Cut as on a device that is not the CPU."""
    return reference._cut_together(
        pool, plan, crop, labels, how["bent"], how["lit"], how["blurred"], -100
    )


@pytest.mark.parametrize("cut", [cut_crops, together])
@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize(("dtype", "channels"), list(zip(DTYPES, (1, 3, 1, 3), strict=True)))
def test_crops_equal_loops_over_their_pixels(
    dtype: torch.dtype, channels: int, bent: bool, cut: Callable
) -> None:
    pool, labels, *starts = draw_pool(dtype, channels)
    for crop in (1, 12, 37) if dtype == torch.uint8 else (7,):
        plan = draw_plan(*starts, crop, channels, bent)
        for lit, blurred in ((False, False), (True, True)):
            images, targets = cut(
                pool, plan, crop, labels=labels, bent=bent, lit=lit, blurred=blurred
            )
            for n in range(len(SIZES)):
                expected, classes = loop(pool.numpy(), labels.numpy(), plan, n, crop, bent)
                expected = change(expected, plan, n, lit, blurred)
                spread = max(1.0, np.abs(expected).max())
                assert np.abs(images[n].numpy() - expected).max() < 3e-4 * spread
                assert (targets[n].numpy() == classes).all()


@pytest.mark.parametrize("cut", [cut_crops, together])
def test_straight_crops_of_a_bent_batch_keep_their_exact_pixels(cut: Callable) -> None:
    pool, labels, *starts = draw_pool(torch.float32, 1)
    plan = draw_plan(*starts, 37, 1, bent=False)
    how = {"labels": labels, "lit": False, "blurred": False}
    straight, bent = (cut(pool, plan, 37, bent=bent, **how) for bent in (False, True))
    assert torch.equal(straight[0], bent[0])
    assert torch.equal(straight[1], bent[1])


def test_noise_is_normal_and_differs_between_keys_channels_and_pixels() -> None:
    plan = draw_plan([0] * 6, [0] * 6, 64, 2, bent=False)
    plan.size.fill_(1)
    plan.light[:] = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    plan.limits[:] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    noise, _ = cut_crops(torch.zeros(2), plan, 64, bent=False, lit=False, blurred=True)
    again, _ = cut_crops(torch.zeros(2), plan, 64, bent=False, lit=False, blurred=True)
    assert torch.equal(noise, again)
    parts = noise.flatten(2).flatten(0, 1)
    assert parts.mean(1).abs().max() < 5 / 64
    assert (parts.std(1) - 1).abs().max() < 0.06
    assert ((parts.abs() > 2).float().mean() - 0.0455).abs() < 0.005
    assert (parts.corrcoef() - torch.eye(12)).abs().max() < 0.08
    shifted = (
        (noise[..., 1:] * noise[..., :-1]).mean(),
        (noise[..., 1:, :] * noise[..., :-1, :]).mean(),
    )
    assert max(value.abs() for value in shifted) < 0.03


def ill_formed() -> list[tuple[str, dict[str, object], str]]:
    """What is wrong, the arguments that make it so, and words of the message."""
    return [
        ("pool's type", {"pool": torch.zeros(99, dtype=torch.int32)}, "uint8, int16, uint16, fl"),
        ("pool's shape", {"pool": torch.zeros(9, 11)}, r"1-D tensor.*got torch.float32.*\(9, 11\)"),
        ("labels' type", {"labels": torch.zeros(99)}, "labels must be a 1-D tensor of uint8"),
        ("pool in pieces", {"pool": torch.zeros(198)[::2]}, "contiguous"),
        ("crop", {"crop": 0}, "at least 1 pixel, got 0"),
        ("knots", {"knots": torch.zeros(6, 2, 4, 5)}, r"\(6, 2, 4, 4\), got .*\(6, 2, 4, 5\)"),
        ("size", {"size": torch.ones(6, 2, dtype=torch.int64)}, "plan.size .* must be torch.int32"),
        ("light", {"light": torch.ones(5, 5)}, r"plan.light .* \(6, 5\), got .*\(5, 5\)"),
        ("limits", {"limits": torch.ones(6, 4)}, r"plan.limits .*\(6, 1, 4\)"),
        ("device", {"key": torch.ones(6, dtype=torch.int64, device="meta")}, "plan.key is on meta"),
    ]


@pytest.mark.parametrize(("_what", "wrong", "words"), ill_formed())
def test_what_is_ill_formed_is_refused(_what: str, wrong: dict[str, Tensor], words: str) -> None:
    plan = draw_plan([0] * 6, [0] * 6, 8, 1, bent=False)
    plan = plan._replace(**{name: wrong[name] for name in wrong if name in plan._fields})
    pool, crop = wrong.get("pool", torch.zeros(9999)), wrong.get("crop", 8)
    with pytest.raises(ValueError, match=words):
        cut_crops(
            pool, plan, crop, labels=wrong.get("labels"), bent=False, lit=False, blurred=False
        )
