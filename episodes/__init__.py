"""episodes: where few-shot tasks come from.

pool = episodes.load("omniglot", split="test")
sampler = episodes.EpisodeSampler(pool, ways=5, shots=1, queries=15, seed=0)
episode = sampler[0]  # the same for ever
"""

from typing import TYPE_CHECKING

from episodes.attribute import Attribute
from episodes.criteria import CriterionSampler
from episodes.datasets.registry import DATASETS, DataSet, dataset, load
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.files.root import data_root
from episodes.pool import ClassPool
from episodes.sampler import EpisodeSampler
from episodes.sampling.prefetch import Sampler

if TYPE_CHECKING:
    from episodes.datasets.sinusoids import SinusoidSampler
    from episodes.datasets.strokes import load_strokes
    from episodes.interop import from_dataset, from_taskset, to_dataloader, to_taskset

__all__ = [
    "DATASETS",
    "Attribute",
    "ClassPool",
    "CriterionSampler",
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
    "to_dataloader",
    "to_taskset",
]

_LATER = {
    "SinusoidSampler": "episodes.datasets.sinusoids",
    "from_dataset": "episodes.interop",
    "from_taskset": "episodes.interop",
    "load_strokes": "episodes.datasets.strokes",
    "to_dataloader": "episodes.interop",
    "to_taskset": "episodes.interop",
}


def __getattr__(name: str) -> object:
    """Names that few need are imported when they are first used."""
    if name not in _LATER:
        raise AttributeError(f"module 'episodes' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
