"""The pretraining dock."""
