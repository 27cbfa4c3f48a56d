"""Command-line options made from the fields of the settings classes.

Only options that are given enter the settings, so every default is the settings'
own.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import ValidationError
from rich.markup import escape

from napari_affmae.config import Settings
from napari_affmae.settings_fields import (
    SettingField,
    build_settings,
    nest,
    problems,
    setting_fields,
)

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)
Given = dict[str, Any]
"""Values of the options that were given, nested like the settings."""

_METAVARS = {int: "N", float: "X"}


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
        A decorator. The decorated command gets the values that were given as its
        parameter `given`; they are not checked, and meant for `build`.
    """
    fields = {f.name: f for f in setting_fields(settings) if f.path[0] not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            for name in settings.retired:
                if arguments.pop(name) is not None:
                    logger.warning("the option %s has no effect any more; leave it out", name)
            values = {field.path: arguments.pop(name) for name, field in fields.items()}
            given = {path: _split(value) for path, value in values.items() if value is not None}
            command(**arguments, given=nest(given))

        signature = inspect.signature(command)
        parameters = [p for p in signature.parameters.values() if p.name != "given"]
        parameters += [_parameter(field) for field in fields.values()]
        parameters += [_retired_parameter(name) for name in sorted(settings.retired)]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def build(settings: type[S], *layers: Mapping[str, Any]) -> S:
    """Check the values that were given and make settings of them.

    Parameters
    ----------
    settings : type[Settings]
        The class.
    *layers : Mapping[str, Any]
        Nested values; later layers win over earlier ones.

    Raises
    ------
    typer.BadParameter
        A value is not allowed. One line names the options and the reasons.
    """
    try:
        return build_settings(settings, *layers)
    except ValidationError as error:
        raise typer.BadParameter(_one_line(error, settings)) from error


def _split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) and "," in value else value


def _parameter(field: SettingField) -> inspect.Parameter:
    switch = bool in field.kinds
    option = typer.Option(
        f"{field.flag}/{field.off_flag}" if switch else field.flag,
        help=_help(field),
        metavar=None if switch else _metavar(field),
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


def _retired_parameter(name: str) -> inspect.Parameter:
    """Scripts that were written when the option still had an effect go on working."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(_flag(name), hidden=True)],
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(field: SettingField) -> str:
    title, text = field.title, field.description
    words = f"{title}: {text[:1].lower()}{text[1:]}" if text[1:2].islower() else f"{title}: {text}"
    if field.default is None or field.default == ():
        return words
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return escape(f"{words} [default: {','.join(map(str, values))}]")


def _metavar(field: SettingField) -> str:
    """Say what may stand after the option: the words that are allowed, or a kind of value."""
    alternatives: list[str] = []
    for kind in field.kinds:
        if get_origin(kind) is Literal:
            alternatives += map(str, get_args(kind))
        elif get_origin(kind) is tuple:
            alternatives.append("X,X,...")
        else:
            alternatives.append(_METAVARS.get(kind, field.name.upper()))
    return "|".join(alternatives)


def _one_line(error: ValidationError, settings: type[Settings]) -> str:
    reasons: dict[str, list[str]] = {}
    for field, name, reason, entered in problems(error, settings):
        where = name if field is None else field.flag
        told = f"{reason[0].lower()}{reason[1:]}, got {entered!r}" if where else reason
        reasons.setdefault(where, []).append(told)
    lines = {where: " or ".join(dict.fromkeys(told)) for where, told in reasons.items()}
    return "; ".join(f"{where}: {line}" if where else line for where, line in lines.items())
