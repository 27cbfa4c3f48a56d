"""The dock of runs and models."""
