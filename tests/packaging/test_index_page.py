"""What package indexes show: pictures and links that work away from the repository."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from readme_renderer.markdown import render

ROOT = Path(__file__).parents[2]
ADDRESS = "https://example.org/someone/napari-affmae"
SETTING = re.compile(r'^repository = ".*"$', re.MULTILINE)


class Targets(HTMLParser):
    """Everything that a page links to or shows, by attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(name, value) for name, value in attrs if name in {"href", "src"} and value]


def targets(markdown: str) -> list[tuple[str, str]]:
    """Targets in a text as an index renders it, but for those on the page itself."""
    page = render(markdown)
    assert page is not None
    parser = Targets()
    parser.feed(page)
    return [(name, value) for name, value in parser.found if not value.startswith("#")]


def metadata(folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Let the build backend tell the metadata of the project with another address."""
    for name in ("README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, folder)
    text, found = SETTING.subn(f'repository = "{address}"', (ROOT / "pyproject.toml").read_text())
    assert found == 1
    (folder / "pyproject.toml").write_text(text)
    command = [sys.executable, "-m", "hatchling", "metadata"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_everything_on_the_page_has_an_address_and_a_file(tmp_path: Path) -> None:
    told: dict[str, Any] = json.loads(metadata(tmp_path, ADDRESS).stdout)
    start = re.compile(rf"{ADDRESS}/(raw|blob)/v{re.escape(told['version'])}/")
    shown = targets(told["readme"]["text"])
    for name, target in [*shown, *((label, url) for label, url in told["urls"].items())]:
        assert target.startswith("https://"), target
        if kind := start.match(target):
            assert (kind[1] == "raw") == (name == "src")
            assert (ROOT / target[kind.end() :]).is_file(), target
    repository = [target for _, target in shown if target.startswith(ADDRESS)]
    assert len(repository) == sum("://" not in target for _, target in targets(readme()))
    assert told["urls"]["Source"] == ADDRESS


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_without_an_address_the_page_is_the_readme(tmp_path: Path) -> None:
    told = json.loads(metadata(tmp_path, "").stdout)
    assert told["readme"]["text"] == readme()
    assert not told.get("urls")


@pytest.mark.parametrize("address", ["example.org/a/b", f"{ADDRESS}/", f"{ADDRESS}.git"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    done = metadata(tmp_path, address)
    assert done.returncode != 0
    assert "must be empty or an address like" in done.stderr
