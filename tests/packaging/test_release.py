"""What is checked before a tag becomes a release."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "https://example.org/someone/napari-affmae"


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A tree that can be released as 7.8.9."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "check_release.py", tmp_path / ".ci")
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    for key, value in (("version", "7.8.9"), ("repository", ADDRESS)):
        settings, found = re.subn(rf'(?m)^{key} = ".*"$', f'{key} = "{value}"', settings)
        assert found == 1
    (tmp_path / "pyproject.toml").write_text(settings, "utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [7.8.9] - 2031-02-03\n", "utf-8")
    return tmp_path


def check(root: Path, tag: str = "v7.8.9", address: str = ADDRESS) -> tuple[int, str]:
    command = [sys.executable, root / ".ci" / "check_release.py", tag, address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


def test_a_tree_that_is_ready(ready: Path) -> None:
    assert check(ready) == (0, "")


def test_another_tag_or_repository(ready: Path) -> None:
    code, said = check(ready, "v7.8.10", "https://example.org/other/fork")
    assert code == 1
    assert "tag v7.8.9" in said
    assert "made in https://example.org/other/fork" in said


@pytest.mark.parametrize("heading", ["## [7.8.9] - unreleased", "## [7x8y9] - 2031-02-03"])
def test_a_version_without_a_date_in_the_changes(ready: Path, heading: str) -> None:
    (ready / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", "utf-8")
    code, said = check(ready)
    assert code == 1
    assert "no line `## [7.8.9] - " in said
