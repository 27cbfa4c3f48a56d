"""Formats of image files, in rooms: opening, a room or a module a format, and what these share."""
