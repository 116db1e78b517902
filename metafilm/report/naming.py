"""What a task's classes, groups and kind are called."""

from __future__ import annotations

from collections import Counter

from episodes import CriterionSampler, Episode
from metafilm.config.sources import Source


class Names:
    """Names of what a source's episodes count: classes of pools, or values of the criterion's attribute."""

    def __init__(self, source: Source) -> None:
        self.pools = source.pools
        self.domains: tuple[str, ...] = tuple(getattr(source.sampler, "domains", ()))
        sampler = source.sampler
        self.attributes = None
        if isinstance(sampler, CriterionSampler):
            known = {attribute.name: attribute for attribute in sampler.pool.attributes}
            self.attributes = [known[name] for name in sampler.criteria]

    def of(self, task: Episode) -> list[str]:
        """The name of each label of one task."""
        if task.class_ids is None:
            return [str(label) for label in range(task.ways)]
        which = 0 if task.pool_ids is None else int(task.pool_ids[0])
        numbers = task.class_ids[0].tolist()
        if self.attributes is not None:
            return [self.attributes[which].value_names[number] for number in numbers]
        names = [self.pools[which].class_names[number] for number in numbers]
        return names if len(self.pools) < 2 else [f"{self.domains[which]}: {name}" for name in names]

    def groups_of(self, task: Episode) -> list[str] | None:
        """The group of each label of one task; of a mixture the data set where classes have no groups. None
        where there is nothing of the kind."""
        if task.class_ids is None or self.attributes is not None or not self.pools:
            return None
        which = 0 if task.pool_ids is None else int(task.pool_ids[0])
        pool = self.pools[which]
        if pool.groups is None:
            return None
        return [pool.group_names[int(pool.groups[number])] for number in task.class_ids[0].tolist()]

    def kind(self, task: Episode) -> str:
        """What one task is of: its data set or criterion where there are several, else the group that all its
        classes are of, else nothing."""
        if task.pool_ids is not None and len(self.domains) > 1:
            return self.domains[int(task.pool_ids[0])]
        groups = self.groups_of(task)
        if groups is None:
            return ""
        (name, count), *_ = Counter(groups).most_common(1)
        return name if count == task.ways else ""
