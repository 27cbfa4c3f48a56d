"""The picture of a demo is written like every other result."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from napari_affmae.cli.report import Example, draw_report
from napari_affmae.config import LabelClass


def test_a_link_in_the_place_of_the_report_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    report = tmp_path / "report.png"
    report.symlink_to(tmp_path / "mine.txt")
    plane = np.zeros((16, 16), np.uint8)
    lines = [{"event": "step", "step": 1, "loss": 1.0}, {"event": "step", "step": 2, "loss": 0.5}]
    classes = [LabelClass(value=n, name=str(n), color="#336699") for n in range(2)]
    draw_report(
        report,
        title="title",
        examples=[Example(plane, plane, plane)],
        classes=classes,
        reconstruction=dict.fromkeys(("input", "error"), plane[None].astype(np.float32)),
        pretraining=lines,
        finetuning=lines,
    )
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not report.is_symlink()
    assert iio.imread(report).ndim == 3
