"""episodes: where few-shot tasks come from.

pool = episodes.load("omniglot", split="test")
sampler = episodes.EpisodeSampler(pool, ways=5, shots=1, queries=15, seed=0)
episode = sampler[0]  # the same for ever
"""

from typing import TYPE_CHECKING

from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.files.root import data_root
from episodes.pool import ClassPool
from episodes.registry import DATASETS, DataSet, dataset, load
from episodes.sampler import EpisodeSampler
from episodes.sampling.prefetch import Sampler

if TYPE_CHECKING:
    from episodes.interop import from_dataset, from_taskset, to_taskset
    from episodes.sinusoids import SinusoidSampler
    from episodes.strokes import load_strokes

__all__ = [
    "DATASETS",
    "ClassPool",
    "DataSet",
    "Episode",
    "EpisodeSampler",
    "EpisodesError",
    "Sampler",
    "SinusoidSampler",
    "data_root",
    "dataset",
    "from_dataset",
    "from_taskset",
    "load",
    "load_strokes",
    "to_taskset",
]

_LATER = {
    "SinusoidSampler": "episodes.sinusoids",
    "from_dataset": "episodes.interop",
    "from_taskset": "episodes.interop",
    "load_strokes": "episodes.strokes",
    "to_taskset": "episodes.interop",
}


def __getattr__(name: str) -> object:
    """Names that few need are imported when they are first used."""
    if name not in _LATER:
        raise AttributeError(f"module 'episodes' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
