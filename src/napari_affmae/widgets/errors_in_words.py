"""Telling errors: to the user in words, to the log with their details."""

import logging

from napari_affmae.errors import AffmaeError

logger = logging.getLogger(__name__)


def in_words(error: Exception) -> str:
    """Word an error for the user: ours say everything; the details of others are logged."""
    if isinstance(error, AffmaeError | ValueError):
        return str(error)
    logger.error("an error that was not foreseen", exc_info=error)
    return (
        f"An error that was not foreseen: {type(error).__name__}: {error}. "
        "The program's log has the details; what was saved is intact."
    )
