"""From a path to an image: which reader opens it, and what is known before it is read."""
