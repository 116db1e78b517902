"""The same weights under another head: against features taken by hand from the trained backbone."""

from dataclasses import replace

import pytest
import torch

from metafilm import MetaFiLM, MetafilmError, Task, TaskBank, film
from metafilm.backbones import Conv4
from metafilm.errors import ConfigError
from metafilm.evaluation import centre
from metafilm.heads import BlendHead, CosineHead, DescriptorsHead, ReconstructionHead
from metafilm.learner import load_learner, overridden

SHAPE = (1, 32, 32)
PLAIN = {
    "encoder": {"enabled": False},
    "backbone": {"pools": 3, "pooling": "mean"},
    "head": {"name": "cosine"},
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def trained(make_learner) -> MetaFiLM:
    return make_learner(shape=SHAPE, **PLAIN).eval()


def maps(learner: MetaFiLM, images: torch.Tensor) -> torch.Tensor:
    """The last maps ``[T, n, C, H, W]`` of the trained network, block by block."""
    x = learner.prepare(images)
    for i in range(4):
        x = learner.backbone.block(i)(x)
    return x.unflatten(0, (images.shape[0], -1))


def halved(found: torch.Tensor) -> torch.Tensor:
    """Means over 2×2 cells by a loop."""
    rows = [
        [found[..., i : i + 2, j : j + 2].mean((-1, -2)) for j in range(0, found.shape[-1], 2)]
        for i in range(0, found.shape[-2], 2)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("pooling", [None, "flatten2x2"])
@pytest.mark.parametrize(
    ("name", "kind"), [("descriptors", DescriptorsHead), ("reconstruction", ReconstructionHead)]
)
def test_heads_of_cells_on_a_network_trained_with_their_mean(
    trained, make_episode, name, kind, pooling
) -> None:
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    learner = overridden(trained, head=name, pooling=pooling)
    episode = make_episode(shape=SHAPE)
    support, query = (maps(trained, images) for images in (episode.support_images, episode.query_images))
    assert support.shape[-2:] == (4, 4)
    if pooling is not None:
        support, query = halved(support), halved(query)
    head = kind(support[0, 0].numel(), scale=kind.first_scale(1), cells=support[0, 0, 0].numel()).double()
    state = head.fit(support.flatten(2), episode.support_labels, episode.ways)
    with torch.no_grad():
        found = learner(episode).predictions[-1]
        torch.testing.assert_close(found, head.predict(state, query.flatten(2)), **EXACT)
    assert not learner.training and learner.config.head.name == name
    assert learner.config.backbone.pooling == pooling or learner.config.backbone.pooling == "flatten"
    after = trained.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) and trained.backbone.pooling == "mean"


def test_a_blend_of_prototypes_and_reconstruction_with_copies(trained, make_episode, tmp_path) -> None:
    """Recipe: prototypes of transformed features and of copies, beside the cells rebuilt."""
    asked = {"transform": ("power", "normalise"), "copies": 2, "copy_augment": "crop-flip"}
    learner = overridden(trained, blend="reconstruction", blend_weight=0.25, **asked)
    assert isinstance(learner.head, BlendHead)
    assert torch.equal(learner.head.first.log_scale, trained.head.log_scale), "what was learned is kept"
    episode = make_episode(shape=SHAPE)
    episode = replace(
        episode, support_images=episode.support_images.double(), query_images=episode.query_images.double()
    )
    prototypes, cells = (
        overridden(trained, **asked),
        overridden(trained, head="reconstruction", **asked | {"transform": ()}),
    )
    with torch.no_grad():
        found, *parts = (one(episode).predictions[-1].softmax(-1) for one in (learner, prototypes, cells))
    expected = parts[0] ** 0.75 * parts[1] ** 0.25
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True), **EXACT)
    learner.save(tmp_path / "model.safetensors")
    again = load_learner(tmp_path / "model.safetensors")
    images, labels = episode.support_images[0].float(), episode.support_labels[0].tolist()
    queries = episode.query_images[0].float()
    tasks = [one.adapt(images, labels) for one in (learner.float(), again)]
    logits = [task.logits(queries) for task in tasks]
    torch.testing.assert_close(logits[0], logits[1])
    bank = TaskBank(again)
    key = bank.add(tasks[1])
    torch.testing.assert_close(
        bank.logits(queries, [key] * len(queries))[:, :3], logits[1], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(tasks[1].to_module()(queries), logits[1], rtol=1e-4, atol=1e-4)


def test_a_network_that_a_classifier_of_cells_taught_is_judged_by_whole_images_too(make_learner) -> None:
    pretrain = {"iterations": 3, "classifier": "reconstruction"}
    cells = {"head": {"name": "reconstruction"}, "backbone": {"pools": 3}, "pretrain": pretrain}
    learner = make_learner(**PLAIN | cells)
    assert isinstance(overridden(learner, head="cosine", pooling="mean").head, CosineHead)


def test_inner_steps_under_another_head(make_learner, make_episode) -> None:
    learner = make_learner(shape=SHAPE, **PLAIN, inner={"steps": 2}).eval()
    other = overridden(learner, blend="descriptors", pooling="flatten2x2")
    outcome = other(make_episode(shape=SHAPE), all_stages=True)
    assert len(outcome.predictions) == 3
    assert not torch.allclose(outcome.predictions[0], outcome.predictions[-1])


@pytest.mark.parametrize("blend", [None, "reconstruction"])
def test_the_mean_to_centre_by_is_that_of_whole_images(trained, sampler, make_learner, blend) -> None:
    learner = make_learner(**PLAIN).eval()
    one = overridden(learner, transform=("centre", "normalise"), blend=blend)
    centre(one, sampler, images=12)
    episodes = sampler.batch(list(range(8)))
    images = torch.cat((episodes.support_images, episodes.query_images), 1)
    mean = maps(learner, images).mean((-1, -2)).mean((0, 1))
    torch.testing.assert_close(one.head.transform.mean, mean)


def test_norms_that_read_each_support_set(trained, make_learner, make_episode, tmp_path) -> None:
    """The weights as they are in a network that normalises so from the start; queries see one another only
    where that is asked for."""
    for norm, protocol in (("support", "inductive"), ("transductive", "transductive")):
        learner = overridden(trained, norm=norm)
        settings = PLAIN | {"backbone": {**PLAIN["backbone"], "norm": norm}}
        expected = make_learner(shape=SHAPE, **settings).eval()
        expected.load_state_dict(trained.state_dict())
        episode = make_episode(shape=SHAPE)
        with torch.no_grad():
            found = learner(episode).predictions[-1]
            assert torch.equal(found, expected(episode).predictions[-1])
            assert not torch.allclose(found, trained(episode).predictions[-1])
        assert learner.protocol == protocol and learner.config.backbone.norm == norm
        assert trained.config.backbone.norm == "running"
    # and back, for its averages are not there
    with pytest.raises(MetafilmError, match=r"mode transductive.*use support or transductive"):
        overridden(learner, norm="running")
    with pytest.raises(ConfigError, match=r"backbone\.norm.*grup"):
        overridden(trained, norm="grup")
    grouped = make_learner(shape=SHAPE, **PLAIN | {"backbone": {"norm": "group"}})
    with pytest.raises(MetafilmError, match="trained with norms of mode group"):
        overridden(grouped, norm="support")
    encoded = make_learner(shape=SHAPE, **PLAIN | {"encoder": {"enabled": True}})
    with pytest.raises(MetafilmError, match="task encoder was trained on features under norms"):
        overridden(encoded, norm="support")
    # a task of the one kind is none of the other
    pair = trained.float(), overridden(trained.float(), norm="support")
    images, labels = episode.support_images[0].float(), episode.support_labels[0].tolist()
    for one, other in (pair, pair[::-1]):
        one.adapt(images, labels).save(tmp_path / "task.safetensors")
        with pytest.raises(MetafilmError, match=f"this learner's norm mode is {other.config.backbone.norm}"):
            Task.load(tmp_path / "task.safetensors", other)


def test_what_can_not_be_overridden(trained, make_learner) -> None:
    with pytest.raises(MetafilmError, match="linear head has to be trained"):
        overridden(trained, head="linear")
    with pytest.raises(ConfigError, match=r"head\.name median is unknown"):
        overridden(trained, head="median")
    with pytest.raises(ConfigError, match=r"--head\.transform is for features of whole images"):
        overridden(trained, head="reconstruction", transform=("normalise",))
    with pytest.raises(ConfigError, match=r"--head\.blend is cosine already"):
        overridden(trained, blend="cosine")
    other = make_learner(shape=SHAPE, **PLAIN | {"backbone": {"pools": 3, "pooling": "max"}})
    with pytest.raises(MetafilmError, match="takes the mean over the maps"):
        overridden(other, blend="reconstruction")
    assert isinstance(overridden(other, head="reconstruction").head, ReconstructionHead)
    encoded = make_learner(shape=SHAPE, **PLAIN | {"encoder": {"enabled": True}})
    with pytest.raises(
        MetafilmError, match="trained on 4 features of an image, and under these settings there are 64"
    ):
        overridden(encoded, head="reconstruction")
    assert isinstance(overridden(encoded, head="cosine", copies=1).head, CosineHead)
    bare = MetaFiLM(film.insert(Conv4(SHAPE, 4)), CosineHead(10.0), image_shape=SHAPE)
    with pytest.raises(MetafilmError, match="saved without settings"):
        overridden(bare, copies=1)
