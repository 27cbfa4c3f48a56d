"""What may stand in the files that describe a run: everything is checked before it is used.

The files may have been edited, damaged, or written by another program. What is not
named here is left as it is.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)

from napari_affmae.config import LabelClass, ModelConfig
from napari_affmae.data import NormalizationRecord
from napari_affmae.engine.store.lists import ListKind, StoredList
from napari_affmae.errors import CheckpointError
from napari_affmae.files import parse_json

#: Format of a run's record.
FORMAT = 1
# Dates outside cannot be shown in every time zone.
_YEARS = range(1970, 9999)


def moment(text: str) -> datetime:
    """Read a date and time; without a time zone, it is taken as universal time.

    Raises
    ------
    ValueError
        If it is none.
    """
    read = datetime.fromisoformat(text)
    if read.year not in _YEARS:
        raise ValueError(f"the year {read.year} cannot be")
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _is_moment(text: str) -> str:
    moment(text)
    return text


# Names of files need not be valid Unicode, which pydantic's own check of texts asks for.
Text = InstanceOf[str]
Moment = Annotated[Text, AfterValidator(_is_moment)]
Count = Annotated[int, Field(ge=0)]
Planes = list[Count]


class _Facts(BaseModel):
    """Numbers are numbers, not texts that look like them."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class _Data(_Facts):
    name: Text
    fingerprint: Text | None = None


#: The data of a run: one entry for each image, in fine-tuning followed by one for its labels.
DATA = ListKind("data", _Data)
#: The planes on which a fine-tuning is measured: one entry for each image.
VALIDATION_PLANES = ListKind("validation_planes", Planes)


class _Session(_Facts):
    date: Moment
    data: StoredList | list[_Data] | None = None


class _Record(_Facts):
    """A run's ``run.json``, as `RunFolder.write_record` writes it."""

    kind: Literal["pretrain", "finetune"]
    created: Moment
    config: dict[str, Any]
    data: StoredList | list[_Data]  # in the record itself in runs of earlier versions
    images: Count | None = None
    sources: list[Text] = []
    model: ModelConfig
    batch: int = Field(ge=1)
    normalization: NormalizationRecord
    classes: list[LabelClass] = []
    validation_planes: StoredList | list[Planes] | None = None
    preset: Text | None = None
    pretrained: Text | None = None
    start: Text | None = None
    resumed: list[_Session] = []

    @model_validator(mode="after")
    def _what_finetuning_needs(self) -> Self:
        missing = {"classes", "preset", "pretrained"} - self.model_fields_set
        if self.kind == "finetune" and missing:
            raise ValueError(f"fine-tuning needs {', '.join(sorted(missing))}")
        return self


class _Measurement(_Facts):
    """A line of a run's metrics."""

    model_config = ConfigDict(allow_inf_nan=True)

    event: Text
    step: Count
    loss: float | None = None
    mean_iou: float | None = None
    probe: float | None = None

    @model_validator(mode="after")
    def _losses(self) -> Self:
        if self.event in ("step", "validation") and "loss" not in self.model_fields_set:
            raise ValueError(f"a {self.event} has a loss")
        return self


class ProbeGain(_Facts):
    """What a pretraining has added to its features, as the probe saw it.

    Attributes
    ----------
    start : float
        Score of what the run started from.
    end : float
        Last score.
    margin : float
        By how much they have to differ to be told apart.
    """

    start: float
    end: float
    margin: float

    @property
    def is_clear(self) -> bool:
        """Whether the run has become better than what it started from."""
        return self.end - self.start > self.margin


class TrainingFacts(_Facts):
    """What a model file says of its training, for lists of models."""

    preset: Text | None = None
    pretrained: Text | None = None
    start: Text | None = None
    steps: Count = 0
    crops: Count | None = None
    date: Moment | None = None
    images: Count | None = None
    sources: list[Text] = []
    validation_loss: float | None = None
    mean_iou: float | None = None
    iou: dict[Text, float | None] = {}
    probe: ProbeGain | None = None


def reason(error: ValidationError) -> str:
    """Say in a line what is wrong first, and where."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def parse_record(content: bytes, where: str) -> dict[str, Any]:
    """Read and check the content of a run's ``run.json``.

    Parameters
    ----------
    content : bytes
        Content of the file.
    where : str
        What messages call it.

    Raises
    ------
    CheckpointError
        If it is damaged, or a newer version of the program wrote it.
    """
    try:
        record = parse_json(content)
    except ValueError as error:
        raise CheckpointError(f"cannot read {where}: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} has another format than {FORMAT}; "
            "it was written by a newer version of napari-affmae: update"
        )
    try:
        _Record.model_validate(record)
    except (ValidationError, ArithmeticError) as error:
        told = reason(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"cannot read {where}: {told}. It was changed or damaged; put a copy of it in its "
            "place, or start another run"
        ) from error
    return record


def parse_measurement(line: bytes, where: str) -> dict[str, Any]:
    """Read and check a line of a run's metrics.

    Parameters
    ----------
    line : bytes
        The line without its end.
    where : str
        What messages call it.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    try:
        parsed = parse_json(line)
    except ValueError as error:
        raise CheckpointError(f"cannot read {where}: {error}; delete that line") from error
    try:
        _Measurement.model_validate(parsed)
    except ValidationError as error:
        raise CheckpointError(
            f"{where} is no measurement: {reason(error)}; delete that line"
        ) from error
    return parsed  # type: ignore[no-any-return]
