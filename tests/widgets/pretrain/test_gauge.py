"""What the features are worth, as curves."""

from typing import Any

from napari_affmae.engine.events import Validated
from napari_affmae.widgets.parts.curves import load_plots
from napari_affmae.widgets.pretrain.gauge import Gauge


def test_a_plot_for_each_measure_that_there_is(viewer: Any, qtbot: Any) -> None:
    load_plots()
    gauge = Gauge()
    qtbot.addWidget(gauge)
    gauge.add(Validated(10, 0.5))
    assert gauge.isHidden()
    gauge.add(Validated(20, 0.4, ranks=(30.0, 12.0)))
    gauge.add(Validated(40, 0.3, ranks=(33.0, 15.0)))
    gauge.show()
    assert gauge.ranks.isVisible()
    assert not gauge.probe.isVisible()
    assert gauge.ranks.points("2") == ([20, 40], [12.0, 15.0])
    gauge.ranks.redraw()
    assert "&nbsp;1" in gauge.ranks.legend.text()
    gauge.add(Validated(60, 0.3, ranks=(33.0, 15.0), probe=0.61))
    assert gauge.probe.isVisible()
    assert gauge.probe.points("probe") == ([60], [0.61])
    gauge.clear()
    assert gauge.ranks.points("1") == gauge.probe.points("probe") == ([], [])
