"""learn2learn's systems: resuming, and what they are next to plain arithmetic."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from metafilm.training.outer_gradient import Diverged
from scripts.comparing import peers
from scripts.comparing.peer_training import Training


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", peers.SYSTEMS)
def test_a_peer_cut_and_resumed_is_the_same(tiny, tmp_path, name) -> None:
    source, validation = tiny.training(None), tiny.evaluation("val", None)
    whole = Training(tiny, name, source, 4)
    whole.run(tmp_path, validation, 2)
    cut = Training(tiny, name, source, 4)
    for episodes in islice(cut.ahead(), 2):
        cut.step(episodes)
    cut.validate(validation)
    cut.save(tmp_path / "cut.pt")
    again = Training(tiny, name, source, 4)
    again.load(tmp_path / "cut.pt")
    again.run(tmp_path, validation, 2)
    for key, value in whole.peer.network.state_dict().items():
        assert torch.equal(again.peer.network.state_dict()[key], value), key
    assert [value for _, value in again.curve] == [value for _, value in whole.curve]
    assert again.best == whole.best
    for name, value in whole.average.state().items():
        assert torch.equal(again.average.state()[name], value), name


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", ["learn2learn-protonet", "learn2learn-maml"])
def test_peers_are_judged_as_metafilm_is(tiny, name, tmp_path) -> None:
    """The moving average of their weights, in float32."""
    training = Training(tiny, name, tiny.training(None), 8)
    training.run(tmp_path, tiny.evaluation("val", None), 1)
    averaged = training.average.state()
    assert training.average.decay == 0.999
    for key, value in training.peer.network.state_dict().items():
        assert torch.equal(training.best_state[key], averaged[key]), key
        assert key.endswith("tracked") or not torch.equal(averaged[key], value), key
    (task,) = training.prepared(tiny.training(None).sampler.batch([0]))
    found = training.peer.logits(task, False)
    training.peer.network.double()
    task = replace(task, support_images=task.support_images.double(), query_images=task.query_images.double())
    exact = training.peer.logits(task, False).double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("learn2learn")
def test_a_peer_whose_loss_is_not_finite_has_diverged(tiny) -> None:
    training = Training(tiny, "learn2learn-protonet", tiny.training(None), 4)
    with torch.no_grad():
        next(training.peer.network.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="the outer loss is nan"):
        training.step(next(training.ahead()))


@pytest.mark.usefixtures("learn2learn")
def test_its_prototypes_are_squared_distances(tiny) -> None:
    training = Training(tiny, "learn2learn-protonet", tiny.training(None), 4)
    (task,) = training.prepared(tiny.training(None).sampler.batch([3]))
    found = training.peer.logits(task, False)
    network = training.peer.network.eval()
    with torch.no_grad():
        features = network.features(torch.cat((task.support_images[0], task.query_images[0]))).float()
    for query in range(6):
        for way in range(3):
            own = features[:3][task.support_labels[0] == way].mean(0)
            expected = -(features[3 + query] - own).square().sum()
            torch.testing.assert_close(found[query, way], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("learn2learn")
def test_its_anil_is_gradient_steps_on_the_head(tiny) -> None:
    peer = peers.Adapting(tiny, True, 2, 0.1)
    training = Training(tiny, "learn2learn-anil", tiny.training(None), 4)
    (task,) = training.prepared(tiny.training(None).sampler.batch([0]))
    found = peer.logits(task, False)
    network = peer.network
    support, query = (network.features(x[0]).detach() for x in (task.support_images, task.query_images))
    weight, bias = (value.detach().clone().requires_grad_() for value in network.head.parameters())
    for _ in range(2):
        loss = F.cross_entropy(F.linear(support, weight, bias), task.support_labels[0])
        steps = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (v - 0.1 * step for v, step in zip((weight, bias), steps, strict=True))
    expected = F.linear(query, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
