"""From a trained network and an image to classes, scores, objects and tokens."""
