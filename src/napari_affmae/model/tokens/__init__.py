"""Tokens before they have features: patches, which are hidden, where they are, in what order."""
