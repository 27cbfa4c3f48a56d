"""Run the command line as ``python -m napari_affmae``."""

from napari_affmae.cli import main

main()
