"""Decoded image near the network: blocks that are read once and used for many crops."""
