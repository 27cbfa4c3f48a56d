"""Telling errors: to the user in words, to the log with their details."""

import logging
from pathlib import Path

from napari_affmae.errors import AffmaeError, UnwritableError
from napari_affmae.widgets.parts.preferences import load_preferences

logger = logging.getLogger(__name__)


def in_words(error: Exception) -> str:
    """Word an error for the user: ours say everything; the details of others are logged."""
    if isinstance(error, UnwritableError) and _is_of_runs(error.path):
        return f"{error}: Runs and models > Change ..."
    if isinstance(error, AffmaeError | ValueError):
        return str(error)
    logger.error("an error that was not foreseen", exc_info=error)
    return (
        f"An error that was not foreseen: {type(error).__name__}: {error}. "
        "The program's log has the details; what was saved is intact."
    )


def _is_of_runs(path: Path | None) -> bool:
    return path is not None and load_preferences().runs in path.parents
