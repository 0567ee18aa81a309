"""Config records as command-line options: one field, one flag, its own one-line doc as the help.

What a field may carry in its metadata:

    help     its one line of help
    also     more names of the option
    panel    the part of the help that has it, else that of the command
    empty    what an empty default means, else "none"

A preset field is left to the command that knows it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer
from rich.markup import escape


def options(
    config: type,
    *,
    skip: tuple[str, ...] = (),
    panel: str = "Options",
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Decorator: replaces a command's `**given` by one option per field of `config`.

    An option that is not typed stays out of `given`, so a preset below it keeps its value. The
    help shows the field's default, and by name what each of `presets` has instead.
    """
    hints = get_type_hints(config)
    shown = [f for f in fields(config) if f.name not in skip]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = {f.name: kwargs.pop(f.name) for f in shown}
            return command(*args, **kwargs, **{k: v for k, v in given.items() if v is not None})

        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        extra = [_parameter(f, hints[f.name], panel, presets or {}) for f in shown]
        parameters = [*own, *extra]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__  # or typer would read the undecorated signature
        return run

    return decorate


def _parameter(
    field: Field[Any], hint: Any, panel: str, presets: Mapping[str, Mapping[str, Any]]
) -> inspect.Parameter:
    own = [
        f"{name}: {_shown(p[field.name], field)}" for name, p in presets.items() if field.name in p
    ]
    flag = "--" + field.name.replace("_", "-")
    names = (
        (f"{flag}/--no-{flag[2:]}",) if hint is bool else (flag, *field.metadata.get("also", ()))
    )
    default = _note("; ".join([_default(field), *own]))
    option = typer.Option(
        *names,
        help=f"{field.metadata.get('help', field.name)} {default}",
        show_default=False,  # typer puts a text of ours into brackets within its own
        rich_help_panel=field.metadata.get("panel", panel),
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_optional(hint), option],
    )


def _optional(hint: Any) -> Any:
    """`T | None`, with `tuple[str, ...]` as a repeatable option."""
    if get_args(hint) == (str, ...):
        return list[str] | None
    return hint | None if hint in (int, float, bool, str) else str | None


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "required"
    return _shown(value, field)


def _note(default: str) -> str:
    return f"[dim]{escape(f'[default: {default}]')}[/dim]"


def _shown(value: Any, field: Field[Any]) -> str:
    """A value as one would type it, or say it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    said = ", ".join(value) if isinstance(value, tuple) else str(value)
    return said or str(field.metadata.get("empty", "none"))
