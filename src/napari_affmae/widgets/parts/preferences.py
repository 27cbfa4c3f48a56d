"""Choices of the user that the docks keep when napari is closed."""

import json
import logging
from pathlib import Path
from typing import Any

from platformdirs import user_config_path, user_data_path
from pydantic import Field

from napari_affmae.config import Settings
from napari_affmae.engine.store.kept_features import FEATURES, KeptFeatures
from napari_affmae.files import replace_bytes

logger = logging.getLogger(__name__)

_PROGRAM = "napari-affmae"


class Preferences(Settings):
    """Choices of the user."""

    runs: Path = Field(
        default_factory=lambda: user_data_path(_PROGRAM) / "runs",
        title="Runs",
        description="Folder of runs and models.",
    )
    features_gb: int = Field(
        2,
        ge=0,
        le=100_000,
        title="Kept for painting (GB)",
        description="What a network says of images that you paint on is kept beside the runs, so "
        "that an image which is opened again is predicted sooner. What was not used for longest "
        "goes first; 0 keeps nothing. 1 GB is enough for about ten views of 1024 x 1024 pixels "
        "with the smallest network.",
    )
    forms: dict[str, dict[str, Any]] = Field(
        default_factory=dict, title="Forms", description="Settings last used in each dock."
    )


def preferences_file() -> Path:
    """Return the file that keeps the preferences."""
    return user_config_path(_PROGRAM) / "preferences.json"


def load_preferences() -> Preferences:
    """Read the preferences; without a readable file they are the defaults."""
    path = preferences_file()
    try:
        return Preferences.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError) as error:
        logger.warning(
            "the preferences in %s cannot be read, so the defaults are used: %s", path, error
        )
        return Preferences()


def save_preferences(preferences: Preferences) -> None:
    """Write the preferences.

    Raises
    ------
    UnwritableError
        If the file cannot be written.
    """
    path = preferences_file()
    replace_bytes(path, preferences.model_dump_json(indent=1).encode())


def remember(**changes: Any) -> Preferences:
    """Change some preferences on disk, and return all of them."""
    preferences = load_preferences().model_copy(update=changes)
    save_preferences(preferences)
    return preferences


def remember_form(name: str, values: dict[str, Any]) -> None:
    """Keep the settings of a dock."""
    forms = {**load_preferences().forms, name: values}
    remember(forms=forms)


def kept_features() -> KeptFeatures:
    """Return what is kept beside the runs of features, within the limit that the user has set."""
    return KeptFeatures(load_preferences().runs / FEATURES, _most_bytes)


def _most_bytes() -> int:
    return load_preferences().features_gb * 10**9
