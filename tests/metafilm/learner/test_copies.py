"""Augmented copies of support and queries in evaluation: as if each had been put through by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from episodes import Episode, EpisodeSampler, EpisodesError, counter
from episodes.transforms import augment
from metafilm import MetaFiLM, film, norms
from metafilm.backbones import Conv4
from metafilm.errors import ConfigError, MetafilmError
from metafilm.evaluation import judge
from metafilm.heads import CosineHead
from metafilm.learner.build import load_learner
from metafilm.learner.copies import SEED, changed, with_copies
from metafilm.serving import TaskBank, export

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
        query_copies=3,
    )
    for learner in (made(make_learner), made(make_learner, **QUERIES), by_parts):
        learner.save(tmp_path / "model.safetensors")
        again = load_learner(tmp_path / "model.safetensors")
        for name in ("copies", "copy_augment", "query_copies"):
            assert getattr(again, name) == getattr(learner, name)
    assert norms.mode_of(by_parts.backbone) == "running"


def test_a_head_that_is_not_fitted_has_no_use_for_them(tiny_config) -> None:
    with pytest.raises(ConfigError, match=r"--evaluation\.copies must be 0 for the linear head"):
        tiny_config(head={"name": "linear"}, evaluation={"copies": 2})


QUERIES = {"evaluation": {"copies": N, "copy_augment": "affine", "query_copies": 2}}


def logits_by_loop(learner: MetaFiLM, episode: Episode, copies: int = N, of_query: int = 2) -> torch.Tensor:
    """Cosines with each task's prototypes, copy k of every image by transformation k, one image at a time,
    and the mean over the copies of each query (norms that read no other image)."""
    films, logits = learner.adaptation(episode).films[-1], []
    for task in range(episode.tasks):
        own = {name: value[task : task + 1] for name, value in films.items()}

        def features(image: torch.Tensor, copy: int, own=own) -> torch.Tensor:
            seen = changed(image[None], copy, "affine")
            return learner.features(learner.prepare(seen[None]), own, 1)[0, 0]

        members: list[list[torch.Tensor]] = [[] for _ in range(episode.ways)]
        for image, label in zip(episode.support_images[task], episode.support_labels[task], strict=True):
            members[int(label)] += [features(image, copy) for copy in range(1 + copies)]
        points = torch.stack([torch.stack(one).mean(0) for one in members])
        scale = learner.head.log_scale.exp()
        for image in episode.query_images[task]:
            each = [
                scale * torch.cosine_similarity(features(image, copy)[None], points)
                for copy in range(1 + of_query)
            ]
            logits.append(torch.stack(each).mean(0))
    return torch.stack(logits).unflatten(0, (episode.tasks, -1))


@pytest.mark.parametrize("shots", [1, 2])
def test_queries_are_looked_at_several_times(make_learner, make_episode, shots) -> None:
    learner = made(make_learner, head={"name": "cosine"}, **QUERIES)
    episode = double(make_episode(shots=shots))
    found = learner(episode, all_stages=True)
    torch.testing.assert_close(found.predictions[-1], logits_by_loop(learner, episode), **EXACT)
    alone = [learner(episode.select(task)).predictions[-1] for task in range(episode.tasks)]
    torch.testing.assert_close(found.predictions[-1], torch.cat(alone), **EXACT)
    assert all(one.shape == found.predictions[-1].shape for one in found.predictions)


def test_queries_have_copies_without_the_support(make_learner, make_episode) -> None:
    settings = {"evaluation": {"copy_augment": "affine", "query_copies": 2}}
    learner, episode = made(make_learner, head={"name": "cosine"}, **settings), double(make_episode())
    expected = logits_by_loop(learner, episode, copies=0)
    torch.testing.assert_close(learner(episode).predictions[-1], expected, **EXACT)


def test_a_transformation_is_the_same_for_every_image() -> None:
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    both = changed(image.expand(2, -1, -1, -1), 1, "affine")
    assert torch.equal(both[0], both[1]) and not torch.equal(both[:1], image)
    assert torch.equal(changed(image, 0, "affine"), image)
    assert not torch.equal(changed(image, 2, "affine"), both[:1])
    assert torch.equal(changed(image, 1, "none"), image)


def test_queries_have_no_copies_in_training(make_learner, make_episode) -> None:
    learner, episode = made(make_learner, **QUERIES).train(), double(make_episode())
    twin = made(make_learner, evaluation={}).train()
    twin.load_state_dict(learner.state_dict())
    assert torch.equal(learner(episode).predictions[-1], twin(episode).predictions[-1])


@pytest.mark.parametrize("norm", ["running", "support", "group"])
def test_a_task_and_a_bank_look_several_times(make_learner, make_episode, norm) -> None:
    learner = made(make_learner, backbone={"norm": norm}, head={"name": "cosine"}, **QUERIES)
    episode = double(make_episode(tasks=1, shots=2))
    expected = learner(episode, gate=False).predictions[-1][0]
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    queries = episode.query_images[0]
    torch.testing.assert_close(task.logits(queries), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(task.to_module()(queries), expected, rtol=1e-7, atol=1e-7)
    assert task.embed(queries).shape == (len(queries), learner.feature_size)
    bank = TaskBank(learner, batch_size=5)
    several = bank.extend([task, learner.adapt(queries[:4], [0, 1, 0, 1])])
    found = bank.logits(queries, [several[i % 2] for i in range(len(queries))])
    torch.testing.assert_close(found[::2], expected[::2], rtol=1e-7, atol=1e-7)
    assert bool((found[1::2, 2] == -torch.inf).all()) and bool(found[1::2, :2].isfinite().all())
    learner.train()  # a task and a bank are used, whatever goes on beside them
    torch.testing.assert_close(task.logits(queries), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(bank.logits(queries[:1], several[:1]), expected[:1], rtol=1e-7, atol=1e-7)


def test_familiarity_is_the_mean_over_the_looks(make_learner, make_episode, pool) -> None:
    learner = made(make_learner, head={"name": "cosine"}, **QUERIES)
    episode = double(make_episode(tasks=1, shots=2))
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    queries = episode.query_images[0]
    found = task.familiarity(queries)
    before = task.logits(queries)
    learner.query_copies = 0
    assert not torch.equal(task.logits(queries), before), "a task looks as often as its learner does now"
    each = [task.familiarity(changed(queries, copy, "affine")) for copy in range(3)]
    learner.query_copies = 2
    torch.testing.assert_close(found, torch.stack(each).mean(0), **EXACT)
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=2, seed=1)
    judged = judge(learner.float(), sampler, 4)
    logits = torch.cat([learner(sampler[i]).predictions[-1][0] for i in range(4)])
    torch.testing.assert_close(torch.cat(judged.logits), logits, rtol=1e-4, atol=1e-4)
    one = sampler[0]
    task = learner.adapt(one.support_images[0], one.support_labels[0].tolist())
    torch.testing.assert_close(judged.known[0], task.familiarity(one.query_images[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("shift", ".pt2"),
        ("crop-flip-jitter", ".pt2"),
        ("affine", ".onnx"),
        ("handwriting", ".pt2"),
        ("handwriting", ".onnx"),
        ("crop-flip-jitter", ".onnx"),
    ],
)
def test_an_exported_network_looks_several_times(make_learner, make_episode, tmp_path, name, suffix) -> None:
    settings = {"copies": 2, "copy_augment": name, "query_copies": 2}
    learner = made(make_learner, evaluation=settings).float()
    episode = make_episode(tasks=1, shots=2)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    written = export(task, tmp_path / f"task{suffix}", episode.query_images[0])
    assert written.largest_difference is not None and written.largest_difference < 1e-4


def test_points_have_no_copies(tiny_config) -> None:
    with pytest.raises(ConfigError, match=r"--evaluation\.query-copies must be 0"):
        tiny_config(
            data={"name": "sinusoids"},
            backbone={"name": "mlp"},
            head={"name": "regression"},
            evaluation={"query_copies": 2},
        )


@pytest.mark.parametrize("name", ["affine", "crop-flip-jitter"])
def test_no_images_have_no_copies_and_no_answers(make_learner, make_episode, name) -> None:
    learner = made(make_learner, evaluation={"copy_augment": name, "query_copies": 2})
    episode = double(make_episode(tasks=1, shots=2))
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    none = episode.query_images[0][:0]
    assert task.logits(none).shape == (0, 3) and task.predict(none) == []
    assert task.familiarity(none).shape == (0,)
    bank = TaskBank(learner)
    bank.add(task)
    assert len(bank.logits(none, [])) == 0


def test_images_of_half_precision_are_changed_in_the_learners(make_learner, make_episode) -> None:
    learner = made(make_learner, **QUERIES).float()
    episode = make_episode(tasks=1, shots=2)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    bank, queries = TaskBank(learner), episode.query_images[0].half()
    expected = task.logits(queries.float())
    numbers = [bank.add(task)] * len(queries)
    for found in (task.logits(queries), bank.logits(queries, numbers)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert task.familiarity(queries).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"query_copies": -1}, "query_copies -1 must be a whole number, 0 or more"),
        ({"copies": 1.5}, r"copies 1\.5 must be a whole number"),
        ({"copy_augment": "afine"}, "no augmentation is called 'afine'"),
    ],
)
def test_what_no_copies_are_made_by_is_refused(settings, said) -> None:
    backbone = film.insert(Conv4((1, 16, 16), 4))
    with pytest.raises((MetafilmError, EpisodesError), match=said):
        MetaFiLM(backbone, CosineHead(10.0), image_shape=(1, 16, 16), **settings)


def test_a_gate_judges_by_what_is_looked_at(make_learner, make_episode) -> None:
    learner = made(make_learner, inner={"steps": 2, "gate": True}, **QUERIES)
    episode = double(make_episode(tasks=1, shots=2))
    found = learner(episode)
    assert found.stages[-1] == "gate" and found.predictions[-1].shape[1] == episode.query_images.shape[1]
