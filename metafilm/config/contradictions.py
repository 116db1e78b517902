"""What settings ask of each other."""

from collections.abc import Iterator

from metafilm import heads
from metafilm.config.messages import flag
from metafilm.config.settings import REGRESSION_DATA, Data, Encoder, Episodes, Film, Head, Inner, Outer

Problem = tuple[str, str]
"""A setting's name and what is wrong with it, e.g. ("film.sites", "none leaves ...")."""


def of_film(film: Film, encoder: Encoder, inner: Inner) -> Iterator[Problem]:
    if film.sites != "none":
        return
    if encoder.enabled:
        yield "film.sites", "none leaves the task encoder nothing to predict; add --encoder.enabled False"
    if inner.steps or inner.evaluation_steps:
        yield "film.sites", "none leaves the inner loop nothing to adapt; add --inner.steps 0"


def of_head(head: Head, data: Data, episodes: Episodes, outer: Outer) -> Iterator[Problem]:
    kind = heads.HEADS[head.name]
    regression = data.name in REGRESSION_DATA
    if regression != kind.regression:
        yield "head.name", f"{head.name} does not fit --data.name {data.name}"
    if regression and outer.auxiliary:
        yield "outer.auxiliary", "must be 0 for functions: they have no classes to tell apart"
    # a classifier that isn't fitted to the support has one learned output per class
    fixed = not kind.uses_support and not kind.regression
    if fixed and isinstance(episodes.ways, tuple):
        yield "episodes.ways", f"must be one number for the {head.name} head, whose outputs are fixed"


def of_outer(outer: Outer, episodes: Episodes) -> Iterator[Problem]:
    for name in ("task_chunk", "query_chunk"):
        value, most = getattr(outer, name), outer.meta_batch
        if value is not None and value > most:
            yield f"outer.{name}", f"must not exceed {flag('outer.meta_batch')} ({most}), is {value}"
    for name in ("ways", "shots"):
        if outer.compile and isinstance(getattr(episodes, name), tuple):
            yield f"episodes.{name}", "must be one number with --outer.compile: each shape compiles anew"
