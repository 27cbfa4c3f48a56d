"""Telling errors: to the user in words, to the log with their details."""

import logging

from napari_affmae.errors import AffmaeError

logger = logging.getLogger(__name__)


def in_words(error: Exception) -> str:
    """Word an error for the user: ours say everything, others also what kind they are."""
    if isinstance(error, AffmaeError | ValueError):
        return str(error)
    return (
        f"An error that was not foreseen: {type(error).__name__}: {error}. "
        "The program's log has the details; what was saved is intact."
    )


def log_unforeseen(title: str, error: Exception) -> None:
    """Log an error that is not ours, with its traceback."""
    if not isinstance(error, AffmaeError | ValueError | TypeError):
        logger.error("%s failed", title, exc_info=error)
