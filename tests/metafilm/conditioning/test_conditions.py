"""Condition networks: deviations per example, against an example at a time; zero at the start."""

import pytest
import torch

from metafilm import MetafilmError, film
from metafilm.conditioning import (
    DECODERS,
    MODULATIONS,
    ClassEncoder,
    ClassTable,
    DualAttention,
    NoCondition,
    SequenceEncoder,
    VectorEncoder,
    over_map,
    sinusoid,
)

SITES = {"a": 3, "b.c": 5}
MAPS = {"a": (2, 4), "b.c": (3,)}
WORDS = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [2, 0, 3, 0], [1, 1, 2, 4]])


def sequence(**settings):
    return SequenceEncoder(5, SITES, 4, 6, **settings), WORDS


def classes(**settings):
    return ClassEncoder(4, SITES, 6, **settings), torch.tensor([3, 0, 0, 2])


def vector(**settings):
    numbers = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    return VectorEncoder(2, SITES, 6, 2, **settings), numbers


NETWORKS = {"sequence": sequence, "classes": classes, "vector": vector}


def made(kind, awake=True, **settings):
    torch.manual_seed(0)
    network, condition = NETWORKS[kind](**settings)
    if awake:
        torch.nn.init.normal_(network.multiplier)
    network.double()
    return network, condition.double() if condition.is_floating_point() else condition


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_examples_together_are_each_alone_and_start_at_zero(kind, decoder) -> None:
    network, condition = made(kind, decoder=decoder)
    found = network(condition)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (4, features) for site, features in SITES.items() for name in film.names(site)
    }
    for b in range(4):
        for name, value in network(condition[b : b + 1]).items():
            torch.testing.assert_close(found[name][b : b + 1], value)
    assert all((value[0] - value[1]).abs().max() > 1e-4 for value in found.values())
    asleep, condition = made(kind, awake=False, decoder=decoder)
    assert not any(value.any() for value in asleep(condition).values())


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("scale", ["site", "feature"])
def test_gradients(kind, modulation, scale) -> None:
    network, condition = made(kind, modulation=modulation, scale=scale)
    parameters = dict(network.named_parameters())

    def run(*values):
        given = dict(zip(parameters, values, strict=True))
        return tuple(torch.func.functional_call(network, given, (condition,)).values())

    assert torch.autograd.gradcheck(run, tuple(parameters.values()), fast_mode=True)


@pytest.mark.parametrize("kind", NETWORKS)
def test_they_wake_from_the_identity(kind) -> None:
    network, condition = made(kind, awake=False)
    for step in range(3):
        found = torch.cat(list(network(condition).values()), -1)
        assert found.any() or step == 0
        network.zero_grad()
        (found - 1).square().mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_modulations(modulation) -> None:
    network, condition = made("classes", modulation=modulation)
    code = network.encode(condition)
    raw = network.decoder(code) * network.multiplier[network.owner]
    found = network(condition)
    gains = modulation != "shift"
    biases = modulation not in ("gain", "gated")
    kinds = [kind for kind, there in ((0, gains), (1, biases)) if there]
    names = [film.names(site)[kind] for site in SITES for kind in kinds]
    assert list(found) == names
    features = [size for size in SITES.values() for _ in kinds]
    maps = torch.rand(len(raw), 1, generator=torch.Generator().manual_seed(0))
    for name, value in zip(names, raw.split(features, 1), strict=True):
        if name.endswith(film.BIAS):
            torch.testing.assert_close(found[name], value)
            continue
        gain = {"gated": 2 * value.sigmoid(), "bounded": 2 * value.sigmoid(), "raw": value}
        torch.testing.assert_close((1 + found[name]) * maps, gain.get(modulation, 1 + value) * maps)


def test_raw_gains_start_without_the_identity() -> None:
    network, condition = made("classes", awake=False, modulation="raw")
    found = network(condition)
    whole = torch.cat([value + name.endswith(film.GAIN) for name, value in found.items()], 1)
    torch.testing.assert_close(whole, network.decoder(network.encode(condition)))
    network, condition = made("classes", awake=False, modulation="bounded")
    assert not any(value.any() for value in network(condition).values())


def test_gains_over_the_map_against_loops() -> None:
    for modulation in ("film", "gain", "gated"):
        network, condition = made("sequence", modulation=modulation, maps=MAPS)
        found = network(condition)
        raw = network.decoder(network.encode(condition)) * network.multiplier[network.owner]
        at = 0
        for site, features in SITES.items():
            gain, shift = film.names(site)
            channels, at = raw[:, at : at + features], at + features
            if modulation == "film":
                assert torch.equal(found[shift], raw[:, at : at + features])
                at += features
            axes = []
            for size in MAPS[site]:
                axes.append(raw[:, at : at + size])
                at += size
            assert found[gain].shape == (4, features, *MAPS[site])
            for index in torch.cartesian_prod(*(torch.arange(s) for s in found[gain].shape)).tolist():
                b, c, *place = index
                expected = channels[b, c] + sum(axis[b, p] for axis, p in zip(axes, place, strict=True))
                if modulation == "gated":
                    expected = 2 * expected.sigmoid() - 1
                torch.testing.assert_close(found[gain][tuple(index)], expected)
        assert at == raw.shape[1]
        asleep, _ = made("sequence", awake=False, modulation=modulation, maps=MAPS)
        assert not any(value.any() for value in asleep(condition).values())
    assert over_map(torch.ones(2, 3)).shape == (2, 3)


def test_a_sequence_s_last_word_ends_it() -> None:
    network, _ = made("sequence")
    padded = torch.cat((WORDS, torch.zeros(4, 3, dtype=torch.int64)), 1)
    torch.testing.assert_close(network.encode(padded), network.encode(WORDS))
    for row in WORDS:  # word by word, as the unit is defined
        state = torch.zeros(1, 6, dtype=torch.float64)
        last = int(row.nonzero().max()) + 1
        for word in row[:last]:
            _, after = network.gru(network.embedding(word).view(1, 1, -1), state.unsqueeze(0))
            state = after[0]
        expected = (state - state.mean()) / (state.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(network.encode(row.unsqueeze(0)), expected)
    assert not network.encode(torch.zeros(2, 4, dtype=torch.int64)).any()


def test_an_early_word_is_heard_at_the_end() -> None:
    """What sentences that differ in their first word alone differ by, against those that differ in the last,
    before any training."""
    torch.manual_seed(0)
    network = SequenceEncoder(20, SITES, width=128)
    same = torch.randint(1, 20, (1, 7)).expand(19, 7)
    words = torch.arange(1, 20).unsqueeze(1)
    first, last = (network.encode(torch.cat(parts, 1)) for parts in ((words, same), (same, words)))
    assert first.std(0).mean() > 0.1 * last.std(0).mean()


def test_no_places_are_no_words() -> None:
    network = SequenceEncoder(5, SITES)
    none = network.encode(torch.zeros(3, 0, dtype=torch.int64))
    assert torch.equal(none, network.encode(torch.zeros(3, 4, dtype=torch.int64))) and not none.any()


@pytest.mark.parametrize(("modulation", "usual"), [("film", 0), ("raw", 1)])
def test_where_multipliers_start(modulation, usual) -> None:
    """Unless somebody says so at the identity; √6 has deviations of size about 1."""
    torch.manual_seed(0)
    assert (SequenceEncoder(9, SITES, modulation=modulation).multiplier == usual).all()
    network = SequenceEncoder(20, SITES, width=128, modulation=modulation, start=6**0.5)
    with torch.no_grad():
        found = torch.cat(list(network(torch.randint(1, 20, (500, 8))).values()), 1)
    assert 0.7 < float(found.std()) < 2


def test_mixtures_of_classes() -> None:
    encoder, _ = made("classes")
    table = ClassTable(4, SITES).double()
    assert not any(value.any() for value in table(torch.tensor([1])).values())
    for row in table.rows:
        torch.nn.init.normal_(row)
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for name, value in table(weights).items():
        one = [table(torch.tensor([i]))[name][0] for i in range(4)]
        torch.testing.assert_close(value, torch.stack(((one[0] + one[1]) / 2, one[3])))
    torch.testing.assert_close(encoder.encode(weights)[1:], encoder.encode(torch.tensor([3])))
    loss = sum(value.square().sum() for value in table(torch.tensor([2, 2])).values())
    loss.backward()
    assert all(row.grad[2].any() and not row.grad[[0, 1, 3]].any() for row in table.rows)


def test_a_sinusoid_tells_times_apart() -> None:
    time = torch.linspace(0, 1, 11, dtype=torch.float64)
    found = sinusoid(time, 8, 100.0)
    for i, t in enumerate(time.tolist()):
        for k in range(4):
            angle = torch.tensor(t * 100.0 ** (-k / 3), dtype=torch.float64)
            torch.testing.assert_close(found[i, k], angle.cos())
            torch.testing.assert_close(found[i, 4 + k], angle.sin())
    assert torch.cdist(found, found).fill_diagonal_(1).min() > 0.05


def test_dual_attention_against_loops() -> None:
    torch.manual_seed(0)
    network = DualAttention(5, {"site": 5}, 4, 6).double()
    torch.nn.init.normal_(network.multiplier)
    features = torch.randn(4, 5, 2, 3, dtype=torch.float64)
    found = network(WORDS, features)
    assert list(found) == [film.names("site")[0]]
    for b in range(4):
        chosen = sorted({int(word) for word in WORDS[b] if word})
        scores = features[b, chosen].sum(0)
        places = scores.exp() / scores.exp().sum()
        values = network.decoder(network.encode(WORDS[b : b + 1])) * network.multiplier
        gate = values[0].sigmoid()
        for c in range(5):
            torch.testing.assert_close(found[film.names("site")[0]][b, c] + 1, places * gate[c])
    assert torch.autograd.gradcheck(
        lambda f: tuple(network(WORDS, f).values()), (features.requires_grad_(),), fast_mode=True
    )


def test_no_condition() -> None:
    assert NoCondition()(WORDS) == {}


def test_errors() -> None:
    with pytest.raises(MetafilmError, match="a sequence encoder needs at least one FiLM site"):
        SequenceEncoder(5, {})
    with pytest.raises(
        MetafilmError, match="unknown class encoder modulation 'x'; expected one of film, gain"
    ):
        ClassEncoder(5, SITES, modulation="x")
    with pytest.raises(MetafilmError, match="maps of z with modulation 'film' and the sites a, b"):
        VectorEncoder(2, SITES, maps={"z": (2, 2)})
    with pytest.raises(MetafilmError, match="a modulation with a gain"):
        VectorEncoder(2, SITES, modulation="shift", maps=MAPS)
    with pytest.raises(
        MetafilmError, match="words from 1 to 7 in a vocabulary of 5; number them from 1 to 4"
    ):
        sequence()[0](torch.tensor([[1, 7]]))
    with pytest.raises(
        MetafilmError, match=r"shape \(4, 4\) and type torch.float32, expected \[examples, words\]"
    ):
        sequence()[0](WORDS.float())
    with pytest.raises(MetafilmError, match="a vocabulary of 1"):
        SequenceEncoder(1, SITES)
    with pytest.raises(MetafilmError, match="classes 0 to 4 of 4; number them from 0"):
        classes()[0](torch.tensor([0, 4]))
    with pytest.raises(
        MetafilmError, match=r"weights of classes have shape \(2, 3\), expected \[examples, 4\]"
    ):
        classes()[0](torch.rand(2, 3))
    with pytest.raises(MetafilmError, match=r"expected \[examples\] torch.int64"):
        classes()[0](torch.tensor([[1]]))
    with pytest.raises(MetafilmError, match="a class encoder of 0 classes"):
        ClassEncoder(0, SITES)
    with pytest.raises(MetafilmError, match="a class table of 3 classes and 0 FiLM sites"):
        ClassTable(3, {})
    with pytest.raises(MetafilmError, match=r"the condition has shape \(2, 3\), expected \[examples, 2\]"):
        vector()[0](torch.rand(2, 3))
    with pytest.raises(MetafilmError, match="a sinusoid of size 3"):
        sinusoid(torch.zeros(1), 3)
    with pytest.raises(MetafilmError, match="has a feature per word, at one site"):
        DualAttention(5, SITES)
