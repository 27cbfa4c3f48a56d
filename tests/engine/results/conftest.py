import numpy as np
import pytest

from napari_affmae.config import LabelClass
from napari_affmae.data import SourceStatistics, open_source
from napari_affmae.engine.results.origin import Origin
from napari_affmae.engine.results.plan import BlockSizes, Plan

CLASSES = (
    LabelClass(value=0, name="inside", color="#000000"),
    LabelClass(value=2, name="membrane", color="#ff8000"),
)


@pytest.fixture
def make_plan():
    """Make plans of empty images of a shape, without a model."""

    def make(shape, axes, *, sizes=None, pixel_size=None, plane_distance=None, **options):
        source = open_source(np.broadcast_to(np.uint8(0), shape), axes=axes, name="empty")
        source.pixel_size, source.plane_distance = pixel_size, plane_distance
        origin = Origin(image="i", model="m", tile=64, overlap=0.25, precision="fp32")
        statistics = SourceStatistics(low=(0,), high=(1,), fill=(0,), mean=(0,), std=(1,))
        sizes = sizes or BlockSizes()
        return Plan.of(source, origin, statistics, CLASSES, sizes=sizes, **options)

    return make


@pytest.fixture
def fill():
    """Compute all blocks of a volume as a run does."""

    def write(volume, labels, probabilities):
        for number in range(volume.plan.first(volume.plan.levels)):
            level, box = volume.box(number)
            if level:
                volume.write_chain([number])
            else:
                axis = volume.plan.channel_axis
                part = probabilities[volume.plan.with_classes(box, slice(None))]
                assert part.shape[axis] == len(volume.plan.classes)
                volume.write(level, box, labels[box], part)
            volume.mark(number)

    return write
