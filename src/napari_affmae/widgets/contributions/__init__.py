"""The contributions to napari besides the docks: reader, samples, layer menus."""
