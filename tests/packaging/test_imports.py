import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "triton", "skimage", "qtpy", "PyQt6", "PySide6")


def loaded_after(code: str, folder: Path) -> set[str]:
    """Top-level packages in a fresh interpreter that ran `code`."""
    report = f"{code}\nimport sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", report], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import napari_affmae",
        "import napari_affmae.config, napari_affmae.errors",
        "import napari_affmae.cli.app",
    ],
)
def test_light_modules_load_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert not loaded_after(code, tmp_path) & {*HEAVY, "napari"}


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from napari_affmae.cli import main\n"
        "sys.argv[1:] = ['pretrain', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert not loaded_after(code, tmp_path) & {*HEAVY, "napari"}


@pytest.mark.parametrize("dock", ["pretrain", "finetune", "segment", "models"])
def test_docks_load_what_is_heavy_in_the_background(dock: str, tmp_path: Path) -> None:
    loaded = loaded_after(f"import napari_affmae.widgets.{dock}.dock", tmp_path)
    assert not loaded & {"torch", "triton", "zarr", "tifffile", "h5py"}
    # napari itself loads it with its first layer of labels.
    assert "pandas" not in loaded - loaded_after("import napari.layers, napari.viewer", tmp_path)


def test_no_package_named_kernels_is_importable(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import kernels"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "No module named 'kernels'" in done.stderr
