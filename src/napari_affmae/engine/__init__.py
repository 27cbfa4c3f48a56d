"""Runs as generators of events: pretraining, fine-tuning, segmentation.

The public names are in the stub beside this file. Each is imported when it is first
used, because what they import (torch) takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
