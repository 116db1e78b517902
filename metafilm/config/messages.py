"""The words of a configuration's problems: flags, types and values as a reader knows them.

pydantic's own sentences know neither flags nor alternatives (`int | tuple` becomes three lines), so its
errors are told in these words.
"""

import difflib
import reprlib
import types
import typing
from collections.abc import Iterable
from typing import Any

LONGEST = 200
"""Characters of a value, or of a name that is close to nothing, which a message shows."""


def joined(prefix: str, name: object) -> str:
    return f"{prefix}.{name}" if prefix else str(name)


def flag(prefix: str, name: object = "") -> str:
    """A setting as the command line and its help spell it: `flag("outer", "meta_batch")` is
    `--outer.meta-batch`."""
    return f"--{cut(joined(prefix, name) if name != '' else prefix).replace('_', '-')}"


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


def shown(value: object) -> str:
    """A value as Python writes it, cut where it is long: a file may hold anything."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST
    short.maxlist = short.maxtuple = short.maxdict = 20
    try:
        return cut(short.repr(value), 2 * LONGEST)
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean --outer.iterations?`, or the list of flags there are when nothing comes close."""
    flags = {name: flag(prefix, name) for name in known}
    close = closest(word, flags)
    return f"; did you mean {flags[close[0]]}?" if close else listed(flags.values())


def close_match(word: str, known: Iterable[str]) -> str:
    """`; did you mean crop-flip?`, or the list of what there is."""
    names = list(known)
    close = closest(word, names)
    return f"; did you mean {close[0]}?" if close else listed(names)


def closest(word: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, known, n=1) if len(word) <= LONGEST else []


def listed(names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    return f"; there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"
