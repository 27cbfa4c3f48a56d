"""State of a run: the content of a checkpoint beside weights and optimiser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_affmae.engine.store.checkpoints import STATE_FILE, checkpoint_path, damaged, read_state
from napari_affmae.engine.store.records import reason


class Best(BaseModel):
    """The checkpoint with the best score, and that score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    score: float


class RunState(BaseModel):
    """State of a run, beside weights and optimiser.

    No field has a default, so that a damaged file is not taken for a run at its start.

    Attributes
    ----------
    step : int
        Optimiser steps made.
    elapsed : float
        Seconds spent.
    scaler : Mapping[str, int or float]
        State of the loss scaler.
    best : Best or None
        The best checkpoint; None for runs without a score.
    validated, previewed : int or None
        Steps of the last validation and preview.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0)
    elapsed: float = Field(ge=0)
    scaler: Mapping[str, int | float]
    best: Best | None
    validated: int | None
    previewed: int | None

    @classmethod
    def start(cls) -> Self:
        """Return the state of a run before its first step."""
        return cls(step=0, elapsed=0.0, scaler={}, best=None, validated=None, previewed=None)

    def moved(self, **changes: Any) -> Self:
        """Return the state with some fields changed."""
        return self.model_copy(update=changes)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from a checkpoint folder.

        A best checkpoint that was deleted is read as None: it was superseded by a later
        one, and kept no more, before that one was deleted.

        Raises
        ------
        CheckpointError
            If it is damaged, or another version of the program wrote it.
        """
        try:
            state = cls.model_validate(read_state(path))
        except ValidationError as error:
            raise damaged(path / STATE_FILE, reason(error)) from error
        if state.best is None or checkpoint_path(path.parent, state.best.step).is_dir():
            return state
        return state.moved(best=None)
