"""Time how fast one core of a CPU cuts crops of uint8 image, in crops a second."""

import argparse
import time

import torch

from affmae_kernels import CropPlan, cut_crops

BLOCK = 1280  # side of a block of the pool, pixels
BLOCKS = 64
# How often crops are changed, as pretraining does it.
AFFINE, ELASTIC, INTENSITY, NOISE = 0.3, 0.2, 0.5, 0.2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    pool = draw_pool(device)
    classes = pool % 4
    for crop in arguments.crops:
        for changed in (False, True):
            plan = draw_plan(arguments.batch, crop, changed, device)
            for labels in (None, classes):
                speed = crops_a_second(pool, plan, crop, labels, changed)
                words = ("changed" if changed else "straight") + ", labelled" * (labels is not None)
                print(f"{crop:>5} px  {words:<20} {speed:>7.0f} crops/s")


def crops_a_second(
    pool: torch.Tensor, plan: CropPlan, crop: int, labels: torch.Tensor | None, changed: bool
) -> float:
    """Time one batch, the median of seven."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        cut_crops(pool, plan, crop, labels=labels, bent=changed, lit=changed, blurred=changed)
        times.append(time.perf_counter() - begin)
    return len(plan.offset) / sorted(times)[3]


def draw_pool(device: torch.device) -> torch.Tensor:
    """Draw a pool of square blocks, uint8."""
    return torch.randint(256, (BLOCKS * BLOCK**2,), dtype=torch.uint8, device=device)


def draw_plan(batch: int, crop: int, changed: bool, device: torch.device) -> CropPlan:
    """Draw crops that are turned, and changed as often as in pretraining if `changed`."""
    g = torch.Generator().manual_seed(0)

    def happens(probability: float) -> torch.Tensor:
        return (torch.rand(batch, generator=g) < probability * changed).float()

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, generator=g)

    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    turns = torch.stack([torch.linalg.matrix_power(quarter, n) for n in range(4)])
    matrix = turns[torch.randint(4, (batch,), generator=g)]
    angle, scale = between(-0.785, 0.785), 1.25 ** between(-1, 1)
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    affine = happens(AFFINE)[:, None, None] > 0
    side = -(-crop // 32) + 3
    knots = 5 * torch.randn(batch, 2, side, side, generator=g)
    noisy, blurry = happens(NOISE), happens(0.5)
    light = (
        1 + happens(INTENSITY) * between(-0.3, 0.5),
        1 + happens(INTENSITY) * between(-0.25, 0.33),
        happens(INTENSITY) * between(-0.3, 0.3),
        noisy * blurry * between(0.3, 1.2),
        noisy * (1 - blurry) * between(0, 0.25),
    )
    corner = torch.randint(BLOCK - crop, (batch, 2), generator=g)
    plan = CropPlan(
        offset=torch.randint(BLOCKS, (batch,), generator=g) * BLOCK**2,
        label_offset=torch.randint(BLOCKS, (batch,), generator=g) * BLOCK**2,
        size=torch.full((batch, 2), BLOCK, dtype=torch.int32),
        matrix=torch.where(affine, turned * scale[:, None, None] @ matrix, matrix),
        shift=corner + (crop - 1) / 2,
        knots=knots * happens(ELASTIC).view(-1, 1, 1, 1),
        limits=torch.tensor([5.0, 250.0, 0.02, -2.0]).expand(batch, 1, 4).contiguous(),
        light=torch.stack(light, -1),
        key=torch.randint(2**62, (batch,), generator=g),
    )
    return CropPlan(*(tensor.to(device) for tensor in plan))


if __name__ == "__main__":
    main()
