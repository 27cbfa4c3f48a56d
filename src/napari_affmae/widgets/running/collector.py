"""Loading large libraries without long pauses of Python's garbage collector.

While torch is being loaded, the number of Python's objects grows by half, and each time that it
has grown by a quarter the collector looks at all of them. That takes a third of a second and
holds every thread, the window's too.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Load libraries; what is made meanwhile counts as old, without having been looked at.

    Nothing is lost by that: the next full collection looks at all objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Moves all objects to the oldest generation. Without it, the next collection of the
        # young ones would have to look at everything that was loaded.
        gc.freeze()
        gc.unfreeze()
        if was_enabled:
            gc.enable()
