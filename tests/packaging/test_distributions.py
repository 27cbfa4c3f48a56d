import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path, *kinds: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", target, source]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of the tree, the sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder / "tree", "--wheel", "--sdist")
    (sdist,) = (folder / "tree").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    build(unpacked, folder / "again", "--wheel")
    (wheel,) = (folder / "tree").glob("*.whl")
    (second,) = (folder / "again").glob("*.whl")
    return {"wheel": wheel, "sdist": sdist, "unpacked": unpacked, "wheel from sdist": second}


@pytest.mark.parametrize("which", ["wheel", "wheel from sdist"])
def test_wheel_holds_both_packages_and_one_manifest(built: dict[str, Path], which: str) -> None:
    with zipfile.ZipFile(built[which]) as archive:
        counts = Counter(archive.namelist())
        manifest = archive.read("napari_affmae/napari.yaml").decode()
    assert set(counts.values()) == {1}
    tops = {name.split("/")[0] for name in counts}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "affmae_kernels",
        "napari_affmae",
    }
    for package in ("napari_affmae", "affmae_kernels"):
        assert f"{package}/__init__.py" in counts
        assert f"{package}/py.typed" in counts
    assert manifest == (ROOT / "napari.yaml").read_text()


def test_every_module_is_in_the_wheel(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        packed = {name for name in archive.namelist() if name.endswith((".py", ".pyi"))}
    sources = {
        file.relative_to(root).as_posix()
        for root in (ROOT / "src", ROOT / "kernels")
        for file in (*root.glob("*/**/*.py"), *root.glob("*/**/*.pyi"))
        if not file.is_relative_to(ROOT / "kernels" / "benchmarks")
    }
    assert packed == sources
    # The public names of these rooms are read from their stubs when they are imported.
    assert {f"napari_affmae/{room}/__init__.pyi" for room in ("data", "engine")} <= packed


def test_the_wheel_holds_the_starting_weights_and_their_card(built: dict[str, Path]) -> None:
    folder = ROOT / "src" / "napari_affmae" / "weights"
    with zipfile.ZipFile(built["wheel"]) as archive:
        packed = {
            Path(name).name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("napari_affmae/weights/")
        }
    assert packed == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {"README.md", "em-nano.safetensors"} <= packed.keys()


def test_sdist_builds_the_same_wheel_and_holds_what_the_tests_need(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as one, zipfile.ZipFile(built["wheel from sdist"]) as two:
        assert set(one.namelist()) == set(two.namelist())
    for name in ("LICENSE", "README.md", "napari.yaml", "tox.ini", "constraints.txt", "tests"):
        assert (built["unpacked"] / name).exists()


def test_manifest_of_the_wheel_is_valid(built: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        manifest = archive.extract("napari_affmae/napari.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", manifest],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_editable_install_has_both_roots_and_a_link_to_the_manifest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (paths,) = (name for name in archive.namelist() if name.endswith(".pth"))
        roots = archive.read(paths).decode().split()
    assert {Path(root) for root in roots} == {ROOT / "src", ROOT / "kernels"}
    assert (ROOT / "src" / "napari_affmae" / "napari.yaml").resolve() == ROOT / "napari.yaml"


def test_installed_plugin_is_found_by_its_entry_point() -> None:
    code = (
        "from npe2 import PluginManifest; "
        "print(PluginManifest.from_distribution('napari-affmae').display_name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AFFMAE segmentation"


def test_versions_agree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert version("napari-affmae") == declared
    assert cited is not None
    assert cited[1] == declared
    assert f"## [{declared}]" in (ROOT / "CHANGELOG.md").read_text()


def test_base_dependencies_hold_no_qt_and_no_napari() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    assert not names & {"napari", "pyqt5", "pyqt6", "pyside2", "pyside6"}
    assert {"all", "pyqt6", "pyside6"} <= set(project["optional-dependencies"])
