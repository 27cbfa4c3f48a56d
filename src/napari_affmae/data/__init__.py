"""Arrays in, tensors out: sources, normalisation, crops, labels and checks.

The public names are in the stub beside this file. Each is imported when it is first
used: file formats, torch and scikit-image take seconds that a program's start should not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
