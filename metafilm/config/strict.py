"""Plain mappings (from YAML or JSON) to nested frozen dataclasses and back, strictly.

Driven by the dataclasses' own annotations: nothing here knows a field by name. A section is a dataclass; a
flag is a field's dotted path with two dashes in front, the same string the command line takes.
"""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

import yaml

Section = TypeVar("Section")


def from_mapping(cls: type[Section], mapping: object, problems: list[str], prefix: str = "") -> Section:
    """Build `cls` from `mapping`; a missing key takes the field's default, a bad one is added to `problems`.

    The returned object is complete even when problems were found (a bad value is replaced by its default), so
    that the value checks can run too and everything is reported at once.
    """
    if mapping is None:  # a section whose keys are all commented out
        mapping = {}
    if not isinstance(mapping, Mapping):
        where = flag(prefix) if prefix else "the top level"
        problems.append(f"{where} must be a mapping of settings, is {mapping!r}")
        mapping = {}
    hints = typing.get_type_hints(cls)
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in mapping:
        if key not in names:
            problems.append(f"{flag(prefix, key)} is unknown{did_you_mean(str(key), names, prefix)}")
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if is_dataclass(hints[field.name]):
            values[field.name] = from_mapping(
                hints[field.name], mapping.get(field.name), problems, joined(prefix, field.name)
            )
        elif field.name in mapping:
            try:
                values[field.name] = converted(mapping[field.name], hints[field.name])
            except TypeError:
                problems.append(
                    f"{flag(prefix, field.name)} must be {describe(hints[field.name])}, "
                    f"is {mapping[field.name]!r}"
                )
        elif field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{flag(prefix, field.name)} is missing")
    return cls(**values)


def to_mapping(section: Any) -> dict[str, Any]:
    """The reverse of `from_mapping`: only dict, list, str, int, float, bool and None; tuples become lists."""

    def plain(value: Any) -> Any:
        if is_dataclass(value):
            return to_mapping(value)
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return {field.name: plain(getattr(section, field.name)) for field in fields(section)}


def leaves(section: Any, prefix: str = "") -> Iterable[tuple[str, Any, Mapping[str, Any]]]:
    """Every setting as (dotted name, value, the field's metadata), in the order of definition."""
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from leaves(value, joined(prefix, field.name))
        else:
            yield joined(prefix, field.name), value, field.metadata


def converted(value: Any, hint: Any) -> Any:
    """`value` as `hint` asks for, or TypeError. An int passes as float; nothing else is coerced."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return converted(value, option)
            except TypeError:
                continue
        raise TypeError
    if origin is typing.Literal:
        for option in arguments:
            if type(value) is type(option) and value == option:
                return option
        raise TypeError
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(converted(item, arguments[0]) for item in value)
        if len(arguments) != len(value):
            raise TypeError
        return tuple(converted(item, option) for item, option in zip(value, arguments, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise TypeError
    if hint in (None, type(None)) and value is None:
        return None
    if isinstance(hint, type) and type(value) is hint:  # `type is`: True is not an int here
        return value
    raise TypeError


def describe(hint: Any) -> str:
    """A type in words, for messages: `int | None` is "a whole number or empty"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is typing.Literal:
        listed = ", ".join(map(str, arguments))
        return f"one of {listed}" if len(arguments) > 1 else listed
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
    words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    return words.get(hint, "empty" if hint in (None, type(None)) else str(hint))


def joined(prefix: str, name: object) -> str:
    return f"{prefix}.{name}" if prefix else str(name)


def flag(prefix: str, name: object = "") -> str:
    """The dotted flag of a setting: `flag("outer", "iterations")` is `--outer.iterations`."""
    return f"--{joined(prefix, name) if name != '' else prefix}"


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean --outer.iterations?`, or the list of flags there are when nothing comes close."""
    flags = {name: flag(prefix, name) for name in known}
    close = difflib.get_close_matches(word, flags, n=1)
    return f"; did you mean {flags[close[0]]}?" if close else listed(flags.values())


def close_match(word: str, known: Iterable[str]) -> str:
    """`; did you mean crop-flip?`, or the list of what there is."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]}?" if close else listed(names)


def listed(names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    return f"; there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a repeated key is an error and `1e-3` is a number.

    YAML 1.1 reads `1e-3` (no dot) as text, which would surprise everyone who writes a learning rate.
    """


def unique_mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is set twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique_mapping)
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
