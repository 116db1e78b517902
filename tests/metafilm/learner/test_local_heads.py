"""Learners whose head compares the cells of maps: training, gate, tasks, banks and files."""

import pytest
import torch

from episodes import EpisodeSampler
from metafilm import TaskBank
from metafilm.config.sources import Source
from metafilm.errors import ConfigError, MetafilmError
from metafilm.learner.build import load_learner
from metafilm.learner.task import Task
from metafilm.training.outer_gradient import accumulate
from metafilm.training.plain import Pretraining

NAMES = ["descriptors", "reconstruction"]
SHAPE = (1, 32, 32)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def made(make_learner, name: str, **sections):
    sections = {"inner": {"steps": 2, "step_size": 0.05}} | sections
    return make_learner(shape=SHAPE, head={"name": name}, **sections)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shots", [1, 3])
def test_meta_gradient_and_tasks_apart(make_learner, make_episode, outer_loss, name, shots) -> None:
    learner = made(make_learner, name).train()
    assert learner.head.channels == 4 and learner.feature_size == 16
    episode = make_episode(shots=shots, shape=SHAPE)
    together = learner(episode)
    alone = [learner(episode.select(task)) for task in range(3)]
    found = torch.cat([one.predictions[-1] for one in alone])
    torch.testing.assert_close(together.predictions[-1], found, **EXACT)
    assert max(float(value.detach().abs().max()) for value in together.films[-1].values()) > 0
    learned = learner.outer_parameters()
    expected = torch.autograd.grad(outer_loss(learner, episode), list(learned.values()), allow_unused=True)
    accumulate(learner, episode, learner.config)
    for (key, parameter), gradient in zip(learned.items(), expected, strict=True):
        if gradient is None:
            assert parameter.grad is None or not parameter.grad.any(), key
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-11, msg=key)
    assert learner.head.log_scale.grad.abs() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shots", [1, 2])
def test_the_gate_chooses(make_learner, make_episode, name, shots) -> None:
    learner = made(make_learner, name, inner={"steps": 2, "gate": True}).eval()
    outcome = learner(make_episode(shots=shots, shape=SHAPE), all_stages=True)
    assert outcome.stages[-1] == "gate" and outcome.predictions[-1].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_tasks_banks_and_files_say_the_same(make_learner, make_episode, name, tmp_path) -> None:
    learner = made(make_learner, name, dtype=torch.float32).eval()
    images, queries = torch.rand(7, *SHAPE), torch.rand(3, *SHAPE)
    labels = ["a", "b", "a", "c", "c", "c", "a"]  # uneven
    task = learner.adapt(images, labels)
    films = {key: value.unsqueeze(0) for key, value in task.film.items()}
    features = learner.features(learner.prepare(torch.cat((images, queries)).unsqueeze(0)), films, 1)
    numbers = torch.tensor([["abc".index(label) for label in labels]])
    state = learner.head.fit(features[:, :7], numbers, 3)
    expected = learner.head.predict(state, features[:, 7:])[0].detach()
    near = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(task.logits(queries), expected, **near)
    task.save(tmp_path / "task.safetensors")
    again = Task.load(tmp_path / "task.safetensors", learner)
    assert torch.equal(again.logits(queries), task.logits(queries))
    bank = TaskBank(learner)
    number = bank.add(task)
    torch.testing.assert_close(bank.logits(queries, [number] * 3), expected, **near)
    bank.save(tmp_path / "bank.safetensors")
    loaded = TaskBank.load(tmp_path / "bank.safetensors", learner)
    torch.testing.assert_close(loaded.logits(queries, [number] * 3), expected, **near)
    other = learner.adapt(torch.rand(9, *SHAPE), [*"abc" * 2, *"aaa"])  # five images of one class
    if name == "descriptors":
        with pytest.raises(MetafilmError, match="it keeps every support image; give all of a bank's tasks"):
            bank.add(other)
        assert len(bank) == 1
    else:
        bank.add(other)
    learner.save(tmp_path / "model.safetensors")
    assert load_learner(tmp_path / "model.safetensors").fingerprint() == learner.fingerprint()


@pytest.mark.parametrize("name", NAMES)
def test_the_network_can_be_exported(make_learner, name) -> None:
    learner = made(make_learner, name, dtype=torch.float32).eval()
    network = learner.adapt(torch.rand(6, *SHAPE), [0, 1, 2] * 2).to_module()
    images = torch.rand(3, *SHAPE)
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},)).module()
    for part in (images, torch.rand(5, *SHAPE), images[:1]):
        torch.testing.assert_close(program(part), network(part), rtol=1e-4, atol=1e-4)


def test_pretraining_takes_the_mean_of_the_cells(tiny_config, make_learner, pool) -> None:
    """And so images of any size."""
    settings = {"iterations": 4, "batch": 8, "image_sizes": [32, 16]}
    learner = make_learner(head={"name": "descriptors"}, pretrain=settings, dtype=torch.float32)
    source = Source(EpisodeSampler(pool, 7, 1, 1, 0), (pool,))
    stage = Pretraining(learner, learner.config, source)
    assert stage.classifier.weight.shape == (7, 4)
    for i in range(4):
        assert stage.step(source.sampler[i])["pretrain_loss"] > 0


def test_settings_that_contradict(tiny_config) -> None:
    local = {"name": "reconstruction"}
    with pytest.raises(ConfigError, match=r"--head\.name reconstruction compares the cells of maps; add --b"):
        tiny_config(head=local, backbone={"pooling": "mean"})
    with pytest.raises(ConfigError, match=r"compares the cells of maps; add --backbone\.pooling flatten"):
        tiny_config(head=local, backbone={"name": "resnet12"})
    with pytest.raises(ConfigError, match=r"compares the cells of the maps of conv4 or resnet12 alone"):
        tiny_config(head=local, backbone={"name": "mlp"})
    with pytest.raises(
        ConfigError, match=r"--head\.transform is for features of whole images, not for the r"
    ):
        tiny_config(head={**local, "transform": ["power"]})
    with pytest.raises(ConfigError, match=r"--outer\.compile can't trace the reconstruction head"):
        tiny_config(head=local, outer={"compile": True})
    tiny_config(head=local, backbone={"name": "resnet12", "pooling": "flatten"})
