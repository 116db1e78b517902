"""Plain images of all training classes beside the tasks of an outer step."""

import signal
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from episodes import EpisodeSampler
from metafilm import norms
from metafilm.config.sources import Source
from metafilm.engine.distributed import Group
from metafilm.errors import ConfigError, RunError
from metafilm.training.outer_gradient import Diverged
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.plain import PlainImages

PRETRAINED, OUTER = 3, 6


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        pretrain={"iterations": PRETRAINED, "batch": 8, "augment": "shift", "classifier": "cosine"},
        outer={"iterations": OUTER, "plain": 12, "plain_weight": 0.7, "average": 0.9},
        inner={"steps": 1},
        evaluation={"checkpoint_every_seconds": 0.0},
    )


@pytest.fixture
def source(pool) -> Source:
    return Source(EpisodeSampler(pool, 3, 2, 2, 1), (pool,))


def plain_loss(loop: OuterLoop, iteration: int) -> torch.Tensor:
    """The cross entropy of the images of an iteration at δ = 0, image by image."""
    assert loop.plain is not None
    batch, learner = loop.plain.batch(iteration), loop.learner
    images = torch.cat((batch.support_images, batch.query_images), 1)[0]
    labels = torch.cat((batch.support_labels, batch.query_labels), 1)[0]
    with norms.layout(1):
        features = learner.backbone((images - learner.mean) / learner.std)
    losses = [
        F.cross_entropy(
            loop.plain.classifier(one.unsqueeze(0)),
            batch.class_ids[0][label].unsqueeze(0),
            label_smoothing=loop.config.pretrain.label_smoothing,
        )
        for one, label in zip(features, labels, strict=True)
    ]
    assert len(losses) == loop.config.outer.plain
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("norm", ["running", "support", "group"])
def test_gradient_is_that_of_the_sum(make_learner, make_episode, outer_loss, source, kind, norm) -> None:
    learner = make_learner(
        backbone={"norm": norm},
        inner={"steps": 1},
        pretrain={"classifier": kind, "label_smoothing": 0.1},
        outer={"plain": 12, "plain_weight": 0.7, "clip_norm": 0, "penalty": 0.1, "meta_batch": 3},
    ).train()
    loop = OuterLoop(learner, learner.config, source)
    assert loop.plain is not None
    classifier = loop.plain.classifier.double()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    episode = make_episode(tasks=3)
    learned = {**learner.outer_parameters(), **dict(classifier.named_parameters())}
    plain = plain_loss(loop, 0)
    loss = outer_loss(learner, episode) + 0.7 * plain
    expected = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    before = {name: value.detach().clone() for name, value in classifier.named_parameters()}
    report = loop.step([episode])
    loop.close()
    assert report["plain_loss"] == pytest.approx(plain.item(), rel=1e-9)
    assert 0 <= report["plain_accuracy"] <= 100
    for (name, parameter), gradient in zip(learned.items(), expected, strict=True):
        if gradient is None:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-12, msg=name)
    assert all(not torch.equal(value, before[name]) for name, value in classifier.named_parameters())


def test_running_averages_count_the_plain_images_as_one_task(make_learner, make_episode, source) -> None:
    learner = make_learner(outer={"plain": 12, "meta_batch": 3})
    loop = OuterLoop(learner, learner.config, source)
    loop.plain.classifier.double()
    counts = []
    original = norms.commit

    def counted(network) -> None:
        counts.append(float(network.blocks[0].norm.recorded_tasks))
        original(network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "commit", counted)
        loop.step([make_episode(tasks=3)])
    loop.close()
    assert counts == [4.0]


def test_images_are_a_function_of_the_iteration(config, source, make_learner) -> None:
    plain = PlainImages(make_learner(), config, source)
    images = [plain.batch(i).query_images for i in (0, 1, 4, 1, 2)]
    plain.close()
    assert torch.equal(images[1], images[3]) and not torch.equal(images[0], images[1])
    first = plain.source.sampler.batch([PRETRAINED])
    assert torch.equal(images[0], first.query_images), "none that the pre-training has seen"


def test_the_classifier_of_the_pretraining_goes_on(run, config, tmp_path, monkeypatch) -> None:
    kept = []
    original = OuterLoop.step

    def step(self, episodes):
        if self.iteration == 0:
            kept.append({name: value.clone() for name, value in self.plain.classifier.state_dict().items()})
            raise KeyboardInterrupt
        return original(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(OuterLoop, "step", step)
        for _ in range(2):  # the second goes on from the checkpoint between the two stages
            with pytest.raises(KeyboardInterrupt):
                run(config, tmp_path / "run")
    state = run(config, tmp_path / "other").load_checkpoint()
    assert state is not None and state["plain"].keys() == {"weight", "log_scale"}
    fresh = replace(config, pretrain=replace(config.pretrain, iterations=0))
    with monkeypatch.context() as patch:
        patch.setattr(OuterLoop, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(fresh, tmp_path / "fresh")
    assert torch.equal(kept[0]["weight"], kept[1]["weight"])
    assert not torch.equal(kept[0]["weight"], kept[2]["weight"])


@pytest.mark.parametrize("until", [0, 3])
def test_interrupted_and_resumed_it_is_the_same_to_the_last_bit(
    run, config, tmp_path, monkeypatch, until
) -> None:
    whole = run(config, tmp_path / "whole")
    original = OuterLoop.step

    def interrupted(self, episodes):
        if self.iteration == until:
            signal.raise_signal(signal.SIGINT)
        return original(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(OuterLoop, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "broken")
    broken = run(config, tmp_path / "broken")
    first, second = whole.load_checkpoint(), broken.load_checkpoint()
    assert first is not None and second is not None
    for part in ("learner", "plain"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    for number, values in first["optimiser"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, second["optimiser"]["state"][number][name]), (number, name)
    records = [record for record in whole.read_metrics() if record["iteration"] > 0]
    assert records[-1]["plain_loss"] > 0 and "plain_accuracy" in records[-1]
    for one, other in zip(whole.read_metrics(), broken.read_metrics(), strict=True):
        for record in (one, other):
            for name in ("seconds", "validation_seconds"):
                record.pop(name, None)
        assert one == other


def test_of_several_processes_the_leader_takes_them(config, source, make_learner) -> None:
    learner = make_learner(outer={"plain": 12})
    loop = OuterLoop(learner, learner.config, source)
    loop.group = Group(1, 2)
    assert loop._plain_gradient() == {"plain_loss": 0.0, "plain_accuracy": 0.0}
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_nan_and_another_runs_checkpoint(config, source, make_learner, make_episode) -> None:
    learner = make_learner(outer={"plain": 12})
    loop = OuterLoop(learner, learner.config, source)
    loop.plain.classifier.double()
    state = loop.state()
    with pytest.raises(RunError, match=r"the classifier of the plain images is missing"):
        loop.load({name: value for name, value in state.items() if name != "plain"}, "checkpoint.pt")
    loop.load(state, "checkpoint.pt")
    loop.plain.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(Diverged, match="of the plain images at iteration 1"):
        loop.step([make_episode(tasks=2)])
    loop.close()


def test_settings_that_contradict(tiny_config) -> None:
    with pytest.raises(ConfigError, match=r"--outer\.plain has nothing to teach a frozen backbone; take it"):
        tiny_config(outer={"plain": 12, "freeze": ["backbone"]})
    with pytest.raises(ConfigError, match=r"--outer\.plain must be 0 or at least 4 images, is 2"):
        tiny_config(outer={"plain": 2})
    with pytest.raises(ConfigError, match=r"--outer\.plain must be 0 for functions"):
        tiny_config(
            outer={"plain": 12},
            data={"name": "sinusoids"},
            head={"name": "regression"},
            backbone={"name": "mlp"},
        )
