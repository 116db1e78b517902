"""One learned δ for all, or none: what every claim of conditioning is held against."""

from __future__ import annotations

import torch
from torch import nn

from metafilm import film
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict


class ConstantEncoder(nn.Module):
    """The same deviations for every task, learned with everything else; zero at the start.

    Where it does as well as a :class:`metafilm.TaskEncoder`, that one has learned one good δ for all tasks
    and reads nothing from their support sets. It costs no pass over the support.

    Args:
        sites: site name -> features C (:func:`metafilm.film.sites`).

    Raises:
        MetafilmError: no sites.
    """

    reads_support = False

    def __init__(self, sites: dict[str, int]) -> None:
        super().__init__()
        if not sites:
            raise MetafilmError(
                "a constant encoder needs at least one FiLM site; set film.sites, or turn the encoder off"
            )
        self.arguments = {"sites": dict(sites)}
        self.names = [name for site in sites for name in film.names(site)]
        self.deviations = nn.ParameterList(
            nn.Parameter(torch.zeros(size)) for size in sites.values() for _ in range(2)
        )

    def forward(self, tasks: int) -> FilmDict:
        """T -> deviations, ``[T, C]`` each."""
        # copies, not views: a task that somebody keeps must not follow the training
        copies = (value.repeat(tasks, 1) for value in self.deviations)
        return dict(zip(self.names, copies, strict=True))


class NoCondition(nn.Module):
    """Whatever the condition, no deviations: the network is blind to it."""

    def forward(self, *_: object) -> FilmDict:
        """Anything -> nothing."""
        return {}
