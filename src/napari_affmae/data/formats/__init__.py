"""One module a file format, and how files are opened, pooled and kept decoded."""
