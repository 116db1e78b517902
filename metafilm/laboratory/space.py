"""What a sweep searches: settings by name, each with a range or a list of values.

outer.penalty=1e-4..1:log       numbers between, evenly in their logarithm
inner.steps=0..5                whole numbers, for a setting that takes no others
encoder.decoder=linear,mlp,gru  one of a list
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metafilm.config import Config
from metafilm.config.messages import close_match, flag
from metafilm.config.strict import leaves, types_of
from metafilm.errors import ConfigError
from metafilm.training.tracking.sweep import put

Value = bool | int | float | str | None

RANGE = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^,:]+)(?P<log>:log)?")
GRAMMAR = "write NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=ONE,ANOTHER"
NOT_SEARCHED = ("data.", "evaluation.", "tracking.", "name", "seed", "threads", "device")
"""Settings (or their sections) that say what a score is of, or nothing of a score."""
SHAPES_VALIDATION = ("episodes.within_group", "episodes.criteria", "episodes.style")


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``; whole ones where both ends are."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value lies within."""
        return type(value) in (int, float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{_written(self.low)}..{_written(self.high)}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        return self.values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return any(type(value) is type(known) and value == known for known in self.values)

    def __str__(self) -> str:
        return ",".join("null" if value is None else str(value) for value in self.values)


def _written(number: float) -> str:
    """Short, and read back as this very number."""
    short = f"{number:g}"
    return short if type(number) is float and float(short) == number else repr(number)


Space = dict[str, Range | Choice]


def default_space(config: Config) -> Space:
    """What most decides whether a configuration overfits: penalty, weight decays, decoder, inner steps and
    their size, as far as its parts have them."""
    space: Space = {}
    adapts = config.film.sites != "none"
    encodes = adapts and config.encoder.enabled
    bounded = config.film.modulation in ("gated", "bounded")
    # AdamW shrinks weights by the learning rates' sum × decay, which is next to nothing at the usual 1e-4;
    # of SGD, whose decay goes into the gradient and whose rates are larger, 1 would leave no weight
    decays = Range(1e-4, 1.0, log=True) if config.outer.optimiser == "adamw" else Range(1e-6, 1e-2, log=True)
    if adapts:
        space["outer.penalty"] = Range(1e-4, 10.0, log=True)
    if encodes and "encoder" not in config.outer.freeze:
        space["outer.encoder_weight_decay"] = decays
    if "backbone" not in config.outer.freeze:
        space["outer.weight_decay"] = decays
    if encodes and config.encoder.kind == "support":
        space["encoder.decoder"] = Choice(("linear", "mlp2", "mlp", "gru"))
    if adapts and not bounded and config.inner.evaluation_steps is None:
        space["inner.steps"] = Range(1 if config.inner.gate else 0, 5)
    if adapts and not bounded:
        adam = config.inner.optimiser == "adam"
        space["inner.step_size"] = Range(1e-4, 1e-1, log=True) if adam else Range(1e-3, 1.0, log=True)
    return space


def parse_space(texts: Iterable[str], config: Config) -> Space:
    """Read what the user wants searched; nothing given: :func:`default_space`.

    Raises:
        ConfigError: listing every text that is no range or list of a setting, every value that the setting
            can't have in this configuration, and settings that decide what validation scores.
    """
    problems: list[str] = []
    space: Space = {}
    for text in texts:
        name, _, wanted = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if problem := _unsearchable(name, config):
            problems.append(problem)
        elif name in space:
            problems.append(f"{flag(name)} is searched twice; give its range once")
        elif (found := _read(wanted.strip(), _takes_floats(name))) is None:
            problems.append(f"{text!r} is no search; {GRAMMAR}")
        else:
            space[name] = found
    if not problems:
        space = space or default_space(config)
        problems = [problem for name in space for problem in _impossible(name, space[name], config)]
    if problems:
        raise ConfigError(problems, "--search")
    if not space:
        raise ConfigError(["nothing to search in this configuration; name settings"], "--search")
    return space


def written_space(texts: Mapping[str, str]) -> Space:
    """A space from what it wrote of itself, setting by setting. Raises ValueError, KeyError: it is none."""
    space: Space = {}
    for name, text in texts.items():
        found = _read(text, _takes_floats(name))
        if found is None:
            raise ValueError(f"{name}={text}")
        space[name] = found
    return space


def with_values(config: Config, values: Mapping[str, Any], **named: Any) -> Config:
    """The configuration with these settings (by dotted name) in the place of its own. Raises ConfigError."""
    settings = config.to_dict() | named
    for name, value in values.items():
        put(settings, name.split("."), value)
    return Config.from_dict(settings, source=", ".join(f"{k} {v}" for k, v in values.items()) or "search")


def values_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """The configuration's own values of these settings."""
    known = {name: value for name, value, _ in leaves(config)}
    return {name: known[name] for name in names}


def _unsearchable(name: str, config: Config) -> str | None:
    known = [setting for setting, *_ in leaves(config)]
    if name not in known:
        return f"{flag(name) if name else 'a search without a name'} is no setting{close_match(name, known)}"
    if name.startswith(NOT_SEARCHED) or name in SHAPES_VALIDATION:
        return f"{flag(name)} can't be searched: it decides what is scored, not how well"
    shape = name.removeprefix("episodes.")
    if shape in ("ways", "shots", "queries") and getattr(config.evaluation, shape) is None:
        return f"{flag(name)} shapes validation too; set {flag('evaluation', shape)} first"
    return None


def _takes_floats(name: str) -> bool:
    kind: Any = Config
    for part in name.split("."):
        kind = types_of(kind)[part]
    return kind is float or float in typing.get_args(kind)


def _read(text: str, floats: bool) -> Range | Choice | None:
    """A range or a list; ``floats``: of a setting that takes them. None: it is neither."""
    if found := RANGE.fullmatch(text):
        low, high = (_value(found[end].strip()) for end in ("low", "high"))
        if any(type(end) not in (int, float) for end in (low, high)) or not low < high:  # type: ignore[operator]
            return None
        if found["log"] and not low > 0:  # type: ignore[operator]
            return None
        if floats:
            low, high = float(low), float(high)  # type: ignore[arg-type]
        return Range(low, high, bool(found["log"]))  # type: ignore[arg-type]
    values = [_value(word.strip()) for word in text.split(",")]
    if "" in values or not text:
        return None
    return Choice(tuple(float(value) if floats and type(value) is int else value for value in values))


def _value(word: str) -> Value:
    """A word as YAML 1.2 would read it."""
    plain = {"true": True, "false": False, "none": "none", "null": None, "": ""}
    if word.lower() in plain:
        return plain[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _impossible(name: str, wanted: Range | Choice, config: Config) -> list[str]:
    """What the configuration says against the ends of a range or the values of a list."""
    problems: list[str] = []
    if name == "backbone.norm" and "transductive" in wanted.ends and len({*wanted.ends}) > 1:
        problems.append(
            f"{flag(name)} transductive reads the queries, and its scores are not those of the others; "
            "search these alone"
        )
    for value in wanted.ends:
        try:
            with_values(config, {name: value})
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems
