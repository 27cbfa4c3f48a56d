"""Loading large libraries in a worker's thread, so that the window's thread hardly waits.

Python lets one thread at a time run, and a thread that waits for its turn gets it after 5 ms. While
another one imports modules for seconds, the window's thread asks for a turn at nearly each event
of Qt; and it gets none at all while Python maps a library of 400 MB into memory, or while the
garbage collector looks at all objects (see `collector`).
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from napari_affmae.widgets.running.collector import without_collecting
from napari_affmae.widgets.running.triton_apart import load_triton_apart

_SECONDS_OF_A_TURN = 0.0005
_lock = threading.RLock()


def load_for_labels() -> None:
    """Load what napari itself loads, in the window's thread, for its first layer of labels."""
    with loading():
        import pandas as pd  # noqa: F401 - for napari
        import skimage.color.colorconv  # noqa: F401 - likewise


def load_torch() -> None:
    """Load torch, in a way that gets on with the libraries of the window."""
    if "torch" in sys.modules:  # by another plugin, perhaps
        load_triton_apart()
        return
    with loading():
        load_triton_apart()
        _map_torch()
        import torch  # noqa: F401 - for the next imports


@contextmanager
def loading() -> Iterator[None]:
    """Import large modules, one thread at a time, and let threads take turns ten times as often."""
    with _lock, without_collecting():
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SECONDS_OF_A_TURN)
        try:
            yield
        finally:
            sys.setswitchinterval(before)


def _map_torch() -> None:
    """Map torch's library into memory while other threads run, which `import` would not let.

    Whatever goes wrong here goes wrong in the import too, which then says so.
    """
    spec = find_spec("torch")
    if sys.platform == "linux" and spec is not None and spec.origin is not None:
        library = Path(spec.origin).parent / "lib" / "libtorch_python.so"
        # Functions of libraries are called without the interpreter's lock; opening them is not.
        ctypes.CDLL(None).dlopen(os.fsencode(library), os.RTLD_NOW)
