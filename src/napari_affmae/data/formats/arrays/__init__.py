"""Arrays that read parts of a file: as it lies there, decoded, or shown in another way."""
