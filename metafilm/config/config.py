"""Every setting of a run as one frozen object, read strictly and checked all at once.

The same names serve as YAML keys (`outer: {meta_batch: 4}`), as command-line flags (`--outer.meta-batch 4`)
and in error messages; hyphens and underscores are the same. `configs/*.yaml` hold only what differs from the
defaults.
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from metafilm.config import contradictions
from metafilm.config.messages import flag, shown
from metafilm.config.settings import (
    Backbone,
    Data,
    Encoder,
    Episodes,
    Evaluation,
    Film,
    Head,
    Inner,
    Outer,
    Pretrain,
    Tracking,
)
from metafilm.config.settings.checks import Text, Whole, at_least
from metafilm.config.strict import free, from_mapping, leaves, section, to_mapping
from metafilm.config.yamlfile import read_yaml, to_yaml
from metafilm.errors import ConfigError

__all__ = ["Config", "resume_differences"]


def folder_name(value: str) -> str:
    if not value or "/" in value or value in (".", ".."):
        raise ValueError(f"must be a plain name that can be a folder's, is {shown(value)}")
    return value


@section()
class Config:
    """Everything a run depends on.

    No field holds an impossible value. Whether the sections fit each other is asked by `validate` and by all
    that reads settings, not by the constructor, so that `replace` may change one section after the other.
    """

    name: Annotated[Text, AfterValidator(folder_name)] = "run"
    """Name of the run; its default directory is runs/NAME."""
    seed: Annotated[Whole, at_least(0)] = 0
    """Seed of the weights and of the episodes."""
    threads: Annotated[Whole, at_least(0)] = free(0)
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
    pretrain: Pretrain = field(default_factory=Pretrain)
    outer: Outer = field(default_factory=Outer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)

    @classmethod
    def from_dict(cls, settings: object, source: str = "configuration") -> "Config":
        """From nested plain mappings; a missing key takes its default.

        Raises ConfigError listing every unknown key, wrong type, impossible value and contradiction.
        """
        problems: list[str] = []
        config = from_mapping(cls, settings, problems)
        # what a setting's default contradicts says nothing where the setting's own value is wrong
        known = {problem.split(" ", 1)[0] for problem in problems}
        problems += [text for text in config.problems() if text.split(" ", 1)[0] not in known]
        if problems:
            raise ConfigError(problems, source)
        return config

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Config":
        """From a YAML file. Raises ConfigError naming the file, see `from_dict`."""
        return cls.from_dict(read_yaml(path), source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain mappings, ready for JSON and YAML; `from_dict` gives the same config back."""
        return to_mapping(self)

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML text."""
        return to_yaml(self.to_dict())

    def validate(self, source: str = "configuration") -> "Config":
        """Returns itself; raises ConfigError listing every contradiction."""
        problems = self.problems()
        if problems:
            raise ConfigError(problems, source)
        return self

    def reached(self, iteration: int) -> str:
        """Where a run is, in its stage's own count: the classification stage's iterations count up to 0."""
        if iteration < 0:
            total = self.pretrain.iterations
            return f"iteration {total + iteration} of {total} of the classification stage"
        return f"iteration {iteration} of {self.outer.iterations}"

    def require_beginnable(self) -> None:
        """Raise ConfigError for settings that a run can have and none is begun with any more."""
        found = contradictions.of_beginning(
            self.data, self.episodes, self.backbone, self.pretrain, self.outer, self.head
        )
        if problems := [f"{flag(name)} {text}" for name, text in found]:
            raise ConfigError(problems, "configuration")

    def problems(self) -> list[str]:
        """Settings that contradict each other, one line each, naming the flag."""
        found = [
            *contradictions.of_data(self.data, self.episodes),
            *contradictions.of_modulation(self.film, self.encoder, self.inner, self.outer),
            *contradictions.of_adapting_all(self.inner, self.outer),
            *contradictions.of_film(self.film, self.encoder, self.inner, self.outer),
            *contradictions.of_encoder(self.encoder, self.data, self.outer),
            *contradictions.of_head(
                self.head, self.backbone, self.data, self.episodes, self.outer, self.evaluation
            ),
            *contradictions.of_criteria(self.data, self.episodes, self.outer),
            *contradictions.of_mixture(self.data, self.episodes, self.outer),
            *contradictions.of_outer(self.outer, self.episodes, self.inner),
            *contradictions.of_freeze(self.outer, self.encoder, self.inner),
            *contradictions.of_gate(self.head, self.encoder, self.inner),
            *contradictions.of_adapt(self.evaluation, self.encoder, self.inner),
            *contradictions.of_backbone(self.backbone, self.outer),
            *contradictions.of_plain(
                self.pretrain, self.outer, self.data, self.episodes, self.backbone, self.head
            ),
        ]
        return [f"{flag(name)} {what}" for name, what in found]


def resume_differences(old: Config, new: Config) -> list[str]:
    """Settings in which `new` may not differ from the run it would resume, e.g. `--seed is 1, was 0`."""
    before = {name: value for name, value, _ in leaves(old)}
    return [
        f"{flag(name)} is {value!r}, was {before[name]!r}"
        for name, value, metadata in leaves(new)
        if value != before[name] and not metadata.get("may_differ_on_resume")
    ]
