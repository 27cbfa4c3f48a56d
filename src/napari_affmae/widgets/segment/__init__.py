"""The segmentation dock."""
