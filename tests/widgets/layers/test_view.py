from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_affmae.widgets.layers.view import camera_of, view_of


@pytest.mark.parametrize("multiscale", [False, True])
def test_the_rectangle_in_view(
    make_napari_viewer: Callable[..., Any], qtbot: Any, multiscale: bool
) -> None:
    viewer = make_napari_viewer(show=True)
    with qtbot.waitExposed(viewer.window._qt_window):
        pass
    data = np.random.default_rng(0).normal(size=(600, 800)).astype(np.float32)
    levels = [data, data[::2, ::2]] if multiscale else data
    layer = viewer.add_image(levels, multiscale=multiscale, scale=(4, 4))
    camera = camera_of(viewer)

    def look(row: float, column: float, zoom: float) -> Any:
        camera.center, camera.zoom = (0, 4 * row, 4 * column), zoom
        viewer.window._qt_viewer.canvas.on_draw(None)  # what is drawn is what `layer` knows
        return view_of(viewer, layer)

    view = look(300, 400, 1)
    assert 200 < view.rows.start < 300 < view.rows.stop < 400
    assert 250 < view.columns.start < 400 < view.columns.stop < 550
    if not multiscale:
        corners = np.array([(part.start, part.stop - 1) for part in (view.rows, view.columns)])
        np.testing.assert_allclose(corners.T, layer.corner_pixels, atol=1)
    assert look(300, 400, 0.01).rows == slice(0, 600)
    view = look(100, 100, 1000)  # a part of one pixel
    assert view.rows.stop - view.rows.start == 64
    assert view.rows.start <= 100 < view.rows.stop
    for row, column in ((-2000, 400), (300, 5000), (4000, -3000)):
        with pytest.raises(ValueError, match="nothing of the image is in view"):
            look(row, column, 1)
