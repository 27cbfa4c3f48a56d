"""What an image is: planes of (channel, row, column), read piece by piece."""
