"""The backbone learns all training classes before the outer loop: right, resumable, and kept if frozen."""

import math
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from episodes import ClassPool
from metafilm.config.sources import Source, plain_source
from metafilm.errors import ConfigError, NotFinite
from metafilm.learner.build import build_learner
from metafilm.storage.run import RunDirectory
from metafilm.training import run as training
from metafilm.training.outer_gradient import Diverged
from metafilm.training.plain import pretraining
from metafilm.training.plain.pretraining import Pretraining, image_size, rate

STEPS = 12


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        pretrain={"iterations": STEPS, "batch": 12, "learning_rate": 0.05},
        outer={"freeze": ["backbone"], "iterations": 4},
        evaluation={"checkpoint_every_seconds": 0.0},
    )


def plain_twin(learner, classes: int) -> nn.Sequential:
    """The same backbone of PyTorch's own layers, and a linear classifier of zeros."""
    layers: list[nn.Module] = []
    for block in learner.backbone.blocks:
        convolution = nn.Conv2d(block.conv.in_channels, block.conv.out_channels, 3, padding=1, bias=False)
        convolution.weight.data = block.conv.weight.detach().clone()
        layers += [convolution, nn.BatchNorm2d(block.conv.out_channels), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(learner.feature_size, classes)).double()
    nn.init.zeros_(network[-1].weight)
    nn.init.zeros_(network[-1].bias)
    return network.train()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_steps_are_those_of_plain_pytorch(config, pool, smoothing) -> None:
    config = replace(config, pretrain=replace(config.pretrain, label_smoothing=smoothing))
    source = plain_source(config, (pool,))
    learner = build_learner(config, pool.image_shape, 0, [0.4], [0.5]).double()
    stage = Pretraining(learner, config, source)
    stage.classifier.double()
    network = plain_twin(learner, pool.num_classes)
    settings = config.pretrain
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() == 1]
    sgd = torch.optim.SGD(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others}],
        lr=1.0,
        momentum=settings.momentum,
        nesterov=True,
    )
    for i in range(3):
        batch = source.sampler.batch([i])
        report = stage.step(replace(batch, **{n: getattr(batch, n).double() for n in IMAGES}))
        images = torch.cat((batch.support_images, batch.query_images), 1)[0].double()
        labels = torch.cat((batch.support_labels, batch.query_labels), 1)[0]
        logs = network((images - learner.mean) / learner.std).log_softmax(1)
        right = logs.gather(1, batch.class_ids[0][labels].unsqueeze(1)).mean()
        loss = -(1 - smoothing) * right - smoothing * logs.mean()
        assert report["pretrain_loss"] == pytest.approx(loss.item(), rel=1e-9)
        sgd.zero_grad()
        loss.backward()
        for group in sgd.param_groups:
            group["lr"] = rate(i, STEPS) * settings.learning_rate
        sgd.step()
    for block, layer in zip(learner.backbone.blocks, range(0, 16, 4), strict=True):
        torch.testing.assert_close(block.conv.weight, network[layer].weight, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(block.norm.running_var, network[layer + 1].running_var, rtol=1e-8, atol=0)
    torch.testing.assert_close(stage.classifier.weight, network[-1].weight, rtol=1e-8, atol=1e-10)


IMAGES = ("support_images", "query_images")


def test_a_batch_holds_every_class_alike(config, pool) -> None:
    episode = plain_source(config, (pool,)).sampler.batch([0])
    labels = torch.cat((episode.support_labels, episode.query_labels), 1)[0]
    assert len(labels) == config.pretrain.batch
    counts = torch.bincount(episode.class_ids[0][labels], minlength=pool.num_classes)
    assert counts.max() - counts.min() <= 1 or pool.num_classes > config.pretrain.batch // 2


def test_a_batch_is_as_large_as_the_smallest_class_allows(config) -> None:
    """10 pictures a class, as the README asks for, and the default of 128 a batch."""
    images = torch.zeros(61, 1, 8, 8, dtype=torch.uint8)
    small = ClassPool(images, torch.tensor([0, 10, 21, 31, 41, 51, 61]), tuple("abcdef"))
    default = replace(config, pretrain=replace(config.pretrain, batch=128))
    episode = plain_source(default, (small,)).sampler.batch([0])
    assert episode.ways == 6 and episode.support_images.shape[1] + episode.query_images.shape[1] == 60


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    rates = [rate(i, 100) for i in range(100)]
    assert rates[0] == 0.2 and rates[4] == 1.0 and max(rates) == 1.0
    assert rates[52] == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95))) and 0 < rates[-1] < 0.001


@pytest.mark.parametrize(
    ("kind", "learning_rate"), [("linear", 0.2), ("cosine", 5.0), ("reconstruction", 0.1)]
)
def test_it_learns_and_a_frozen_backbone_keeps_it(
    run, config, tmp_path, kind, learning_rate, monkeypatch
) -> None:
    settings = replace(config.pretrain, iterations=40, classifier=kind, learning_rate=learning_rate)
    config = replace(config, pretrain=settings)
    if kind == "reconstruction":
        with pytest.raises(
            ConfigError, match=r"as the prototype head doesn't; take --head.name descriptors, "
        ):
            config.require_beginnable()
        config = replace(
            config, head=replace(config.head, name=kind), backbone=replace(config.backbone, pools=2)
        )
    kept = {}
    original = Pretraining.finish

    def finish(self) -> None:
        original(self)
        kept.update({name: value.clone() for name, value in self.learner.backbone.state_dict().items()})

    monkeypatch.setattr(Pretraining, "finish", finish)
    directory = run(config, tmp_path / "run")
    records = directory.read_metrics()
    assert [record["iteration"] for record in records] == [-39, -30, -20, -10, 0, 1, 2, 4]
    losses = [record["pretrain_loss"] for record in records if "pretrain_loss" in record]
    assert losses[-1] < 0.7 * losses[0]
    assert records[4]["validation_accuracy"] > 60 and "validation_ci95" in records[4]
    after = directory.load_checkpoint()["learner"]
    for name, value in kept.items():
        assert torch.equal(after[f"backbone.{name}"], value), name
    assert records[-1]["seconds"] > records[4]["seconds"] > 0


def test_interrupted_and_resumed_it_is_the_same_to_the_last_bit(run, config, tmp_path, monkeypatch) -> None:
    whole = run(config, tmp_path / "whole")
    original = Pretraining.step

    def interrupted(self, batch):
        if self.iteration == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "broken")
    state = RunDirectory(tmp_path / "broken").load_checkpoint()
    assert state is not None and state["iteration"] == 5 - STEPS, "the step under way ends first"
    broken = run(config, tmp_path / "broken")
    first, second = whole.load_checkpoint(), broken.load_checkpoint()
    assert first is not None and second is not None
    for name, value in first["learner"].items():
        assert torch.equal(value, second["learner"][name]), name
    for one, other in zip(whole.read_metrics(), broken.read_metrics(), strict=True):
        for record in (one, other):
            for name in ("seconds", "validation_seconds"):
                record.pop(name, None)
        assert one == other


def test_a_finished_stage_is_not_run_again(run, config, tmp_path, monkeypatch) -> None:
    directory = run(config, tmp_path / "run")
    monkeypatch.setattr(pretraining, "pretrain", None)
    monkeypatch.setattr(training, "pretrain", None)
    records = directory.read_metrics()
    assert run(config, tmp_path / "run").read_metrics() == records


def test_nan_names_the_setting(run, config, tmp_path) -> None:
    config = replace(config, pretrain=replace(config.pretrain, learning_rate=1e30))
    with pytest.raises(Diverged, match=r"at iteration \d+ of the pre-training; lower --pretrain.learning"):
        run(config, tmp_path / "run")


def test_a_stage_that_ends_in_no_numbers_is_divergence(run, config, tmp_path, monkeypatch) -> None:
    def broken(*_):
        raise NotFinite("the predictions are not finite")

    monkeypatch.setattr(training, "plainly", broken)
    message = "validation at the end of the pre-training: the predictions are not finite; lower --pretrain"
    with pytest.raises(Diverged, match=message):
        run(config, tmp_path / "run")


def test_another_runs_checkpoint_is_refused(run, config, tmp_path, pool) -> None:
    stage = Pretraining(
        build_learner(config, pool.image_shape, 0, [0.4], [0.5]), config, Source(None, (pool,))
    )  # type: ignore[arg-type]
    state = stage.state() | {"classifier": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}}
    with pytest.raises(pretraining.RunError, match="does not fit this run"):
        stage.load(state, "checkpoint.pt")


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"name": "sinusoids"}, "head": {"name": "regression"}, "backbone": {"name": "mlp"}},
        {"data": {"name": "criteria"}, "episodes": {"criteria": "all"}},
    ],
)
def test_data_without_one_set_of_classes_is_refused(tiny_config, sections) -> None:
    with pytest.raises(ConfigError, match=r"--pretrain\.iterations must be 0"):
        tiny_config(pretrain={"iterations": 5}, **sections)


def test_a_frozen_backbone_stays_in_evaluation(config, pool) -> None:
    learner = build_learner(config, pool.image_shape, 0, [0.4], [0.5]).train()
    assert learner.training and not any(module.training for module in learner.backbone.modules())


def test_images_grow_in_equal_parts(tiny_config) -> None:
    settings = tiny_config(
        backbone={"pooling": "mean"}, pretrain={"iterations": 10, "image_sizes": [16, 20, 24]}
    ).pretrain
    assert [image_size(i, settings) for i in range(10)] == [16] * 4 + [20] * 3 + [24] * 3
    assert image_size(3, replace(settings, image_sizes=())) is None


@pytest.fixture
def growing(config):
    """A network that takes any size, two sizes, and an average."""
    settings = replace(config.pretrain, image_sizes=(24, 16), average=0.9)
    return replace(config, pretrain=settings, backbone=replace(config.backbone, pooling="mean", pools=3))


def test_the_average_of_steps_on_resized_images(growing, pool) -> None:
    """Each step is that of a plain batch resized beforehand, and the stage ends with their average."""
    source = plain_source(growing, (pool,))
    stages = [
        Pretraining(build_learner(growing, pool.image_shape, 0, [0.4], [0.5]), settings, source)
        for settings in (growing, replace(growing, pretrain=replace(growing.pretrain, average=0.0)))
    ]
    seen, values = [], None
    for i in range(STEPS):
        batch = source.sampler.batch([i])
        first = (
            stages[0]
            .learner.backbone.blocks[0]
            .register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
        )
        reports = [stage.step(batch) for stage in stages]
        first.remove()
        assert reports[0] == reports[1]
        state = {name: value.clone() for name, value in stages[1].learner.state_dict().items()}
        if values is None:
            values = build_learner(growing, pool.image_shape, 0, [0.4], [0.5]).state_dict()
        weight = 1 - min(0.9, (2 + i) / (11 + i))
        values = {
            name: value + weight * (state[name] - value) if value.is_floating_point() else state[name]
            for name, value in values.items()
        }
    assert seen == [(24, 24)] * 6 + [(16, 16)] * 6
    for name, value in stages[0].learner.state_dict().items():
        torch.testing.assert_close(value, values[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_growing_stage_resumes_to_the_last_bit(run, growing, tmp_path, monkeypatch) -> None:
    whole = run(growing, tmp_path / "whole").load_checkpoint()
    original = Pretraining.step

    def interrupted(self, batch):
        if self.iteration == 7:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(growing, tmp_path / "broken")
    state = RunDirectory(tmp_path / "broken").load_checkpoint()
    assert state is not None and state["iteration"] == 8 - STEPS and state["average"]["updates"] == 8
    broken = run(growing, tmp_path / "broken").load_checkpoint()
    assert whole is not None and broken is not None
    for name, value in whole["learner"].items():
        assert torch.equal(value, broken["learner"][name]), name


def test_sizes_need_features_that_fit_any(tiny_config) -> None:
    growing = {"iterations": 5, "image_sizes": [16, 24]}
    expected = r"--pretrain\.image-sizes needs features that fit any image size; add --backbone\.pooling mean"
    for backbone in ({}, {"name": "resnet12", "pooling": "flatten"}):
        with pytest.raises(ConfigError, match=expected):
            tiny_config(pretrain=growing, backbone=backbone)
    tiny_config(pretrain=growing, backbone={"name": "resnet12"})
    with pytest.raises(ConfigError, match=r"--pretrain\.image-sizes must be at least 16, is 8"):
        tiny_config(pretrain={"iterations": 5, "image_sizes": [8]}, backbone={"pooling": "max"})
