"""Sections: frozen pydantic dataclasses that hold no impossible value, from plain mappings and back.

Types, unknown keys and each field's own checks are pydantic's work, in a constructor, in `replace` and in
`from_mapping` alike. Nothing here knows a field by name.
"""

import functools
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError

from episodes.files.root import printable
from metafilm.config.messages import describe, did_you_mean, flag, joined, shown
from metafilm.errors import ConfigError

Section = TypeVar("Section")
Path = tuple[str, ...]
"""A setting's names from the outermost section inwards, e.g. ("outer", "iterations")."""

UNKNOWN = ("unexpected_keyword_argument", "unexpected_positional_argument")
RULES = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def section(prefix: str = "") -> Callable[[type[Section]], type[Section]]:
    """Decorator: a frozen dataclass whose constructor raises ConfigError, listing every problem by its flag.

    `prefix`: the section's name among the settings, e.g. outer.
    """

    def decorated(cls: type[Section]) -> type[Section]:
        made = pydantic.dataclasses.dataclass(frozen=True, config=RULES)(cls)
        unworded = made.__init__

        @functools.wraps(unworded)
        def __init__(self: Any, *values: Any, **named: Any) -> None:
            try:
                unworded(self, *values, **named)
            except ValidationError as error:
                given = dict(enumerate(values)) | named
                raise ConfigError(list(in_words(error, made, given, prefix).values()), cls.__name__) from None

        made.__init__ = __init__
        return made  # type: ignore[return-value]

    return decorated


def free(default: Any) -> Any:
    """A field that may differ when a run is resumed: it doesn't change which weights come out."""
    return field(default=default, metadata={"may_differ_on_resume": True})


def from_mapping(cls: type[Section], mapping: object, problems: list[str]) -> Section:
    """Build `cls` from `mapping`; a missing key takes the field's default, a bad one is added to `problems`.

    The returned object is complete even when problems were found (a bad value is replaced by its default), so
    that what settings ask of each other can be checked too and everything is reported at once.
    """
    if mapping is not None and not isinstance(mapping, Mapping):
        problems.append(f"the top level must be a mapping of settings, is {shown(mapping)}")
        mapping = {}
    given = tidied(cls, mapping or {}, problems)
    while True:
        try:
            return adapter(cls).validate_python(given)
        except ValidationError as error:
            found = in_words(error, cls, given)
            problems += found.values()
            for path in found:
                drop(given, path)


def to_mapping(section: Any) -> dict[str, Any]:
    """The reverse of `from_mapping`: only dict, list, str, int, float, bool and None; tuples become lists."""
    return adapter(type(section)).dump_python(section, mode="json")


def leaves(section: Any, prefix: str = "") -> Iterable[tuple[str, Any, Mapping[str, Any]]]:
    """Every setting as (dotted name, value, the field's metadata), in the order of definition."""
    for part in fields(section):
        value = getattr(section, part.name)
        if is_dataclass(value):
            yield from leaves(value, joined(prefix, part.name))
        else:
            yield joined(prefix, part.name), value, part.metadata


def tidied(cls: type, mapping: Mapping[Any, Any], problems: list[str], prefix: str = "") -> dict[Any, Any]:
    """A copy with underscores in its keys and without sections whose keys are all commented out."""
    found: dict[Any, Any] = {}
    for key, value in mapping.items():
        name = str(key).replace("-", "_")
        if name in found:
            problems.append(f"{flag(prefix, name)} is set twice")
        elif isinstance(value, str):
            found[name] = printable(value)  # pydantic takes no bytes of a name that are no text
        elif not is_dataclass(kind := types_of(cls).get(name)):
            found[name] = value
        elif isinstance(value, Mapping):
            found[name] = tidied(typing.cast(type, kind), value, problems, joined(prefix, name))
        elif value is not None:
            found[name] = value
    return found


def in_words(
    error: ValidationError, cls: type, given: Mapping[Any, Any], prefix: str = ""
) -> dict[Path, str]:
    """pydantic's errors as one line per setting: path -> `--outer.warmup must be a whole number, is 1.5`."""
    found: dict[Path, str] = {}
    for entry in error.errors(include_url=False):
        path, kind, siblings = setting_at(cls, entry["loc"])
        if path in found:  # the other alternatives of the same type
            continue
        where, value = flag(".".join((prefix, *path)).strip(".")), value_at(given, path)
        if entry["type"] in UNKNOWN:
            above = ".".join((prefix, *path[:-1])).strip(".")
            found[path] = f"{where} is unknown{did_you_mean(path[-1], siblings, above)}"
        elif entry["type"] == "value_error":
            found[path] = f"{where} {entry.get('ctx', {})['error']}"
        elif is_dataclass(kind):
            found[path] = f"{where} must be a mapping of settings, is {shown(value)}"
        else:
            found[path] = f"{where} must be {describe(kind)}, is {shown(value)}"
    return found


def setting_at(cls: type, places: tuple[int | str, ...]) -> tuple[Path, Any, list[str]]:
    """pydantic's place of an error as (path, type of the setting or None, the names beside it)."""
    path: Path = ()
    kind: Any = cls
    siblings: list[str] = []
    for place in places:
        if not is_dataclass(kind):  # further in lie the alternatives of a type and the items of a list
            break
        siblings = list(types_of(typing.cast(type, kind)))
        if isinstance(place, int) and place < len(siblings):  # a constructor's argument without a name
            place = siblings[place]
        path += (str(place),)
        kind = types_of(typing.cast(type, kind)).get(str(place))
    return path, kind, siblings


def value_at(given: Mapping[Any, Any], path: Path) -> Any:
    value: Any = given
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def drop(given: dict[Any, Any], path: Path) -> None:
    for name in path[:-1]:
        given = given[name]
    del given[path[-1]]


@functools.cache
def types_of(cls: type) -> dict[str, Any]:
    """A section's fields and their types, without the checks beside them."""
    hints = typing.get_type_hints(cls)
    return {part.name: hints[part.name] for part in fields(cls)}


@functools.cache
def adapter(cls: type[Section]) -> TypeAdapter[Section]:
    return TypeAdapter(cls)
