"""Results of a segmentation: label images, probabilities and tables."""
