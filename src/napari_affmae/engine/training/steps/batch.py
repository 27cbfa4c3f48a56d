"""How many crops a step has and how many of them are computed at once."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from napari_affmae.engine.compute.device import DevicePlan

# Pixels of one step: on a GPU those of 64 (pretraining) or 16 (fine-tuning) crops of 256 pixels
# a side, whose scores are in benchmarks/README.md; on a CPU as much as keeps a step of the nano
# preset within seconds.
_PIXELS = {
    ("gpu", "pretrain"): 64 * 256**2,
    ("gpu", "finetune"): 16 * 256**2,
    ("cpu", "pretrain"): 8 * 256**2,
    ("cpu", "finetune"): 4 * 256**2,
}
_LEAST = {"gpu": 4, "cpu": 1}
_LARGEST = 128
# Bytes that a pixel of a crop takes during forward and backward in fp32, rounded up.
_BYTES_PER_PIXEL = {
    ("nano", "pretrain"): 3_000,
    ("nano", "finetune"): 5_000,
    ("small", "pretrain"): 5_000,
    ("small", "finetune"): 10_000,
    ("base", "pretrain"): 8_000,
    ("base", "finetune"): 16_000,
}
_MEMORY_SHARE = 0.6
# Pixels of one pass on a CPU: more crops at once are no faster, and take memory.
_CPU_PASS_PIXELS = 4 * 256**2


@dataclass(frozen=True)
class BatchPlan:
    """Crops of a step.

    Attributes
    ----------
    batch : int
        Crops of one optimiser step, on all devices.
    micro_batch : int
        Crops of one forward and backward pass; the gradients are added up.
    devices : int
        Devices over which the batch is split.
    """

    batch: int
    micro_batch: int
    devices: int = 1

    @property
    def share(self) -> int:
        """Crops of one optimiser step on one device."""
        return self.batch // self.devices

    @property
    def accumulate(self) -> int:
        """Passes of one step on one device."""
        return math.ceil(self.share / self.micro_batch)

    def halved(self) -> "BatchPlan":
        """Return the plan with half of the micro-batch, rounded up."""
        return replace(self, micro_batch=math.ceil(self.micro_batch / 2))

    def split(self, devices: int) -> "BatchPlan":
        """Return the plan for a batch that several devices share.

        Raises
        ------
        ValueError
            If they cannot have equal shares.
        """
        if self.batch % devices:
            less = self.batch - self.batch % devices
            sizes = " or ".join(str(size) for size in (less, less + devices) if size)
            raise ValueError(
                f"a batch of {self.batch} crops cannot be split evenly over {devices} devices; "
                f"choose a batch of {sizes}, or another number of devices"
            )
        micro_batch = min(self.micro_batch, self.batch // devices)
        return BatchPlan(self.batch, micro_batch, devices)


def plan_batch(
    batch: int | Literal["auto"],
    crop: int,
    preset: str,
    task: Literal["pretrain", "finetune"],
    plan: DevicePlan,
) -> BatchPlan:
    """Settle on the batch and the micro-batch.

    ``auto`` gives every step about the same number of pixels, whatever the
    crop: 64 crops of 256 pixels in pretraining and 16 in fine-tuning on a GPU,
    at least 4; 8 and 4 crops of 256 pixels elsewhere; a power of two up to 128. It does
    not depend on the memory, so that a run means the same on every GPU. The
    micro-batch is what fits 60 % of the GPU's memory by a rough estimate, on a
    CPU 4 crops of 256 pixels or their like; where it does not fit after all,
    it is halved while running.

    Parameters
    ----------
    batch : int or "auto"
        Crops of a step.
    crop : int
        Side of a crop, pixels.
    preset : str
        Size of the network.
    task : {"pretrain", "finetune"}
        What the network learns.
    plan : DevicePlan
        Where.

    Returns
    -------
    BatchPlan
        Both numbers.
    """
    area = crop**2
    size = batch
    if size == "auto":
        kind = "gpu" if plan.device.type == "cuda" else "cpu"
        fitting = min(max(_LEAST[kind], _PIXELS[kind, task] // area), _LARGEST)
        size = 2 ** int(math.log2(fitting))
    if plan.memory is None:
        at_once = _CPU_PASS_PIXELS // area
    else:
        per_pixel = _BYTES_PER_PIXEL[preset, task] / (1 if plan.precision == "fp32" else 2)
        at_once = int(_MEMORY_SHARE * plan.memory / (area * per_pixel))
    return BatchPlan(size, min(size, max(1, at_once)))
