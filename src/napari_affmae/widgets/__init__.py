"""The docks in napari: the only room that knows napari and Qt.

Nothing here imports torch on the GUI's thread: what computes is imported by the
worker that runs it.
"""
