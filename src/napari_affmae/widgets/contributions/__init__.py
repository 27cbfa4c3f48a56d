"""What the manifest names beside the docks: reader, samples, layer menus."""
