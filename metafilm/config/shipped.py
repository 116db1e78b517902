"""Configurations by name: the YAML files that come with the package."""

from pathlib import Path

from metafilm.config.config import Config
from metafilm.config.messages import close_match
from metafilm.errors import ConfigError


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
