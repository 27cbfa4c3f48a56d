from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from napari_affmae.cli import main
from napari_affmae.data import synthetic_em
from napari_affmae.engine.results.ome_tiff import PlaneFile


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run the command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Result:
        monkeypatch.setattr("sys.argv", ["napari-affmae", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stacks in ``images``, one of them in a subfolder, and theirs in ``labels``."""
    root = tmp_path_factory.mktemp("data")
    for name, planes, seed in (("a.tif", 3, 0), ("deep/b.tif", 2, 1)):
        volume, labels = synthetic_em((planes, 80, 96), seed)
        for folder, stack in (("images", volume), ("labels", np.minimum(labels, 2))):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with PlaneFile(path, planes, (8.0, 8.0)) as file:
                for plane in stack:
                    file.write(plane)
    return root
