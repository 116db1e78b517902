"""The task encoder: a set in, deviations out, zero at the start."""

import pytest
import torch

from metafilm import MetafilmError, TaskEncoder
from metafilm.conditioning import DECODERS

SITES = {"a": 3, "b.c": 5}
NAMES = ["a.film.delta_gamma", "a.film.delta_beta", "b.c.film.delta_gamma", "b.c.film.delta_beta"]
SIZES = [3, 3, 5, 5]
MEMBERS = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))


def encoder(awake: bool = True, **settings) -> TaskEncoder:
    torch.manual_seed(0)
    made = TaskEncoder(6, SITES, 8, **settings)
    if awake:
        torch.nn.init.normal_(made.multiplier)
    return made


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("pooling", ["mean", "mean-std"])
@pytest.mark.parametrize("scale", ["site", "feature"])
def test_what_it_gives(decoder, pooling, scale) -> None:
    settings = {"decoder": decoder, "pooling": pooling, "scale": scale, "depth": 2}
    found = encoder(**settings)(MEMBERS)
    assert [(name, tuple(value.shape)) for name, value in found.items()] == [
        (name, (2, size)) for name, size in zip(NAMES, SIZES, strict=True)
    ]
    assert all(value.abs().max() > 1e-3 for value in found.values())
    for value in encoder(awake=False, **settings)(MEMBERS).values():
        assert not value.any()


@pytest.mark.parametrize("pooling", ["mean", "mean-std"])
def test_the_order_of_members_does_not_matter_and_tasks_are_apart(pooling) -> None:
    made = encoder(pooling=pooling)
    found, shuffled, second = made(MEMBERS), made(MEMBERS[:, [2, 0, 3, 1]]), made(MEMBERS[1:])
    for name, value in found.items():
        torch.testing.assert_close(value, shuffled[name])
        torch.testing.assert_close(value[1:], second[name])
        assert (value[0] - value[1]).abs().max() > 1e-3


def test_the_post_multiplier_scales_its_own_site_and_kind() -> None:
    for scale, owner in (("site", [0] * 3 + [1] * 3 + [2] * 5 + [3] * 5), ("feature", list(range(16)))):
        made = encoder(scale=scale)
        raw = made.decoder(made.encode(MEMBERS))
        expected = raw * made.multiplier[torch.tensor(owner)]
        torch.testing.assert_close(torch.cat(list(made(MEMBERS).values()), -1), expected)


def test_a_codebook_mixes_its_sets() -> None:
    made = encoder(decoder="codebook", codes=3, scale="feature")
    code = made.encode(MEMBERS)
    scores = code @ made.decoder.blend.weight.T + made.decoder.blend.bias
    shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    mixed = sum(shares[:, m, None] * made.decoder.codes[m] for m in range(3)) * made.multiplier
    torch.testing.assert_close(torch.cat(list(made(MEMBERS).values()), -1), mixed)
    assert encoder(decoder="codebook").decoder.codes.shape == (8, sum(SIZES))
    with pytest.raises(MetafilmError, match="a codebook of 0 codes"):
        encoder(decoder="codebook", codes=0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_wakes_from_the_identity(decoder) -> None:
    """Zero at the start, and after two steps of plain descent every parameter has a gradient."""
    made = encoder(awake=False, decoder=decoder, scale="feature")
    target = torch.randn(2, sum(SIZES), generator=torch.Generator().manual_seed(1))
    for step in range(3):
        found = torch.cat(list(made(MEMBERS).values()), -1)
        assert found.abs().max() > 0 or step == 0
        made.zero_grad()
        (found - target).square().mean().backward()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad.any() for parameter in made.parameters())


def test_equal_members_have_a_finite_gradient() -> None:
    members = MEMBERS[:, :1].repeat(1, 4, 1).requires_grad_()
    sum(value.sum() for value in encoder()(members).values()).backward()
    assert members.grad.isfinite().all()


def test_errors() -> None:
    with pytest.raises(MetafilmError, match="needs at least one FiLM site"):
        TaskEncoder(6, {})
    for setting in ("decoder", "pooling", "scale"):
        with pytest.raises(MetafilmError, match=f"unknown task encoder {setting} 'x'; expected one of"):
            TaskEncoder(6, SITES, **{setting: "x"})


def test_what_a_modulation_leaves_alone_is_zero() -> None:
    for modulation, moving in (("gain", "gamma"), ("shift", "beta"), ("film", "delta"), ("raw", "delta")):
        found = encoder(modulation=modulation)(MEMBERS)
        assert [(name, tuple(value.shape)) for name, value in found.items()] == [
            (name, (2, size)) for name, size in zip(NAMES, SIZES, strict=True)
        ]
        assert {name for name, value in found.items() if value.any()} == {n for n in NAMES if moving in n}
