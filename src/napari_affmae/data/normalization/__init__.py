"""Pixel values to network input, and the record that lets a model do it again."""
