"""Single objects of a segmentation: found in a plane or across blocks, cut, joined, measured."""
