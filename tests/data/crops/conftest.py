from typing import Any

import pytest
import torch

from affmae_kernels import CropPlan
from napari_affmae.data import LabelledCrops, PretrainCrops

Crops = PretrainCrops | LabelledCrops


class Drawing:
    """Makes crops on the CPU and cuts them, with a pool as large as it takes."""

    @staticmethod
    def unlabelled(sources: Any, crop: int = 64, **options: Any) -> PretrainCrops:
        where = {"device": torch.device("cpu"), "capacity": 2**30}
        return PretrainCrops(sources, crop, **(where | options))

    @staticmethod
    def labelled(pairs: Any, classes: Any, ignore: int | None, **options: Any) -> LabelledCrops:
        where = {"device": torch.device("cpu"), "capacity": 2**30}
        crop = options.pop("crop", 64)
        return LabelledCrops(pairs, crop, classes, ignore, **(where | options))

    @staticmethod
    def planned(crops: Crops, count: int, first: int = 0) -> CropPlan:
        """Draw crops from all blocks, or those of a small pool that are due."""
        for _ in crops.advance(first):
            pass
        return crops.plan(first, count)

    @classmethod
    def cut(cls, crops: Crops, count: int, first: int = 0) -> tuple[Any, ...]:
        """Draw and cut crops: arrays of images, and of classes where there are labels."""
        parts = crops.cut(cls.planned(crops, count, first))
        return tuple(part.numpy() for part in parts)


@pytest.fixture
def drawing(request: pytest.FixtureRequest) -> Any:
    """What makes crops; their threads end with the test."""
    made: list[Crops] = []

    class Closing(Drawing):
        @staticmethod
        def unlabelled(*args: Any, **options: Any) -> PretrainCrops:
            made.append(crops := Drawing.unlabelled(*args, **options))
            return crops

        @staticmethod
        def labelled(*args: Any, **options: Any) -> LabelledCrops:
            made.append(crops := Drawing.labelled(*args, **options))
            return crops

    yield Closing
    for crops in made:
        crops.pool.close()
