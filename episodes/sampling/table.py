"""A pool's classes as a sampler looks them up."""

import numpy as np

from episodes.pool import ClassPool


class Table:
    """A pool's class boundaries in numpy, and its classes by group."""

    def __init__(self, pool: ClassPool) -> None:
        self.num_classes = pool.num_classes
        self.offsets = pool.offsets.numpy()
        self.counts = pool.counts.numpy()
        if pool.groups is None:
            return
        groups = pool.groups.numpy()
        self.group_sizes = np.bincount(groups, minlength=len(pool.group_names))
        self.members = np.zeros((len(self.group_sizes), int(self.group_sizes.max())), np.int64)
        for group, size in enumerate(self.group_sizes):
            self.members[group, :size] = np.flatnonzero(groups == group)
