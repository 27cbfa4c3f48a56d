"""TIFF with its dialects, and the sizes that microscopes state in it."""
