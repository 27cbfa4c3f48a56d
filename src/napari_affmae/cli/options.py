"""Command-line options made from the fields of the settings classes.

The fields hold title, description, default and bounds; nothing of that is
written a second time here. Options that were not given stay out of the settings
that are built, so every default is the settings' own.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape

from napari_affmae.config import Settings

S = TypeVar("S", bound=Settings)
Given = dict[str, Any]
"""Values of the options that were given, nested like the settings."""

_KINDS = {int: "N", float: "X"}


def settings_options(
    settings: type[Settings], *, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of a settings class.

    Parameters
    ----------
    settings : type[Settings]
        Fields that are settings themselves become a group of options.
    without : Collection[str]
        Fields that the command fills in by itself.

    Returns
    -------
    Callable
        A decorator. The command it decorates gets the values that were given
        as its parameter `given`, still unchecked, for `build`.
    """
    fields = {f.name: f for f in _fields(settings) if f.path[0] not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            values = {field.path: arguments.pop(name) for name, field in fields.items()}
            command(**arguments, given=_nest(values))

        signature = inspect.signature(command)
        parameters = [p for p in signature.parameters.values() if p.name != "given"]
        parameters += [_parameter(field) for field in fields.values()]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def build(settings: type[S], *layers: Mapping[str, Any]) -> S:
    """Check the values that were given and make settings of them.

    Parameters
    ----------
    settings : type[Settings]
    *layers : Mapping[str, Any]
        Nested values; later layers win over earlier ones.

    Raises
    ------
    typer.BadParameter
        A value is not allowed; one line names the options and the reasons.
    """
    try:
        return settings.model_validate(functools.reduce(_merge, layers, _defaults(settings)))
    except ValidationError as error:
        raise typer.BadParameter(_one_line(error, settings)) from error


@dataclass(frozen=True)
class _Field:
    """A setting that is not itself a group of settings."""

    path: tuple[str, ...]
    info: FieldInfo
    default: Any

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def _fields(settings: type[BaseModel]) -> Iterator[_Field]:
    for name, info in settings.model_fields.items():
        # A group's defaults are its owner's: pretraining augments less than fine-tuning.
        if isinstance(info.default, Settings):
            for inner, inner_info in type(info.default).model_fields.items():
                yield _Field((name, inner), inner_info, getattr(info.default, inner))
        else:
            yield _Field((name,), info, info.default)


def _defaults(settings: type[BaseModel]) -> Given:
    groups = settings.model_fields.items()
    return {name: i.default.model_dump() for name, i in groups if isinstance(i.default, Settings)}


def _parameter(field: _Field) -> inspect.Parameter:
    switch = field.info.annotation is bool
    option = typer.Option(
        f"{field.flag}/--no-{field.flag.removeprefix('--')}" if switch else field.flag,
        help=_help(field),
        metavar=None if switch else _metavar(field.name, field.info.annotation),
        show_default=False,
        rich_help_panel=field.path[0].capitalize() if len(field.path) > 1 else "Settings",
    )
    value = bool if switch else str
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[value | None, option],
    )


def _help(field: _Field) -> str:
    title, text = field.info.title or "", field.info.description or ""
    words = f"{title}: {text[:1].lower()}{text[1:]}" if text[1:2].islower() else f"{title}: {text}"
    if field.default is None or field.default == ():
        return words
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return escape(f"{words} [default: {','.join(map(str, values))}]")


def _metavar(name: str, annotation: Any) -> str:
    """Say what may stand after the option: words as they are, else a kind of value."""
    if annotation in _KINDS:
        return _KINDS[annotation]
    if get_origin(annotation) is tuple:
        return "X,X,..."
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    alternatives = [kind for kind in get_args(annotation) if kind is not NoneType]
    return "|".join(_metavar(name, kind) for kind in alternatives) or name.upper()


def _nest(values: Mapping[tuple[str, ...], Any]) -> Given:
    nested: Given = {}
    for path, value in values.items():
        if value is None:
            continue
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value.split(",") if isinstance(value, str) and "," in value else value
    return nested


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Given:
    merged = dict(below)
    for name, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if nested else value
    return merged


def _one_line(error: ValidationError, settings: type[Settings]) -> str:
    fields = list(_fields(settings))
    reasons: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        where, reason = "", problem["msg"].removeprefix("Value error, ")
        if location:
            flags = (f.flag for f in fields if location[: len(f.path)] == f.path)
            where = next(flags, str(location[0]))
            reason = f"{reason[0].lower()}{reason[1:]}, got {problem['input']!r}"
        reasons.setdefault(where, []).append(reason)
    return "; ".join(_join(where, alternatives) for where, alternatives in reasons.items())


def _join(where: str, alternatives: Iterable[str]) -> str:
    text = " or ".join(dict.fromkeys(alternatives))
    return f"{where}: {text}" if where else text
