from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest

from napari_affmae.cli import demo


def test_demo_leaves_scores_and_a_report_and_can_be_repeated(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("_PRETRAIN_MINUTES", 0.02),
        ("_FINETUNE_MINUTES", 0.02),
        ("_CROP", 64),
        ("_SIDE", 96),
        ("_UNLABELLED", 3),
        ("_LABELLED", 3),
        ("_TEST", 2),
    ):
        monkeypatch.setattr(demo, name, value)
    out = tmp_path / "demo"
    done = cli("demo", "--out", out)
    assert done.code == 0, done.err
    for name in (*demo.SYNTHETIC_CLASSES, "mean", "IoU", "Dice"):
        assert name in done.out
    picture = iio.imread(out / "report.png")
    assert min(picture.shape[:2]) > 500
    assert picture.std() > 10
    (out / "report.png").unlink()
    again = cli("demo", "--out", out)
    assert again.code == 0, again.err
    assert again.out == done.out
    assert (out / "report.png").exists()
