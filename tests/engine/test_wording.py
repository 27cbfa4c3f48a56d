"""What events mean, in the user's words."""

import pytest

from napari_affmae.engine import wording
from napari_affmae.engine.events import TileDone


@pytest.mark.parametrize(
    ("event", "planes", "told"),
    [
        (TileDone(2, 4, 30, 240.0), 70, "plane 31 of 70, 4 min left"),
        (TileDone(2, 4, 0, None), 70, "plane 1 of 70"),
        (TileDone(2, 4, 0, 5.0), 1, "tile 2 of 4 of plane 1  5 s left"),
    ],
)
def test_a_stack_is_told_by_planes(event, planes, told):
    assert wording.plane(event, planes) == told
