"""Every setting of a run as one frozen object, read strictly and checked all at once.

The same names serve as YAML keys (`outer: {iterations: 100}`), as command-line flags
(`--outer.iterations 100`) and in error messages. `configs/*.yaml` hold only what differs from the defaults.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from metafilm.config.settings import (
    REGRESSION_DATA,
    Backbone,
    Data,
    Encoder,
    Episodes,
    Evaluation,
    Film,
    Head,
    Inner,
    Outer,
    Problem,
    Tracking,
    at_least,
    free,
)
from metafilm.config.strict import StrictLoader, close_match, flag, from_mapping, leaves, to_mapping
from metafilm.errors import ConfigError

__all__ = [
    "Backbone",
    "Config",
    "Data",
    "Encoder",
    "Episodes",
    "Evaluation",
    "Film",
    "Head",
    "Inner",
    "Outer",
    "Tracking",
    "config_names",
    "load_config",
    "resume_differences",
]


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    name: str = "run"
    """Name of the run; its default directory is runs/NAME."""
    seed: int = 0
    """Seed of the weights and of the episodes."""
    threads: int = free(0)
    """CPU threads; 0: torch's default. Another number of threads may change the last bits of a result."""
    device: Literal["auto", "cpu", "cuda"] = free("auto")
    """Where to train; auto: on a GPU where there is one."""
    data: Data = field(default_factory=Data)
    episodes: Episodes = field(default_factory=Episodes)
    backbone: Backbone = field(default_factory=Backbone)
    film: Film = field(default_factory=Film)
    encoder: Encoder = field(default_factory=Encoder)
    head: Head = field(default_factory=Head)
    inner: Inner = field(default_factory=Inner)
    outer: Outer = field(default_factory=Outer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)

    @classmethod
    def from_dict(cls, settings: object, source: str = "configuration") -> "Config":
        """From nested plain mappings; a missing key takes its default.

        Raises ConfigError listing every unknown key, wrong type and impossible value.
        """
        problems: list[str] = []
        config = from_mapping(cls, settings, problems)
        problems += config.problems()
        if problems:
            raise ConfigError(problems, source)
        return config

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Config":
        """From a YAML file. Raises ConfigError naming the file, see `from_dict`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            settings = yaml.load(text, Loader=StrictLoader)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"can't be read: {error}"], str(path)) from error
        except yaml.YAMLError as error:
            raise ConfigError([f"is not valid YAML: {error}"], str(path)) from error
        return cls.from_dict(settings, source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain mappings, ready for JSON and YAML; `from_dict` gives the same config back."""
        return to_mapping(self)

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def validate(self, source: str = "configuration") -> "Config":
        """Returns itself; raises ConfigError listing every impossible value."""
        problems = self.problems()
        if problems:
            raise ConfigError(problems, source)
        return self

    def problems(self) -> list[str]:
        """Impossible values, one line each, naming the flag."""
        found = [f"{flag(name)} {what}" for name, what in self.check()]
        for part in fields(self):
            section = getattr(self, part.name)
            if is_dataclass(section):
                found += [f"{flag(part.name, name)} {what}" for name, what in section.check()]  # type: ignore
        return found

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 0, "seed", "threads")
        if not self.name or "/" in self.name or self.name in (".", ".."):
            yield "name", f"must be a plain name that can be a folder's, is {self.name!r}"
        if self.film.sites == "none" and self.encoder.enabled:
            yield "film.sites", "none leaves the task encoder nothing to predict; add --encoder.enabled False"
        if self.film.sites == "none" and (self.inner.steps or self.inner.evaluation_steps):
            yield "film.sites", "none leaves the inner loop nothing to adapt; add --inner.steps 0"
        regression = self.data.name in REGRESSION_DATA
        if regression != (self.head.name == "regression"):
            yield "head.name", f"{self.head.name} does not fit --data.name {self.data.name}"
        if regression and self.outer.auxiliary:
            yield "outer.auxiliary", "must be 0 for functions: they have no classes to tell apart"
        if self.head.name == "linear" and isinstance(self.episodes.ways, tuple):
            yield "episodes.ways", "must be one number for the linear head, whose outputs are fixed"
        for name in ("ways", "shots"):
            if self.outer.compile and isinstance(getattr(self.episodes, name), tuple):
                yield f"episodes.{name}", "must be one number with --outer.compile: each shape compiles anew"


def resume_differences(old: Config, new: Config) -> list[str]:
    """Settings in which `new` may not differ from the run it would resume, e.g. `--seed is 1, was 0`."""
    before = {name: value for name, value, _ in leaves(old)}
    return [
        f"{flag(name)} is {value!r}, was {before[name]!r}"
        for name, value, metadata in leaves(new)
        if value != before[name] and not metadata.get("may_differ_on_resume")
    ]


def config_folders() -> list[Path]:
    """Where named configs lie: inside the installed package, or beside the packages in a checkout."""
    package = Path(__file__).parents[1]
    return [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]


def config_names() -> list[str]:
    """Names `load_config` knows without a path."""
    return sorted({path.stem for folder in config_folders() for path in folder.glob("*.yaml")})


def load_config(name_or_path: str | Path) -> Config:
    """A config file by path, or a shipped one by name. Raises ConfigError."""
    path = Path(name_or_path)
    if path.is_file():
        return Config.from_yaml(path)
    for folder in config_folders():
        shipped = folder / f"{path.name.removesuffix('.yaml')}.yaml"
        if len(path.parts) == 1 and shipped.is_file():
            return Config.from_yaml(shipped)
    names = config_names()
    hint = close_match(path.stem, names)
    raise ConfigError([f"is neither a file nor a shipped config{hint}"], str(name_or_path))
