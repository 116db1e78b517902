"""What a GPU computes is what the processor does; to be run wherever there is one."""

import copy

import numpy as np
import pytest
import torch

import episodes
from episodes import Episode
from metafilm import FewShotClassifier, norms
from metafilm.engine.affine import affine_relu
from metafilm.engine.device import device_named, readable
from metafilm.errors import MetafilmError
from metafilm.evaluation import evaluate
from metafilm.training.randomness import OUTER, drawn

here = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there() -> None:
    assert device_named("auto") == device_named("cpu") == torch.device("cpu")
    with pytest.raises(MetafilmError, match="PyTorch sees no GPU here; use cpu or auto"):
        device_named("cuda")
    with pytest.raises(MetafilmError, match="device is 'gpu'; use auto, cpu or cuda"):
        device_named("gpu")  # type: ignore[arg-type]
    assert readable(torch.zeros(1))


@here
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_affine_relu(tasks: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(tasks * 2, 8, 5, 4).to(dtype), torch.randn(tasks, 8), torch.randn(tasks, 8)
    found = []
    for device in ("cpu", "cuda"):
        mine = [part.to(device).requires_grad_() for part in inputs]
        out = affine_relu(*mine)
        out.float().square().sum().backward()
        found.append([out, *(part.grad for part in mine)])
    loose = {} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.3}
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, **({"rtol": 1e-4, "atol": 1e-4} | loose))


@here
@pytest.mark.parametrize("norm", norms.MODES)
@pytest.mark.parametrize("inner", [{"steps": 0}, {"steps": 2}, {"steps": 2, "first_order": True}])
def test_the_outer_gradient(make_learner, make_episode, outer_loss, norm, inner) -> None:
    learner, episode = make_learner(backbone={"norm": norm}, inner=inner), make_episode()
    found = []
    for device in ("cpu", "cuda"):
        mine = copy.deepcopy(learner).to(device)
        loss = outer_loss(mine, episode.to(device))
        loss.backward()
        gradients = {name: p.grad.cpu() for name, p in mine.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach().cpu(), **gradients})
    assert found[0].keys() == found[1].keys()
    for name, ours in found[0].items():
        torch.testing.assert_close(found[1][name], ours, rtol=1e-6, atol=1e-8)


@here
def test_a_step_draws_the_same_again_and_nothing_of_the_callers() -> None:
    before, found = torch.cuda.get_rng_state(), []
    for _ in range(2):
        with drawn(0, 3, OUTER, torch.device("cuda")):
            found.append(torch.rand(4, device="cuda"))
    assert torch.equal(*found) and torch.equal(torch.cuda.get_rng_state(), before)


@here
def test_an_evaluation(make_learner, sampler) -> None:
    learner = make_learner()
    ours, theirs = (
        evaluate(copy.deepcopy(learner).to(device), sampler, 6, progress=False) for device in ("cpu", "cuda")
    )
    assert theirs["accuracy_by_step"] == pytest.approx(ours["accuracy_by_step"])


@here
def test_a_classifier(tmp_path) -> None:
    pool = episodes.load("strokes", "val")
    images = pool.images.view(-1, int(pool.counts[0]), 1, 28, 28)[:4, :10]
    support, queries = images[:, :5].flatten(0, 1), images[:, 5:].flatten(0, 1)
    labels = torch.arange(4).repeat_interleave(5).numpy()
    ours, theirs = (FewShotClassifier(device=device).fit(support, labels) for device in ("cpu", "cuda"))
    assert theirs.learner_.mean.is_cuda and not ours.learner_.mean.is_cuda
    theirs.save(tmp_path / "classifier.safetensors")
    home, again = (
        FewShotClassifier.load(tmp_path / "classifier.safetensors", device=device)
        for device in ("cpu", "cuda")
    )
    wanted = ours.predict_proba(queries)
    for one in (theirs, home, again):
        np.testing.assert_allclose(one.predict_proba(queries), wanted, rtol=1e-4, atol=1e-5)
    assert len(theirs.partial_fit(support, labels).predict(queries)) == len(queries)


@here
def test_a_task_is_taken_home(make_learner, make_episode) -> None:
    """Adapted on a GPU, used on the processor."""
    learner, episode = make_learner(), make_episode(1)
    assert isinstance(episode, Episode)
    task = copy.deepcopy(learner).cuda().adapt(episode.support_images[0], episode.support_labels[0].tolist())
    alone = learner.adapt(episode.support_images[0], episode.support_labels[0].tolist())
    ours, theirs = (one.predict_proba(episode.query_images[0]) for one in (alone, task))
    torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-5, atol=1e-6)
