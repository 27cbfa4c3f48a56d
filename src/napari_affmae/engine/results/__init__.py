"""What a segmentation leaves: label images, probabilities, tables."""
