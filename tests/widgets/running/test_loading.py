"""Loading large libraries beside a window."""

import subprocess
import sys
import textwrap

from napari_affmae.widgets.running.loading import load_for_labels, loading


def run(script: str) -> str:
    """Run a script in a process that has loaded nothing, and return what it prints."""
    words = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_torch_is_mapped_before_it_is_imported() -> None:
    mapped = run(
        """
        import builtins, sys
        from pathlib import Path
        from napari_affmae.widgets.running.loading import load_torch

        original, seen = builtins.__import__, []

        def importing(name, *others):
            if name == "torch" and not seen:
                maps = Path("/proc/self/maps")
                seen.append("libtorch_python" in maps.read_text() if maps.exists() else True)
            return original(name, *others)

        assert "torch" not in sys.modules
        builtins.__import__ = importing
        load_torch()
        print(seen, "torch" in sys.modules)
        """
    )
    assert mapped.strip() == "[True] True"


def test_threads_take_turns_as_before_when_all_is_loaded() -> None:
    before = sys.getswitchinterval()
    with loading():
        assert sys.getswitchinterval() < before
        load_for_labels()  # a loader may call another
    assert sys.getswitchinterval() == before
    assert "pandas" in sys.modules
