"""What the command line says while it looks for images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_affmae.data import looking

Cli = Callable[..., Any]


def test_a_long_search_for_images_says_how_far_it_is(
    cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "looking for images" not in cli("info", data / "images").err
    monkeypatch.setattr(looking, "_FIRST_SECONDS", 0.0)
    assert "looking for images: 1  looked at" in cli("info", data / "images").err
