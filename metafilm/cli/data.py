"""`metafilm data`: what data sets there are, fetching them, checking them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import episodes
from episodes.files.root import printable
from metafilm.errors import MetafilmError


def list_all(root: Path | None) -> int:
    """Print where data sets lie and a line about each."""
    print(f"data root: {episodes.data_root(root)}")
    width = max(map(len, episodes.DATASETS))
    for entry in episodes.DATASETS.values():
        schemes = f"; schemes {', '.join(entry.schemes)}" if entry.schemes else ""
        splits = f" [{', '.join(entry.splits)}{schemes}]" if entry.splits else ""
        print(f"{entry.name:{width}}  {entry.description}{splits}")
    print(f"{'folder:PATH':{width}}  your own pictures, a folder per class")
    return 0


def prepare(name: str | None, root: Path | None) -> int:
    """Fetch or build a data set. Raises MetafilmError without a name, EpisodesError."""
    return _of_each_split("prepare", name, lambda entry: entry.prepare(root))


def check(name: str | None, root: Path | None) -> int:
    """Compare a data set with what it should be. Raises MetafilmError without a name, EpisodesError."""
    return _of_each_split("check", name, lambda entry: entry.check(root))


def _of_each_split(action: str, name: str | None, lines: Callable[[episodes.DataSet], list[str]]) -> int:
    if name is None:
        raise MetafilmError(f"metafilm data {action} needs a data set; metafilm data list shows them")
    entry = episodes.dataset(name)
    if entry.functions:
        print(f"{printable(name)} is generated while it is used: there is nothing to {action}")
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = lines(entry)
    for warning in caught:
        print(f"warning: {printable(str(warning.message))}")
    for line in found:
        print(f"{printable(name)} {line}")
    return 0
