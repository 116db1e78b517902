"""Augmented copies of the support in evaluation: as if each had been put through by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from episodes import Episode, EpisodeSampler, counter
from episodes.transforms import augment
from metafilm import MetaFiLM, film, norms
from metafilm.backbones import Conv4
from metafilm.errors import ConfigError
from metafilm.evaluation import judge
from metafilm.heads import CosineHead
from metafilm.learner.build import load_learner
from metafilm.learner.copies import SEED, with_copies

N = 3
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def made(make_learner, **sections) -> MetaFiLM:
    sections = {"inner": {"steps": 2}, "evaluation": {"copies": N, "copy_augment": "affine"}} | sections
    return make_learner(**sections).eval()


def double(episode: Episode) -> Episode:
    return replace(
        episode,
        support_images=episode.support_images.double(),
        query_images=episode.query_images.double(),
    )


def by_loop(learner: MetaFiLM, episode: Episode) -> torch.Tensor:
    """Each task's prototypes from its support images and their copies, one image at a time (norms that read
    no other image)."""
    films, logits = learner.adaptation(episode).films[-1], []
    change = augment.by_name("affine")
    assert change is not None
    for task in range(episode.tasks):
        own = {name: value[task : task + 1] for name, value in films.items()}

        def features(image: torch.Tensor, own=own) -> torch.Tensor:
            return learner.features(learner.prepare(image[None, None]), own, 1)[0, 0]

        rows = episode.support_labels.shape[1]
        shape = (N * rows, change.num_uniforms)
        number = np.array([int(episode.index[task])])
        draws = torch.from_numpy(counter.uniforms(SEED, number, counter.Stream.VIEWS, shape))[0]
        members: list[list[torch.Tensor]] = [[] for _ in range(episode.ways)]
        for i in range(rows):
            image, label = episode.support_images[task, i], int(episode.support_labels[task, i])
            members[label].append(features(image))
            for copy in range(N):
                row = copy * rows + i
                members[label].append(features(change(image[None], draws[row : row + 1])[0]))
        points = torch.stack([torch.stack(one).mean(0) for one in members])
        queries = torch.stack([features(image) for image in episode.query_images[task]])
        scale = learner.head.log_scale.exp()
        distances = (queries[:, None] - points[None]).square().sum(-1)
        logits.append(scale * (queries.square().sum(-1, keepdim=True) - distances))
    return torch.stack(logits)


@pytest.mark.parametrize("shots", [1, 2])
def test_prototypes_are_of_the_copies_too(make_learner, make_episode, shots) -> None:
    learner, episode = made(make_learner), double(make_episode(shots=shots))
    found = learner(episode).predictions[-1]
    torch.testing.assert_close(found, by_loop(learner, episode), **EXACT)
    alone = [learner(episode.select(task)).predictions[-1] for task in range(episode.tasks)]
    torch.testing.assert_close(found, torch.cat(alone), **EXACT)


def test_queries_adaptation_and_training_stay(make_learner, make_episode) -> None:
    learner, episode = made(make_learner), double(make_episode())
    twin = made(make_learner, evaluation={})
    twin.load_state_dict(learner.state_dict())
    assert torch.equal(with_copies(learner, episode).query_images, episode.query_images)
    assert with_copies(learner.train(), episode) is episode and with_copies(twin, episode) is episode
    for mode, same in ((True, True), (False, False)):
        one, other = learner.train(mode)(episode), twin.train(mode)(episode)
        for name, value in one.films[-1].items():
            assert torch.equal(value, other.films[-1][name])
        assert torch.equal(one.predictions[-1], other.predictions[-1]) == same


@pytest.mark.parametrize("norm", ["running", "support", "group"])
def test_a_task_is_fitted_to_them(make_learner, make_episode, norm) -> None:
    learner = made(make_learner, backbone={"norm": norm}, head={"name": "cosine"})
    episode = replace(double(make_episode(tasks=1, shots=2)), index=torch.zeros(1, dtype=torch.long))
    expected = learner(episode, gate=False).predictions[-1][0]
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    assert task.shots == [2] * 3, "copies are no shots"
    torch.testing.assert_close(task.logits(episode.query_images[0]), expected, rtol=1e-7, atol=1e-7)


def test_judged_with_them(make_learner, pool) -> None:
    learner = made(make_learner)
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=2, seed=1)
    found = judge(learner.float(), sampler, 4)
    logits = torch.cat([learner(sampler[i]).predictions[-1][0] for i in range(4)])
    torch.testing.assert_close(torch.cat(found.logits), logits, rtol=1e-4, atol=1e-4)


def test_files_keep_the_setting(make_learner, tmp_path) -> None:
    by_parts = MetaFiLM(
        film.insert(Conv4((1, 16, 16), 4)),
        CosineHead(10.0),
        image_shape=(1, 16, 16),
        copies=2,
        copy_augment="crop-flip",
    )
    for learner in (made(make_learner), by_parts):
        learner.save(tmp_path / "model.safetensors")
        again = load_learner(tmp_path / "model.safetensors")
        assert (again.copies, again.copy_augment) == (learner.copies, learner.copy_augment)
    assert norms.mode_of(by_parts.backbone) == "running"


def test_a_head_that_is_not_fitted_has_no_use_for_them(tiny_config) -> None:
    with pytest.raises(ConfigError, match=r"--evaluation\.copies must be 0 for the linear head"):
        tiny_config(head={"name": "linear"}, evaluation={"copies": 2})
