"""Formats for which one module is enough."""
