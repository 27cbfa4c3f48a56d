"""Triton beside an OpenGL driver that brings LLVM too.

Mesa's software and AMD drivers load LLVM into the process when the viewer opens.
Triton's library has an LLVM of its own inside, finds the driver's first, and the
process crashes. Loaded so that it sees its own symbols first, both live in peace.
"""

import os
import sys
import threading
from importlib.util import find_spec

_lock = threading.Lock()


def load_triton_apart() -> None:
    """Load Triton's library, where it is installed, before something else does."""
    if sys.platform != "linux" or find_spec("triton") is None:
        return
    with _lock:
        if "triton" in sys.modules:
            return
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
        try:
            import triton._C.libtriton  # noqa: F401
        finally:
            sys.setdlopenflags(flags)
