"""OME-Zarr and plain zarr: in folders, on the web and packed into one file."""
