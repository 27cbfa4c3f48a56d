"""Errors in words for the user, and with details in the log."""

import logging
from pathlib import Path

from napari_affmae.errors import AffmaeError, UnwritableError
from napari_affmae.widgets.parts.preferences import load_preferences

logger = logging.getLogger(__name__)


def in_words(error: Exception) -> str:
    """Word an error for the user; the details of an unexpected one are logged."""
    if isinstance(error, UnwritableError) and _is_of_runs(error.path):
        return f"{error}: Runs and models > Change ..."
    if isinstance(error, AffmaeError | ValueError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "The memory of this computer is not enough. Close other programs and layers, or take "
            "smaller images, or a smaller crop, tile or batch. What was saved is intact."
        )
    logger.error("unexpected error", exc_info=error)
    return (
        f"Unexpected error: {type(error).__name__}: {error}. "
        "The program's log has the details. What was saved is intact."
    )


def _is_of_runs(path: Path | None) -> bool:
    return path is not None and load_preferences().runs in path.parents
