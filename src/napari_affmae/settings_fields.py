"""The fields of a settings class, as command-line options and forms are made from them.

Settings may hold groups of settings. The functions here see through the groups:
they name a field by its path, such as ``("normalization", "clahe")``. The module
imports pydantic alone, so that the help of a command appears at once.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from napari_affmae.config import Settings

S = TypeVar("S", bound=Settings)
FieldPath = tuple[str, ...]


@dataclass(frozen=True)
class SettingField:
    """A setting that is not itself a group of settings."""

    path: FieldPath
    title: str
    description: str
    default: Any
    """Its default inside the outermost settings: pretraining augments less than fine-tuning."""
    kinds: tuple[Any, ...]
    """Types of its values besides None: one, or the members of a union."""
    low: float | None
    """Lower bound, which may or may not be allowed itself."""
    high: float | None
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name inside its group."""
        return self.path[-1]

    @property
    def flag(self) -> str:
        """The option that sets it on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def off_flag(self) -> str:
        """The option that switches it off."""
        return f"--no-{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words that are allowed, alone or instead of a number."""
        words = (get_args(kind) for kind in self.kinds if get_origin(kind) is Literal)
        return tuple(word for group in words for word in group)

    def value_in(self, settings: Settings) -> Any:
        """Return its value in the outermost settings."""
        return functools.reduce(getattr, self.path, settings)


class Problem(NamedTuple):
    """What is wrong with one of the values that were entered."""

    field: SettingField | None
    """None if values do not fit together, or no field has the name."""
    name: str
    """The outermost name; empty if values do not fit together."""
    reason: str
    entered: Any


def setting_fields(settings: type[Settings]) -> Iterator[SettingField]:
    """Go through the fields of a settings class and of its groups, in their order."""
    return _fields_below((), settings, None)


def build_settings(settings: type[S], *layers: Mapping[str, Any]) -> S:
    """Check values, and make settings of them.

    Parameters
    ----------
    settings : type[Settings]
        The class. Where a group is given in part, its other fields keep the
        defaults that they have inside this class.
    *layers : Mapping[str, Any]
        Values nested like the settings; later layers win over earlier ones.

    Raises
    ------
    pydantic.ValidationError
        A value is not allowed, or values do not fit together; see `problems`.
    """
    fields = settings.model_fields.items()
    groups = {name: info.default for name, info in fields if isinstance(info.default, Settings)}
    defaults = {name: group.model_dump() for name, group in groups.items()}
    return settings.model_validate(functools.reduce(_merge, layers, defaults))


def problems(error: ValidationError, settings: type[Settings]) -> list[Problem]:
    """Say which settings an error is about."""
    fields = list(setting_fields(settings))
    found = []
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        field = next((f for f in fields if location[: len(f.path)] == f.path), None)
        name = str(location[0]) if location else ""
        reason = detail["msg"].removeprefix("Value error, ")
        found.append(Problem(field, name, reason, detail["input"]))
    return found


def nest(values: Mapping[FieldPath, Any]) -> dict[str, Any]:
    """Put values that have paths into dictionaries nested like the settings."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return nested


def _fields_below(
    path: FieldPath, settings: type[Settings], defaults: Settings | None
) -> Iterator[SettingField]:
    for name, info in settings.model_fields.items():
        default = info.default if defaults is None else getattr(defaults, name)
        if isinstance(default, Settings):
            yield from _fields_below((*path, name), type(default), default)
        else:
            yield _describe((*path, name), info, default)


def _describe(path: FieldPath, info: FieldInfo, default: Any) -> SettingField:
    annotation = info.annotation
    is_union = get_origin(annotation) in {Union, UnionType}
    kinds = get_args(annotation) if is_union else (annotation,)
    low = high = None
    for constraint in info.metadata:
        match constraint:
            case Ge(ge=bound) | Gt(gt=bound):
                low = bound
            case Le(le=bound) | Lt(lt=bound):
                high = bound
    return SettingField(
        path,
        info.title or "",
        info.description or "",
        default,
        kinds=tuple(kind for kind in kinds if kind is not NoneType),
        low=low,  # type: ignore[arg-type]
        high=high,  # type: ignore[arg-type]
        examples=tuple(info.examples or ()),
    )


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if nested else value
    return merged
