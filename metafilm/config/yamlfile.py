"""YAML files of settings: within limits that are checked while the text is read, and without surprises.

Settings are words, numbers, lists and mappings three levels deep. Whatever else YAML can say (tags, dates,
references that multiply) is refused before anything is built of it.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from metafilm.config.messages import shown
from metafilm.errors import ConfigError, first_line

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_ALIASES = 10
MAX_NODES = 4096
MAX_DIGITS = 100
"""Characters of a number."""


def read_yaml(path: str | Path) -> object:
    """The content of a YAML file. Raises ConfigError naming the file, and the line where there is one."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError([f"can't be read: {first_line(error)}"], str(path)) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError([f"is larger than {MAX_BYTES // 1024} KiB: no file of settings is"], str(path))
    try:
        return yaml.load(text, Loader=StrictLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of escaped characters
        raise ConfigError([f"is not valid YAML: {in_one_line(error)}"], str(path)) from error


def to_yaml(settings: dict[str, Any]) -> str:
    """The text of plain nested settings in their order, which `read_yaml` reads as the same."""
    return yaml.dump(settings, Dumper=StrictDumper, sort_keys=False, allow_unicode=True)


def in_one_line(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return first_line(error)
    mark = error.problem_mark or error.context_mark
    return error.problem + (f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "")


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader within limits; a repeated key is an error, `1e-3` is a number, a date is text.

    YAML 1.1 reads `1e-3` (no dot) as text, which would surprise everyone who writes a learning rate.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.nodes = self.used_aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, made as its text is read: an error here comes before anything below it is looked at."""
        event: Any = self.peek_event()
        self.depth += 1
        self.nodes += 1
        self.used_aliases += isinstance(event, yaml.AliasEvent)
        for found, most, what in (
            (self.depth, MAX_DEPTH, "levels of nesting"),
            (self.nodes, MAX_NODES, "entries"),
            (self.used_aliases, MAX_ALIASES, "references (*name)"),
        ):
            if found > most:
                raise ConstructorError(None, None, f"more than {most:,} {what}", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            problem = f"the tag {shown(tag)} is not taken; write the plain value"
            raise ConstructorError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def unique_mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise ConstructorError(None, None, f"{shown(key)} is set twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def number(loader: StrictLoader, node: yaml.ScalarNode) -> int | float:
    """A whole number or one with a fraction; PyYAML raises ValueError for some that look like numbers."""
    if len(node.value) > MAX_DIGITS:
        problem = f"a number of {len(node.value):,} digits"
        raise ConstructorError(None, None, problem, node.start_mark)
    whole = node.tag.endswith(":int")
    try:
        return loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)
    except ValueError as error:
        raise ConstructorError(None, None, f"{node.value} is no number", node.start_mark) from error


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class StrictDumper(yaml.SafeDumper):
    """PyYAML's safe dumper that puts in quotes what StrictLoader would take for a number, such as `3e-4`."""


for kind in (StrictLoader, StrictDumper):
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique_mapping)
for name in ("int", "float"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{name}", number)
