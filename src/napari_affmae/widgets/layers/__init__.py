"""All that knows napari's layers: the one place to mend when napari changes."""
