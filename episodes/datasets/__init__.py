"""The data sets, each in a file of its own, and what they share: registry, splits, cache of pools."""

from episodes.datasets import scenes
from episodes.datasets.registry import DATASETS, DataSet, dataset, load
from episodes.datasets.scenes import sort_of_clevr
from episodes.datasets.splits import check_disjoint, published_split, seeded_split

__all__ = [
    "DATASETS",
    "DataSet",
    "check_disjoint",
    "dataset",
    "load",
    "published_split",
    "scenes",
    "seeded_split",
    "sort_of_clevr",
]
