from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_affmae.data import synthetic_em


def save(path: Path, stack: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, stack, photometric="minisblack")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three classes, 3 + 1 planes and one to validate on, and unlabelled images."""
    root = tmp_path_factory.mktemp("data")
    save(root / "pretrain" / "u.tif", synthetic_em((2, 80, 96), seed=9)[0])
    files = (("train", "a.tif", 3), ("train", "b.tif", 1), ("val", "c.tif", 1))
    for seed, (part, name, planes) in enumerate(files):
        volume, labels = synthetic_em((planes, 80, 96), seed)
        save(root / "cells" / part / "images" / name, volume)
        save(root / "cells" / part / "labels" / name, np.minimum(labels, 2))
    return root
