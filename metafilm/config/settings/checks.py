"""What a field asks of its value: annotations that pydantic runs once the type is right.

Each raises ValueError with the rest of a sentence that begins with the flag, e.g. "must be at least 1, is 0".
pydantic's own bounds know no settings that are a number or a range of two, nor names close to a wrong one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, Strict
from pydantic_core import CoreSchema, core_schema

from metafilm.config.messages import close_match, cut, listed, shown

# Nothing is coerced ("5", 5.0 and True are no whole numbers), except that a whole number serves as a float.
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Text = Annotated[str, Strict()]
Switch = Annotated[bool, Strict()]

TOO_LARGE = 2**63
"""Whole numbers from here on fit no tensor and no random generator."""


@dataclass(frozen=True)
class OneOf:
    """A name (or several) out of a registry; `beginnings`: what else a name may start with. Empty passes.

    The registry is the one list of names there is: this check, its messages and the command line's help read
    it each time.
    """

    registry: Iterable[str]
    beginnings: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(self.registry)

    def check(self, value: Any) -> Any:
        for name in ends(value):
            if name is None:
                continue
            if name not in self.names and not (self.beginnings and name.startswith(self.beginnings)):
                hint = close_match(name, self.names) if name else listed(self.names)
                raise ValueError(f"{cut(name) or shown(name)} is unknown{hint}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def at_least(low: float) -> AfterValidator:
    """Every number given (one, or two for a range) from `low` on; empty passes."""
    return numbers(lambda value: value >= low, f"must be at least {low}")


def above(low: float) -> AfterValidator:
    return numbers(lambda value: value > low, f"must be above {low}")


def between(low: float, high: float) -> AfterValidator:
    return numbers(lambda value: low <= value <= high, f"must be between {low} and {high}")


def from_up_to(low: float, high: float) -> AfterValidator:
    """From `low` on and below `high`."""
    return numbers(lambda value: low <= value < high, f"must be at least {low} and below {high}")


def numbers(fits: Callable[[Any], bool], what: str) -> AfterValidator:
    def check(value: Any) -> Any:
        given = [number for number in ends(value) if number is not None]
        if any(isinstance(number, int) and abs(number) >= TOO_LARGE for number in given):
            raise ValueError(f"must be below 2^63, is {shown(value)}")
        if not all(map(fits, given)):
            raise ValueError(f"{what}, is {' '.join(map(str, given))}")
        return value

    return AfterValidator(check)


def rising(value: Any) -> Any:
    if isinstance(value, tuple) and value[0] > value[1]:
        raise ValueError(f"must be a range from low to high, is {value[0]} {value[1]}")
    return value


Rising = AfterValidator(rising)
"""A range of two numbers, the low one first; a single number passes."""


def ends(value: Any) -> tuple[Any, ...]:
    """One or several values as several."""
    return value if isinstance(value, tuple) else (value,)
