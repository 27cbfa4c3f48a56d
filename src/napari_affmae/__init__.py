"""Pretrain, fine-tune and run segmentation networks on electron microscopy.

Importing this package loads neither torch, triton nor Qt.
"""

from importlib.metadata import version

__version__ = version("napari-affmae")
