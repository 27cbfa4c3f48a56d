"""A light head, trained on strokes within seconds, on frozen features."""
