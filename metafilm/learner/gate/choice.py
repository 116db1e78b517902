"""From held-out evidence to each task's deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from metafilm import film
from metafilm.film import FilmDict
from metafilm.learner.gate.folds import counts, folds, with_unused_views
from metafilm.learner.gate.gate import ENCODER, IDENTITY, Gate, Move, leads, paired
from metafilm.learner.gate.report import Candidate, Report


@torch.no_grad()
def choose(
    learner: Any,
    gate: Gate,
    episode: Episode,
    steps: int,
    known: Mapping[str, FilmDict],
    encoder_episode: Episode | None = None,
) -> tuple[FilmDict, list[Report]]:
    """Each of T tasks' deviations ``[T, C]``, without a graph, and why.

    From two images a class on, each half of the support adapts (through the task encoder too) and is scored
    on the other half: steps scored on the images that they were taken on flatter themselves. With one image a
    class the whole support adapts, and copies of it that no step has seen are scored; where they are all
    named rightly before the first step, no step is taken. The whole support then
    takes as many steps as were chosen, and none are taken where none pay; all in all less than three times
    the work of K plain steps, where held-out images have no copies of their own (``query_copies``).

    Args:
        learner: a :class:`metafilm.MetaFiLM` in evaluation mode, no regression.
        gate: its settings.
        episode: T tasks.
        steps: K, the most steps.
        known: stage -> deviations of the whole support ``[T, C]``, where they are there already: ``identity``
            (``{}``), ``encoder`` where there is one, and any steps of factor 1.
        encoder_episode: whose support the task encoder reads, where not the task's own.
    """
    sizes = counts(episode.support_labels, episode.ways)
    if not (sizes == sizes[0]).all():
        parts = [
            choose(
                learner,
                gate,
                episode.select(task),
                steps,
                {name: rows(found, slice(task, task + 1)) for name, found in known.items()},
                None if encoder_episode is None else encoder_episode.select(task),
            )
            for task in range(episode.tasks)
        ]
        joined = {name: torch.cat([found[name] for found, _ in parts]) for name in parts[0][0]}
        return joined, [report for _, (report,) in parts]
    moves = gate.moves(steps, ENCODER.name in known)
    known = dict(known)
    if by_folds := bool(sizes.max() > 1):
        scores, right = _by_folds(learner, episode, moves, encoder_episode)
    else:
        known |= _along(learner, episode, _start(known), [move for move in moves if move.name not in known])
        scores, right = _by_views(learner, gate, episode, [known[move.name] for move in moves])
    chosen = []
    for task in range(episode.tasks):
        candidates = scores[:, task]
        still = sum(not move.steps for move in moves)
        if not by_folds and bool(right[still - 1, task].min() == 1):
            candidates = candidates[:still]  # steps raise the lead of copies at home too, and lose there
        chosen.append(moves[gate.decide(candidates)])
    reports = [
        Report(
            tuple(
                Candidate(
                    move.name,
                    *paired(scores[number, task] - scores[0, task]),
                    accuracy=100 * float(right[number, task].mean()),
                )
                for number, move in enumerate(moves)
            ),
            chosen[task].name,
            "folds" if by_folds else "views",
            scores.shape[-1],
            gate.margin,
        )
        for task in range(episode.tasks)
    ]
    return _taken(learner, episode, chosen, known), reports


def _by_folds(
    learner: Any, episode: Episode, moves: Sequence[Move], encoder_episode: Episode | None
) -> tuple[Tensor, Tensor]:
    """Leads and correctness ``[moves, T, n]`` of the images of both halves."""
    logits, labels = [], []
    for fold in folds(episode):
        known: dict[str, FilmDict] = {IDENTITY.name: {}}
        if ENCODER in moves:
            known[ENCODER.name] = learner.encoded(encoder_episode or fold)[0]
        known |= _along(learner, fold, _start(known), [move for move in moves if move.steps])
        logits.append(_logits(learner, fold, [known[move.name] for move in moves]))
        labels.append(fold.query_labels)
    return _scored(torch.cat(logits, 2), torch.cat(labels, 1))


def _by_views(learner: Any, gate: Gate, episode: Episode, films: Sequence[FilmDict]) -> tuple[Tensor, Tensor]:
    """The same ``[moves, T, S]`` of unused copies, a mean over the copies of each image."""
    images = learner.unit(episode.support_images)
    seen = with_unused_views(episode, images, gate.views, learner.view_augment)
    shape = (gate.views, episode.support_labels.shape[1])
    scores, right = _scored(_logits(learner, seen, films), seen.query_labels)
    return scores.unflatten(-1, shape).mean(2), right.unflatten(-1, shape).mean(2)


def _logits(learner: Any, episode: Episode, films: Sequence[FilmDict]) -> Tensor:
    """Of the queries under each of the deviations, ``[films, T, Q, ways]`` float64."""
    return torch.stack([found for found, _ in learner.predictions(episode, films)]).double()


def _scored(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The leads of the right classes ``[moves, T, n]``, and 1 where right."""
    labels = labels.expand(len(logits), -1, -1)
    return leads(logits, labels), (logits.argmax(-1) == labels).double()


def _along(learner: Any, episode: Episode, start: FilmDict, moves: Sequence[Move]) -> dict[str, FilmDict]:
    """Deviations at each of these numbers of steps, taken as they pass."""
    found: dict[str, FilmDict] = {}
    for factor in dict.fromkeys(move.factor for move in moves):
        names = {move.steps: move.name for move in moves if move.factor == factor}
        path = learner.trajectory(episode, start, max(names), factor=factor)
        found |= {names[count]: now for count, now in enumerate(path, 1) if count in names}
    return found


def _taken(learner: Any, episode: Episode, chosen: Sequence[Move], known: Mapping[str, FilmDict]) -> FilmDict:
    """Each task's deviations by its own choice; those that choose the same step size step together."""
    zeros = film.zeros(learner.backbone, episode.tasks)
    whole = {name: found or zeros for name, found in known.items()}
    start = _start(known)
    taken: dict[int, FilmDict] = {}
    missing = [task for task, move in enumerate(chosen) if move.name not in known]
    for factor in dict.fromkeys(chosen[task].factor for task in missing):
        tasks = [task for task in missing if chosen[task].factor == factor]
        mine = torch.tensor(tasks, device=episode.device)
        some = tasks != list(range(episode.tasks))
        part = Episode.cat([episode.select(task) for task in tasks]) if some else episode
        moves = list(dict.fromkeys(chosen[task] for task in tasks))
        found = _along(learner, part, rows(start, mine), moves)
        taken |= {task: rows(found[chosen[task].name], slice(i, i + 1)) for i, task in enumerate(tasks)}
    for task, move in enumerate(chosen):
        taken.setdefault(task, rows(whole.get(move.name, zeros), slice(task, task + 1)))
    return {name: torch.cat([taken[task][name] for task in range(episode.tasks)]) for name in zeros}


def _start(known: Mapping[str, FilmDict]) -> FilmDict:
    """Where steps begin."""
    return known.get(ENCODER.name, known[IDENTITY.name])


def rows(found: FilmDict, which: slice | Tensor) -> FilmDict:
    """The deviations of some of the tasks."""
    return {name: value[which] for name, value in found.items()}
