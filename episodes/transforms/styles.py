"""A style per episode: a mixture of styles made from any image pool.

Every image of a task passes the same filter, so that tasks differ by style as the parts of Art-Multi do
(Yao et al., "Automated Relational Meta-learning", 2020), without new data.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.errors import EpisodesError
from episodes.transforms.filters import FILTERS, KNOWN, PARAMETERS, UNSEEN, VALIDATION
from episodes.transforms.pens import StrokeStyle
from episodes.transforms.protocols import Transform, checked_tasks


class Styles:
    """A per-episode transform: each task through one filter, drawn uniformly from those named.

    names: filters by name, from `FILTERS`; a single one fixes the style. Grey images may pass every filter;
    those that only change colours (channel-permutation, grey, hue-rotation, sepia, tint) leave them as they
    are.

    Raises EpisodesError for no names or unknown ones.
    """

    num_uniforms = 1 + PARAMETERS  # which filter, its parameters

    def __init__(self, names: Sequence[str]) -> None:
        self.names = (names,) if isinstance(names, str) else tuple(names)
        unknown = [name for name in self.names if name not in FILTERS]
        if unknown or not self.names:
            raise EpisodesError(
                f"unknown filters {unknown} in {list(self.names)}: choose from {', '.join(FILTERS)}"
            )

    def __repr__(self) -> str:
        return f"Styles({self.names})"

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """Images [T, n, C, H, W] float32 in [0, 1], uniforms [T, num_uniforms] -> new images of the same
        shape."""
        uniforms = checked_tasks(images, uniforms, self.num_uniforms, "Styles filters")
        chosen = self.choice(uniforms)
        styled = torch.empty_like(images)
        for number in chosen.unique().tolist():
            tasks = (chosen == number).nonzero().squeeze(1)
            styled[tasks] = FILTERS[self.names[number]](images[tasks], uniforms[tasks, 1:])
        return styled

    def choice(self, uniforms: Tensor) -> Tensor:
        """Which of `names` each task gets: int64 [T] from uniforms [T, num_uniforms]."""
        return (uniforms[:, 0] * len(self.names)).long().clamp_max(len(self.names) - 1)


BY_NAME: dict[str, Callable[[], Transform | None]] = {
    "none": lambda: None,
    "known-filters": lambda: Styles(tuple(KNOWN)),
    "validation-filters": lambda: Styles(tuple(VALIDATION)),
    "unseen-filters": lambda: Styles(tuple(UNSEEN)),
    "known-strokes": lambda: StrokeStyle("known"),
    "validation-strokes": lambda: StrokeStyle("validation"),
    "unseen-strokes": lambda: StrokeStyle("unseen"),
    "plain-strokes": lambda: StrokeStyle("plain"),
    **{name: partial(Styles, (name,)) for name in FILTERS},
}


def by_name(name: str) -> Transform | None:
    """The per-episode transform of that name; None for "none".

    "known-filters" (eight, for training), "validation-filters" (four others, on which settings are chosen)
    and "unseen-filters" (seven more, for the test alone) are for any image pool; "known-strokes",
    "validation-strokes", "unseen-strokes" and "plain-strokes" draw the generated strokes
    (`episodes.transforms.pens.StrokeStyle`). The name of a single filter serves too.
    Raises EpisodesError for any other.
    """
    if name not in BY_NAME:
        raise EpisodesError(f"no style is called {name!r}: choose one of {', '.join(BY_NAME)}")
    return BY_NAME[name]()


def unseen_counterpart(name: str) -> str | None:
    """The style kept for the test of one trained in "known-..." styles, as a name for `by_name`; None for
    any other."""
    return name.replace("known-", "unseen-", 1) if name in ("known-filters", "known-strokes") else None
