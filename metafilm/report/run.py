"""The report of a run: what there is, section by section, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from episodes import Episode, EpisodesError
from episodes.episode import shape_in_words
from metafilm.config.config import Config
from metafilm.config.sources import Source, evaluation_source
from metafilm.errors import MetafilmError
from metafilm.learner.learner import MetaFiLM
from metafilm.report import sections, training
from metafilm.report.found import Found
from metafilm.report.naming import Names
from metafilm.report.page.document import Section, note, page, tiles
from metafilm.report.page.html import tag
from metafilm.report.scored import Scored, adapted_films, columns_of, score
from metafilm.report.worst import worst


@dataclass
class Asked:
    """Which tasks to score: of this learner, by these settings, from this source."""

    learner: MetaFiLM
    config: Config
    source: Source
    split: str
    episodes: int
    seed: int = 0


def run_report(found: Found, asked: Asked | None, progress: bool | None = None) -> str:
    """The page about a run.

    Args:
        found: what there is of it (:func:`metafilm.report.found.find`).
        asked: the tasks to score; None: the page does without, and ``found.missing`` should say why.
        progress: show a bar: True, False, or when it lasts and somebody looks (None).

    Raises:
        NotFinite: the weights or their predictions are not finite.
    """
    scored = names = None
    if asked is not None:
        names = Names(asked.source)
        scored = score(asked.learner, asked.source, asked.episodes, names, progress)
    parts: list[Section] = []
    if scored is not None and asked is not None and names is not None:
        parts.append(sections.accuracy(scored, names.domains))
    if found.run is not None:
        parts.append(training.curves(found))
    over_training = training.deviations_over_training(found.metrics)
    if scored is not None and asked is not None and names is not None:
        parts.append(sections.deviations(scored, columns_of(asked.learner), over_training))
        parts.append(mapped(asked, scored, names))
        if not scored.regression:
            parts += [sections.calibration(scored), sections.confusion(scored)]
        parts.append(worst(scored, names))
    elif over_training:
        parts.append(Section("Deviations", "Deviations", [tag("div", over_training, class_="grid2")]))
    parts.append(training.record(found, [] if asked is None or scored is None else evaluated(asked, scored)))
    title = found.config.name if found.config is not None else str(found.name)
    lead: list[Any] = [tag("p", subtitle(found, asked))]
    if scored is not None:
        lead.append(tiles(figures(scored)))
    lead += [note(text) for text in found.missing]
    return page(f"{title}: report", lead, parts)


def subtitle(found: Found, asked: Asked | None) -> str:
    """What was trained on what, in a line."""
    config = found.config or (asked.config if asked else None)
    if config is None:
        return found.name
    data = " + ".join(dict.fromkeys(config.data.names))
    said = f"{config.backbone.name} on {data}"
    if asked is None:
        return said
    one = asked.source.sampler.batch([0])
    shape = shape_in_words(one.ways, one.shots)
    return f"{said}. {asked.episodes} {shape} tasks of the {asked.split} split were scored for this page."


def figures(scored: Scored) -> list[tuple[str, str, str]]:
    """The few that count."""
    found = scored.scores()
    digits, unit = (4, "") if scored.regression else (1, " %")
    value, half = found[scored.measure], found["ci95"]
    gain, error = found["gain_by_step"][scored.farthest], found["gain_ci95_by_step"][scored.farthest]
    name = "Mean squared error" if scored.regression else "Accuracy"
    shown = [(name, f"{value:.{digits}f}{unit}", f"± {half:.{digits}f} over {len(scored.rows)} tasks")]
    if len(scored.stages) > 1:
        digits = max(digits, 2)
        shown.append(("Gain of adaptation", f"{gain:+.{digits}f}", f"± {error:.{digits}f}, paired"))
    if not scored.regression:
        last = list(scored.sure)[-1]
        _, off = sections.calibrated(scored, last)
        shown.append(("Calibration error", f"{off:.1f} %", "expected, 15 bins"))
    films = torch.cat(scored.films)
    if scored.whole and not films.any():
        return shown
    size = float(films.square().mean().sqrt()) if films.numel() else 0.0
    shown.append(("Size of a task's δ", f"{size:.3f}", f"root mean square of {films.shape[1]}"))
    return shown


def mapped(asked: Asked, scored: Scored, names: Names) -> Section:
    """The map of the scored tasks, or, where classes have groups and no task is of one alone, of as many
    tasks whose classes are all of one group."""
    if len(names.domains) > 1 and len(set(scored.pools)) > 1:
        kinds = [names.domains[pool] for pool in scored.pools]
        what = "criterion" if names.attributes is not None else "data set"
        said = [f"task {i}: {kind}" for i, kind in enumerate(kinds)]
        return sections.task_map(torch.cat(scored.films), kinds, said, what, scored.whole)
    sampler = _grouped(asked)
    if sampler is not None:
        films, kinds = adapted_films(asked.learner, sampler, asked.episodes, names.kind)
        said = [f"task {i}: {kind}" for i, kind in enumerate(kinds)]
        return sections.task_map(films, kinds, said, "the group of their classes", scored.whole)
    said = [
        f"task {i}: {row[-1]:.4g}{'' if scored.regression else ' %'}" for i, row in enumerate(scored.rows)
    ]
    kinds = [_level(row[-1], scored) for row in scored.rows]
    what = "error" if scored.regression else "accuracy"
    return sections.task_map(torch.cat(scored.films), kinds, said, what, scored.whole)


def _level(value: float, scored: Scored) -> str:
    """The third of the tasks that a score is in."""
    ranked = sorted(row[-1] for row in scored.rows)
    low, high = ranked[len(ranked) // 3], ranked[2 * len(ranked) // 3]
    return "lowest third" if value < low else "highest third" if value > high else "middle"


def _grouped(asked: Asked) -> Any:
    """A sampler of tasks each within one group; None where the classes have none, or too few."""
    pools = asked.source.pools
    if asked.config.episodes.criteria != "none" or len(pools) != 1 or pools[0].groups is None:
        return None
    one: Episode = asked.source.sampler.batch([0])
    settings = replace(asked.config.episodes, within_group=True)
    try:
        return evaluation_source(
            replace(asked.config, episodes=settings),
            asked.split,
            ways=one.ways,
            shots=one.shots,
            queries=1,
            seed=asked.seed,
            pools=pools,
        ).sampler
    except (EpisodesError, MetafilmError):  # no group has so many classes
        return None


def evaluated(asked: Asked, scored: Scored) -> Sequence[tuple[str, Any]]:
    """How the figures were obtained."""
    return [
        ("weights", str(asked.learner.source)),
        ("fingerprint", asked.learner.fingerprint()),
        ("split", asked.split),
        ("tasks", f"{len(scored.rows)}, seed {asked.seed}"),
        ("protocol", asked.learner.protocol),
        ("wall time", f"{scored.seconds:.1f} s"),
    ]
