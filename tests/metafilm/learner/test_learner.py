"""MetaFiLM: what composing the parts gives, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch

from metafilm import CheckpointError, InnerLoop, MetaFiLM, MetafilmError, TaskEncoder, film, heads, norms
from metafilm.backbones import MLP, Conv4
from metafilm.heads import prototypes
from metafilm.learner import load_learner


def test_stages_against_the_parts_by_hand(make_learner, make_episode) -> None:
    """Encoder, one inner step on held-out views and the head, written out."""
    learner = make_learner(backbone={"norm": "group"}, inner={"steps": 1, "views": 2}).eval()
    episode = make_episode(tasks=2)
    found = learner(episode, all_stages=True)
    assert found.stages == ["identity", "encoder", "step 1"]

    def features(images, deviations):
        x = ((images - learner.mean) / learner.std).flatten(0, 1)
        return film.call(learner.backbone, deviations, x).unflatten(0, (2, -1))

    support, labels = episode.support_images, episode.support_labels
    start = learner.encoder(prototypes(features(support, {}), labels, 3))
    views = learner.views_of(episode)
    start = {name: value.detach().requires_grad_() for name, value in start.items()}
    loss = learner.head.inner_loss(features(support, start), labels, 3, features(views, start))
    gradients = torch.autograd.grad(loss.sum(), list(start.values()))
    sizes = learner.inner.step_size(0)
    last = {n: v - s * g for (n, v), s, g in zip(start.items(), sizes, gradients, strict=True)}
    for stage, deviations in enumerate(({}, start, last)):
        fitted = learner.head.fit(features(support, deviations), labels, 3)
        expected = learner.head.predict(fitted, features(episode.query_images, deviations))
        torch.testing.assert_close(found.predictions[stage], expected)
    for name, value in last.items():
        torch.testing.assert_close(found.films[-1][name], value)
    assert len(found.inner_losses) == 1
    torch.testing.assert_close(found.inner_losses[0], loss.detach())


def test_how_many_steps(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1, "evaluation_steps": 3})
    episode = make_episode(tasks=1)
    assert learner.train()(episode).stages == ["step 1"]
    assert learner.eval()(episode).stages == ["step 3"]
    assert learner(episode, steps=0).stages == ["encoder"]
    assert learner(episode, steps=0, use_encoder=False).stages == ["identity"]
    assert learner(episode, steps=2, all_stages=True, use_encoder=False).stages == [
        "identity",
        "step 1",
        "step 2",
    ]


def test_the_encoder_reads_whom_it_is_told(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).eval()
    episode, other = make_episode(seed=0), make_episode(seed=1)
    found = learner(episode, encoder_episode=other, all_stages=True)
    mine, theirs = learner(episode, all_stages=True), learner(other, all_stages=True)
    for name, value in found.films[1].items():
        assert torch.equal(value, theirs.films[1][name])
        assert not torch.equal(value, mine.films[1][name])
    assert torch.equal(found.predictions[0], mine.predictions[0])


def test_the_encoder_reads_labels(make_learner, make_episode) -> None:
    """Blind to them it could only tell the domain. Renaming classes all through changes nothing."""
    learner = make_learner().eval()
    episode = make_episode(tasks=1)
    before = learner(episode)
    mixed = replace(episode, support_labels=episode.support_labels[:, torch.tensor([0, 2, 1, 4, 5, 3])])
    renamed = replace(episode, support_labels=(episode.support_labels + 1) % 3)
    after, same = learner(mixed), learner(renamed)
    for name, value in before.films[-1].items():
        assert (value - after.films[-1][name]).abs().max() > 1e-6
        torch.testing.assert_close(value, same.films[-1][name])
    torch.testing.assert_close(before.predictions[-1], same.predictions[-1].roll(-1, dims=-1))


def test_views_of_the_episode_come_first(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1, "views": 1, "view_augment": "none"}).eval()
    episode = make_episode(tasks=2)
    copies = replace(episode, support_views=episode.support_images.unsqueeze(1))
    changed = replace(episode, support_views=1 - episode.support_images.unsqueeze(1))
    expected = learner(episode).films[-1]
    for name, value in expected.items():
        assert torch.equal(learner(copies).films[-1][name], value)
        assert not torch.equal(learner(changed).films[-1][name], value)


def test_regression(of_functions) -> None:
    from episodes.datasets.sinusoids import SinusoidSampler

    learner = of_functions.to(torch.float32).eval()
    episode = SinusoidSampler(shots=5, queries=4, seed=0).batch([0, 1])
    found = learner(episode, all_stages=True)
    assert learner.regression and found.predictions[-1].shape == (2, 4, 1)
    alone = learner(episode.select(1))
    torch.testing.assert_close(found.predictions[-1][1:], alone.predictions[-1], rtol=1e-4, atol=1e-5)
    task = learner.adapt(episode.support_images[1], episode.support_labels[1])
    predicted = task.predict(episode.query_images[1])
    torch.testing.assert_close(predicted, alone.predictions[-1][0], rtol=1e-4, atol=1e-4)
    with pytest.raises(MetafilmError, match="use predict"):
        task.predict_proba(episode.query_images[1])
    for steps in (0, 1):
        with pytest.raises(MetafilmError, match="give 1 value for each input"):
            learner.adapt(torch.rand(5, 1), torch.rand(5, 2), steps=steps)


def test_normalisation_is_inside(make_learner, make_episode) -> None:
    learner = make_learner()
    episode = make_episode(tasks=2)
    found = learner.prepare(episode.query_images)
    torch.testing.assert_close(found, ((episode.query_images.double() - 0.4) / 0.5).flatten(0, 1))


def test_foreign_networks(random_film, make_episode) -> None:
    """Any network of modules will do; a batch of its own in eval mode is one by one."""
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    backbone.out_features = 4 * 14 * 14
    learner = (
        MetaFiLM(film.insert(backbone), heads.PrototypeHead(0.1), image_shape=(1, 16, 16)).double().eval()
    )
    episode = make_episode()
    together = learner(episode).predictions[-1]
    alone = torch.cat([learner(episode.select(t)).predictions[-1] for t in range(3)])
    torch.testing.assert_close(together, alone)
    assert learner.protocol == "inductive"


def test_it_can_be_copied(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).eval()
    other = copy.deepcopy(learner)
    episode = make_episode()
    assert torch.equal(other(episode).predictions[-1], learner(episode).predictions[-1])


def test_errors(make_learner, make_episode) -> None:
    learner = make_learner().eval()
    with pytest.raises(
        MetafilmError, match=r"images have shape \(1, 20, 20\), this learner expects \(1, 16, 16\)"
    ):
        learner(make_episode(shape=(1, 20, 20)))
    with pytest.raises(MetafilmError, match=r"2 inner steps asked for, but this learner was built without"):
        learner(make_episode(), steps=2)
    with pytest.raises(MetafilmError, match=r"-1 inner steps asked for; give 0 or more"):
        learner(make_episode(), steps=-1)
    with pytest.raises(MetafilmError, match=r"3 inner steps asked for, but the learner has no inner loop"):
        MetaFiLM(MLP(2), heads.RegressionHead(40), image_shape=(2,), evaluation_steps=3)
    with pytest.raises(MetafilmError, match="neither a run directory"):
        MetaFiLM.from_pretrained("nowhere")
    mixed = Conv4((1, 16, 16), 4)
    mixed.blocks[0].norm = norms.Norm(4, "group")
    with pytest.raises(MetafilmError, match="several modes"):
        _ = MetaFiLM(mixed, heads.PrototypeHead(1.0), image_shape=(1, 16, 16)).protocol


def test_uint8_episodes_are_the_same_tasks(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).eval()
    episode = make_episode(tasks=2)
    pixels = {
        name: (getattr(episode, name) * 255).round().to(torch.uint8)
        for name in ("support_images", "query_images")
    }
    floats = {name: value.to(torch.float64) / 255 for name, value in pixels.items()}
    expected = learner(replace(episode, **floats))
    found = learner(replace(episode, **pixels))
    assert torch.equal(found.predictions[-1], expected.predictions[-1])


def test_embed_gives_features_under_a_task_or_none(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).train()
    episode = make_episode(tasks=1)
    images = episode.query_images[0]
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    assert learner.training
    plain, adapted = learner.embed(images), learner.embed(images, task, batch_size=2)
    learner.eval()
    torch.testing.assert_close(plain, learner.features(learner.prepare(images[None]), {}, 1)[0].detach())
    deviations = {name: value[None] for name, value in task.film.items()}
    expected = learner.features(learner.prepare(images[None]), deviations, 1)[0].detach()
    torch.testing.assert_close(adapted, expected)
    assert not torch.allclose(plain, adapted)
    with pytest.raises(MetafilmError, match="made with another learner"):
        copy.deepcopy(learner).embed(images, task)


def built_in_python(head: str = "cosine") -> MetaFiLM:
    torch.manual_seed(3)
    backbone = film.insert(Conv4((1, 16, 16), 4, "support"), ["blocks.1.norm", "blocks.3.norm"])
    sites = film.sites(backbone)
    return MetaFiLM(
        backbone,
        heads.build(head, 4, 3),
        TaskEncoder(4, sites, 6, "gru", scale="feature"),
        InnerLoop(sites, 2, 0.3, granularity="feature"),
        image_shape=(1, 16, 16),
        mean=[0.2],
        std=[0.7],
        steps=2,
        views=2,
        view_augment="affine",
    )


@pytest.mark.parametrize("head", heads.HEADS)
def test_a_learner_built_in_python_can_be_saved_and_read_again(make_episode, tmp_path, head, disturb) -> None:
    learner = built_in_python(head).eval()
    disturb(learner)
    learner.save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert not again.training and again.fingerprint() == learner.fingerprint()
    assert list(film.sites(again.backbone)) == ["blocks.1.norm", "blocks.3.norm"]
    if head != "regression":
        episode = make_episode()
        found, expected = again(episode, all_stages=True), learner(episode, all_stages=True)
        assert found.stages == expected.stages == ["identity", "encoder", "step 1", "step 2"]
        for ours, theirs in zip(found.predictions, expected.predictions, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_one_built_from_a_configuration_too(make_learner, tmp_path) -> None:
    learner = make_learner(dtype=torch.float32, train_classes=7, outer={"auxiliary": 0.1})
    learner.save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert again.config == learner.config and again.auxiliary.out_features == 7
    assert again.fingerprint() == learner.fingerprint()


def test_a_backbone_of_somebody_elses_making_is_brought_by_the_reader(tmp_path) -> None:
    def network() -> torch.nn.Module:
        backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
        backbone.out_features = 4 * 14 * 14
        return backbone

    learner = MetaFiLM(film.insert(network()), heads.PrototypeHead(0.1), image_shape=(1, 16, 16)).eval()
    file = tmp_path / "mine.safetensors"
    learner.save(file)
    with pytest.raises(CheckpointError, match="backbone of class Sequential, which is not metafilm's own"):
        MetaFiLM.from_pretrained(str(file))
    again = load_learner(file, backbone=network())
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(again.embed(images), learner.embed(images), rtol=0, atol=0)

    class Odd(heads.PrototypeHead):
        pass

    with pytest.raises(MetafilmError, match="the head is a Odd, which a file can't rebuild"):
        MetaFiLM(film.insert(network()), Odd(0.1), image_shape=(1, 16, 16)).save(file)


def test_foreign_norms_stay_as_they_are_while_the_learner_trains(make_episode) -> None:
    """Else tasks of a batch would see each other, and averages move in every pass."""
    backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    backbone.out_features = 4 * 14 * 14
    learner = MetaFiLM(film.insert(backbone), heads.PrototypeHead(0.1), image_shape=(1, 16, 16)).double()
    learner.train()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    episode = make_episode()
    together = learner(episode).predictions[-1]
    alone = torch.cat([learner(episode.select(t)).predictions[-1] for t in range(3)])
    torch.testing.assert_close(together, alone)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("head", ["prototype", "linear"])
@pytest.mark.parametrize("backbone", ["conv4", "resnet12"])
@pytest.mark.parametrize("sites", ["all", "last"])
def test_statistics_are_recorded_once_whatever_stages_are_asked_for(
    make_learner, make_episode, backbone, head, sites
) -> None:
    settings = {"backbone": {"name": backbone}, "head": {"name": head}, "film": {"sites": sites}}
    learner = make_learner(inner={"steps": 2, "views": 0}, **settings).train()
    found = []
    for all_stages in (False, True):
        norms.discard(learner.backbone)
        outcome = learner(make_episode(tasks=3), all_stages=all_stages)
        assert len(outcome.predictions) == (4 if all_stages else 1)
        layers = [module for module in learner.backbone.modules() if isinstance(module, norms.Norm)]
        assert [int(layer.recorded_tasks) for layer in layers] == [3] * len(layers)
        found.append(torch.stack([layer.recorded.mean(1) for layer in layers]))
        norms.commit(learner.backbone)
    torch.testing.assert_close(*found)


def test_steps_on_parts_of_the_support_by_hand(make_learner, make_episode) -> None:
    """Each step is the first step of a learner whose support is that part, from where the last one ended."""
    inner = {"steps": 3, "views": 2, "step_size": 0.1, "per_step": False}
    learner = make_learner(inner=inner, backbone={"norm": "running"}).eval()
    episode = make_episode(tasks=2, ways=3, shots=5)
    views = learner.views_of(episode).unflatten(1, (2, 15))
    with torch.no_grad():
        now = learner.encoded(episode)[0]
        for step in range(3):
            rows = torch.tensor([5 * c + (2 * step + k) % 5 for c in range(3) for k in range(2)])
            part = replace(
                episode,
                support_images=episode.support_images[:, rows],
                support_labels=episode.support_labels[:, rows],
                support_views=views[:, :, rows],
            )
            (now,) = learner.trajectory(part, now, 1)
        learner.batch = 2
        found = learner(episode).films[-1]
    for name, value in now.items():
        torch.testing.assert_close(found[name], value)
    learner.batch = 5
    whole = learner(episode).films[-1]
    learner.batch = None
    for name, value in learner(episode).films[-1].items():
        assert torch.equal(whole[name], value)
        assert not torch.equal(found[name], value)


def test_parts_are_a_setting_that_is_kept(make_learner, tmp_path) -> None:
    learner = make_learner(inner={"steps": 1, "batch": 2}, dtype=torch.float32)
    assert learner.batch == 2 and make_learner().batch is None
    learner.config, learner.batch = None, 3
    learner.save(tmp_path / "parts.safetensors")
    assert load_learner(tmp_path / "parts.safetensors").batch == 3
    with pytest.raises(MetafilmError, match="batch 0 must be at least 1"):
        MetaFiLM(learner.backbone, learner.head, image_shape=(1, 16, 16), batch=0)


@pytest.mark.parametrize("norm", ["running", "support"])
def test_embed_of_no_images(make_learner, norm) -> None:
    learner = make_learner(dtype=torch.float32, backbone={"norm": norm}).eval()
    assert learner.embed([]).shape == (0, learner.feature_size)


def test_statistics_may_be_given_as_integers(make_episode) -> None:
    backbone, episode = Conv4((1, 16, 16), 4), make_episode(tasks=1)
    made = [
        MetaFiLM(backbone, heads.PrototypeHead(1.0), image_shape=(1, 16, 16), mean=mean, std=std).eval()
        for mean, std in (([0], [1]), (None, None))
    ]
    tasks = [one.adapt(episode.support_images[0], episode.support_labels[0]) for one in made]
    assert made[0].mean.dtype == made[0].std.dtype == torch.float32
    images = episode.query_images[0]
    assert torch.equal(tasks[0].logits(images), tasks[1].logits(images))


def test_within_inference_mode(make_learner, make_episode, of_functions) -> None:
    learner = make_learner(dtype=torch.float32, inner={"steps": 2}).eval()
    episode = make_episode(tasks=1)
    images, labels = episode.support_images[0], episode.support_labels[0]
    expected = learner.adapt(images, labels)
    of_functions.float()
    with torch.inference_mode():
        found = learner.adapt(images.clone(), labels.clone())
        assert torch.equal(found.logits(images), expected.logits(images))
        x = torch.rand(5, 1)
        of_functions.adapt(x, x.sin())
        with pytest.raises(MetafilmError, match=r"which torch\.inference_mode forbids"):
            learner(episode)
        made_within = copy.deepcopy(learner)
    assert all(torch.equal(found.film[name], value) for name, value in expected.film.items())
    with pytest.raises(MetafilmError, match=r"make the learner outside"):
        made_within.adapt(images, labels)


def test_evaluating_leaves_each_module_as_it_was(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32).train()
    learner.head.eval()
    episode = make_episode(tasks=1)
    learner.adapt(episode.support_images[0], episode.support_labels[0])
    assert learner.training and learner.backbone.blocks[0].training and not learner.head.training
