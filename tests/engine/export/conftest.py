from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.config import FinetuneConfig
from napari_affmae.data import open_source
from napari_affmae.engine import export_bioimageio, finetune
from napari_affmae.engine.events import Exported
from napari_affmae.engine.results.ome_tiff import PlaneFile
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_model, model_bytes


@pytest.fixture(scope="session")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    volume: tuple[np.ndarray, np.ndarray],
    finetune_config: FinetuneConfig,
) -> Path:
    """Folder of a run on files, which a package can take its example from."""
    root = tmp_path_factory.mktemp("export")
    for name, stack in zip(("image.tif", "labels.tif"), volume, strict=True):
        with PlaneFile(root / name, len(stack), (5.0, 4.0)) as file:
            for plane in stack:
                file.write(plane)
    pair = (open_source(root / "image.tif"), open_source(root / "labels.tif"))
    list(finetune([pair], finetune_config, root / "run"))
    return root / "run"


@pytest.fixture(scope="session")
def package(run: Path) -> Path:
    """A package of that run, without graphs, which take most of the time."""
    target = run.parent / "package.zip"
    events = export_bioimageio(run, target, authors=["Ada"], license_id="CC0-1.0", graphs=False)
    *_, last = events
    assert last == Exported(target)
    return target


@pytest.fixture
def changed(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a model file like the run's, with other metadata."""

    def change(**changes: Any) -> Path:
        module, metadata = load_model(run)
        other = ModelMetadata.model_validate(metadata.model_dump() | changes)
        path = tmp_path / "changed.safetensors"
        path.write_bytes(model_bytes(module, other))
        return path

    return change
