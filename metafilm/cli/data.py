"""`metafilm data`: what data sets there are, fetching them, checking them."""

import warnings
from pathlib import Path

import episodes
from metafilm.errors import MetafilmError


def data(action: str, name: str | None, root: Path | None) -> int:
    """List all data sets, or prepare or check one. Raises MetafilmError without a name, EpisodesError."""
    if action == "list":
        print(f"data root: {episodes.data_root(root)}")
        width = max(map(len, episodes.DATASETS))
        for entry in episodes.DATASETS.values():
            schemes = f"; schemes {', '.join(entry.schemes)}" if entry.schemes else ""
            splits = f" [{', '.join(entry.splits)}{schemes}]" if entry.splits else ""
            print(f"{entry.name:{width}}  {entry.description}{splits}")
        print(f"{'folder:PATH':{width}}  your own pictures, a folder per class")
        return 0
    if name is None:
        raise MetafilmError(f"metafilm data {action} needs a data set; metafilm data list shows them")
    entry = episodes.dataset(name)
    if not entry.splits:
        print(f"{name} is generated while it is used: there is nothing to {action}")
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = entry.prepare(root) if action == "prepare" else entry.check(root)
    for warning in caught:
        print(f"warning: {warning.message}")
    for line in lines:
        print(f"{name} {line}")
    return 0
