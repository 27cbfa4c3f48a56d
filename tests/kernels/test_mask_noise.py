"""Masks' noise against its formula, and its statistics."""

import math

import pytest
import torch

from affmae_kernels import mask_noise


def mix(place: int, seed: int) -> int:
    h = (place * 0x9E3779B9 + seed) % 2**32
    h = (h ^ h >> 16) * 0x7FEB352D % 2**32
    h = (h ^ h >> 15) * 0x846CA68B % 2**32
    return h ^ h >> 16


def number(key: int, place: int) -> float:
    """The uniform number of a key and a place."""
    seed = mix((key >> 32) % 2**32, mix(key % 2**32, 0))
    return (mix(place, seed) >> 8) / 2**24


@pytest.mark.parametrize("key", [5, -(2**45) + 3, 2**62 + 12345])
def test_perlin_equals_its_formula(key: int) -> None:
    canvas, cells = (10, 7), 4
    noise = mask_noise(torch.tensor([1, key]), canvas, "perlin", torch.tensor([2, cells]))
    for row in range(canvas[0]):
        for column in range(canvas[1]):
            y, x = (row + 0.5) / canvas[0] * cells, (column + 0.5) / canvas[1] * cells
            expected = 0.0
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    angle = 2 * math.pi * number(key, i * 2**16 + j)
                    dot = math.sin(angle) * (y - i) + math.cos(angle) * (x - j)
                    ease = [
                        6 * t**5 - 15 * t**4 + 10 * t**3 for t in (1 - abs(y - i), 1 - abs(x - j))
                    ]
                    expected += ease[0] * ease[1] * dot
            assert float(noise[1, row, column]) == pytest.approx(expected, abs=1e-5)


def test_uniform_equals_its_formula() -> None:
    keys = torch.tensor([3, -(2**40)])
    noise = mask_noise(keys, (3, 5), "uniform")
    expected = [[number(key, patch) for patch in range(15)] for key in keys.tolist()]
    assert torch.equal(noise.flatten(1), torch.tensor(expected))


def test_cells_are_at_least_one_and_at_most_the_canvas() -> None:
    keys = torch.tensor([7, 7, 7, 7])
    noise = mask_noise(keys, (12, 20), "perlin", torch.tensor([64, 12, 0, 1]))
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[2], noise[3])
    assert noise[0].abs().max() > 0.1


def test_uniform_noise_is_even_and_independent() -> None:
    noise = mask_noise(torch.arange(50), (32, 32), "uniform")
    counts = noise.histc(20, 0, 1) / noise.numel() * 20
    assert (counts - 1).abs().max() < 0.06
    assert (noise.flatten(1).corrcoef() - torch.eye(50)).abs().max() < 5 / 32
    for axis in (1, 2):
        neighbours = (noise - 0.5) * (noise.roll(1, axis) - 0.5)
        assert neighbours.mean().abs() < 5 / 12 / 50 / 32**0.5


def test_perlin_noise_is_zero_on_average_and_smooth() -> None:
    noise = mask_noise(torch.arange(400), (32, 32), "perlin", torch.full((400,), 8))
    assert noise.mean().abs() < 0.01
    assert noise.mean(0).abs().max() < 0.1
    assert noise.abs().max() <= 1
    assert noise.diff(dim=1).abs().mean() < noise.abs().mean()
    assert (noise.flatten(1).corrcoef() - torch.eye(400)).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("keys", "canvas", "cells", "words"),
    [
        (torch.zeros(2), (8, 8), torch.tensor([8, 8]), "keys must be int64.*got torch.float32"),
        (torch.tensor(3), (8, 8), torch.tensor([8]), "keys must be int64.*shape"),
        (torch.tensor([3, 4]), (8, 8), torch.tensor([8]), r"cells must be int32 or.*\(1,\)"),
        (torch.tensor([3]), (8, 8), torch.tensor([8.0]), "cells must be int32 or int64"),
        (torch.tensor([3]), (8, 8), None, "needs cells"),
        (torch.tensor([3]), (0, 8), torch.tensor([8]), r"1 to 32768 patches a side, got \(0, 8\)"),
    ],
)
def test_what_is_ill_formed_is_refused(
    keys: torch.Tensor, canvas: tuple[int, int], cells: torch.Tensor | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        mask_noise(keys, canvas, "perlin", cells)


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="'perlin' or 'uniform', got 'blue'"):
        mask_noise(torch.tensor([3]), (8, 8), "blue")
