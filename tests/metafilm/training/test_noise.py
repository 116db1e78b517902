"""Stochastic FiLM: what it does to the network, and that it depends on seed and episode alone."""

import pytest
import torch

from episodes import Episode
from metafilm import film
from metafilm.config.sources import Source
from metafilm.training.noise import FilmNoise, underlaid
from metafilm.training.outer_gradient import accumulate
from metafilm.training.outer_loop import OuterLoop

SITES = {"a": 3000, "b": 2000}


def test_its_scales_and_that_tasks_and_features_have_their_own() -> None:
    drawn = FilmNoise(2.0, 0).draw(SITES, torch.arange(5))
    assert [tuple(value.shape) for value in drawn.values()] == [(5, 3000)] * 2 + [(5, 2000)] * 2
    for name, value in drawn.items():
        expected = 2.0 * (0.3 if name.endswith("gamma") else 0.5)
        assert value.std().item() == pytest.approx(expected, rel=0.03)
        assert value.mean().item() == pytest.approx(0, abs=0.03)
    every = torch.cat(list(drawn.values()), 1)
    assert len(every.flatten().unique()) == every.numel()
    assert torch.corrcoef(every).triu(1).abs().max() < 0.06


def test_it_is_a_function_of_seed_and_episode() -> None:
    noise = FilmNoise(1.0, 3)
    together = noise.draw(SITES, torch.tensor([7, 2, 9]))
    for t, number in enumerate((7, 2, 9)):
        for name, value in FilmNoise(1.0, 3).draw(SITES, torch.tensor([number])).items():
            assert torch.equal(value[0], together[name][t])
    other = FilmNoise(1.0, 4).draw(SITES, torch.tensor([7]))
    assert not torch.equal(other["a.film.delta_gamma"][0], together["a.film.delta_gamma"][0])


def test_the_task_s_own_film_comes_after_it(random_film, make_learner) -> None:
    backbone = make_learner().backbone
    noise, own = random_film(backbone, 2, seed=1), random_film(backbone, 2, seed=2)
    found, plain = underlaid(noise, own), underlaid(noise, {})
    for site, size in film.sites(backbone).items():
        gain, bias = film.names(site)
        x = torch.randn(2, size)
        inside = (1 + noise[gain]) * x + noise[bias]
        expected = (1 + own[gain]) * inside + own[bias]
        torch.testing.assert_close((1 + found[gain]) * x + found[bias], expected)
        assert torch.equal(plain[gain], noise[gain]) and torch.equal(plain[bias], noise[bias])


def gradients(learner, episode: Episode, chunk: int | None, **options) -> dict[str, torch.Tensor]:
    learner.zero_grad()
    accumulate(learner, episode, learner.config, query_chunk=chunk, **options)
    return {name: value.grad.clone() for name, value in learner.outer_parameters().items()}


def test_every_pass_of_a_task_is_under_it_whatever_the_chunks(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).train()
    episode, noise = make_episode(tasks=3), FilmNoise(0.5, 1)
    whole = gradients(learner, episode, None, noise=noise)
    parts = gradients(learner, episode, 1, noise=noise)
    plain = gradients(learner, episode, None)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-12, msg=name)
        assert not torch.allclose(plain[name], value), name
    assert learner.underlay is None


def test_it_is_as_if_the_network_s_norms_were_others(make_learner, make_episode) -> None:
    """In the encoder's pass, in the inner steps and for the queries alike."""
    learner = make_learner(inner={"steps": 2}).eval()
    episode, noise = make_episode(tasks=1, seed=1), FilmNoise(0.5, 1)
    with noise.under(learner, episode):
        found = learner(episode, all_stages=True)
    drawn = noise.draw(film.sites(learner.backbone), episode.index)
    with torch.no_grad():
        for site in film.sites(learner.backbone):
            norm = learner.backbone.get_submodule(site)
            gain, bias = (drawn[name][0] for name in film.names(site))
            norm.weight.mul_(1 + gain)
            norm.bias.mul_(1 + gain).add_(bias)
    expected = learner(episode, all_stages=True)
    for ours, theirs in zip(found.predictions, expected.predictions, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_training_has_it_and_evaluation_has_not(make_learner, make_episode) -> None:
    def weights(chunk: int, **outer):
        learner = make_learner(outer={"task_chunk": chunk, **outer})
        loop = OuterLoop(learner, learner.config, Source(None, ()))  # type: ignore[arg-type]
        episode = make_episode(tasks=2)
        loop.step([episode] if chunk == 2 else [episode.select(0), episode.select(1)])
        found = learner.eval()(episode).predictions[-1].detach()
        torch.testing.assert_close(learner(episode).predictions[-1].detach(), found, rtol=0, atol=0)
        assert learner.underlay is None
        return learner.state_dict()["backbone.blocks.0.conv.weight"]

    noisy = weights(1, film_noise=0.5)
    torch.testing.assert_close(weights(2, film_noise=0.5), noisy, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(weights(1), noisy)
    assert not torch.allclose(weights(1, film_noise=0.1), noisy)
