"""The settings as a form that tyro fills in from the command line.

tyro builds section by section, and settings refuse an impossible value as soon as they are built: the first
mistake would hide the others. So it fills in plain classes made here from the sections, field by field, with
the same types, texts and defaults; `filled_in` makes settings of them, through the same checks as a file's.
"""

import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Annotated, Any

import tyro

from metafilm.config.config import Config
from metafilm.config.settings.checks import OneOf

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option that is given or not; no --no-... beside it."""


def form(settings: Any) -> Any:
    """A section's values as an instance of `form_of` its class."""
    values = {part.name: getattr(settings, part.name) for part in fields(settings)}
    return form_of(type(settings))(
        **{name: form(value) if is_dataclass(value) else value for name, value in values.items()}
    )


@cache
def form_of(section: type) -> type:
    """A plain dataclass with the fields of `section`, each with the text that --help shows for it."""
    plain = typing.get_type_hints(section)
    checked = typing.get_type_hints(section, include_extras=True)
    texts = section.__pydantic_fields__  # type: ignore[attr-defined]
    parts: list[tuple[str, Any, Any]] = []
    for part in fields(section):
        name, kind = part.name, plain[part.name]
        if is_dataclass(kind):
            inner = form_of(typing.cast(type, kind))
            parts.append((name, inner, field(default_factory=inner)))
        else:
            text = " ".join(texts[name].description.split())
            option = tyro.conf.arg(help=text, metavar=names_of(checked[name]))
            parts.append((name, Annotated[kind, option], part.default))
    made = make_dataclass(section.__name__, parts, frozen=True)
    made.__doc__ = section.__doc__
    return made


def names_of(hint: Any) -> str | None:
    """`{conv4,resnet12,mlp}` for a setting whose names stand in a registry."""
    for check in getattr(hint, "__metadata__", ()):
        if isinstance(check, OneOf):
            return "{" + ",".join([*check.names, *(f"{start}..." for start in check.beginnings)]) + "}"
    return None


def as_python_has_them(arguments: Sequence[str]) -> list[str]:
    """`true` and `false`, as YAML has them, capitalised where they are values of a setting that is one of the
    two; a folder of that name stays what it is."""
    switches, option, found = set(switches_of(Config)), "", []
    for word in arguments:
        if word.startswith("--"):
            option = word.replace("_", "-")
        values = {"true": "True", "false": "False"} if option in switches else {}
        found.append(values.get(word, word))
    return found


def switches_of(section: type, prefix: str = "--") -> Iterator[str]:
    """The options of settings that are true or false, or may be."""
    for name, kind in typing.get_type_hints(section).items():
        option = f"{prefix}{name.replace('_', '-')}"
        if is_dataclass(kind):
            yield from switches_of(typing.cast(type, kind), f"{option}.")
        elif kind is bool or bool in typing.get_args(kind):
            yield option


def filled_in(form: Any, **given: dict[str, Any]) -> Config:
    """The settings that a form says, with those in `given` (section -> values) laid over them.

    Raises ConfigError listing every problem.
    """
    settings = asdict(form)
    for name, values in given.items():
        settings[name] |= values
    return Config.from_dict(settings, source="command line")
