"""Loading Triton beside an OpenGL driver that contains LLVM too.

Mesa's software and AMD drivers load LLVM into the process when the viewer opens.
Triton's library contains another LLVM, but would use the driver's symbols, and the process
would crash. The flag makes it use its own symbols first.
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
