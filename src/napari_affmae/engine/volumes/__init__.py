"""Segmenting what is larger than memory: block after block, into files, by threads or a cluster."""
