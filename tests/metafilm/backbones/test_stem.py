"""What comes before the first deviation, once for many passes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metafilm import MetaFiLM, film
from metafilm.backbones import Pretrained
from metafilm.backbones.stem import Stem

NAME, SHAPE = "torchvision:mobilenet_v2", (3, 32, 32)


@pytest.fixture(scope="module")
def backbone() -> Pretrained:
    torch.manual_seed(0)
    return film.insert(Pretrained(NAME, SHAPE).requires_grad_(False).eval())


def counted(backbone: Pretrained, monkeypatch) -> list[int]:
    """How many channels each convolution takes that is run from now on."""
    seen: list[int] = []
    plain = F.conv2d

    def noting(x, *arguments, **named):
        seen.append(x.shape[1])
        return plain(x, *arguments, **named)

    monkeypatch.setattr(F, "conv2d", noting)
    return seen


def test_a_stem_gives_what_the_images_give_and_is_computed_once(backbone, monkeypatch):
    x = torch.rand(2, *SHAPE)
    moved = {name: value + 0.1 for name, value in film.zeros(backbone, 1).items()}
    plain = film.call(backbone, moved, x)
    seen = counted(backbone, monkeypatch)
    stem = backbone.stem(x)
    assert isinstance(stem, Stem) and seen == [3]
    for _ in range(2):
        assert torch.equal(film.call(backbone, moved, stem), plain)
    assert seen.count(3) == 1
    film.call(backbone, moved, x)
    assert seen.count(3) == 2


def test_an_inner_loop_computes_it_once(monkeypatch):
    learner = MetaFiLM.from_backbone(NAME, SHAPE, weights=None, steps=3, gate=False)
    seen = counted(learner.backbone, monkeypatch)
    learner.adapt(torch.rand(4, *SHAPE), [0, 0, 1, 1])
    assert seen.count(3) == 2  # the inner loop's, and that of the prototypes at the end


def test_two_copies_and_other_images_have_stems_of_their_own(backbone):
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.network.features[0][0].weight.mul_(2)
    x, other = torch.rand(2, *SHAPE), torch.rand(2, *SHAPE)
    assert torch.equal(backbone(backbone.stem(x)), backbone(x))
    assert torch.equal(twin(twin.stem(x)), twin(x)) and not torch.equal(twin(x), backbone(x))
    with backbone.stem(x).in_place():
        assert torch.equal(backbone(other), copy.deepcopy(backbone)(other))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda backbone: backbone.network.features[0][0].requires_grad_(),
        lambda backbone: film.insert(backbone, ["network.features.0.0"]),
        lambda backbone: backbone.network.features[0][0].register_forward_hook(lambda *_: None),
    ],
    ids=["learns", "site", "hook"],
)
def test_no_stem_where_the_first_convolution_is_not_a_constant(backbone, spoil):
    backbone = copy.deepcopy(backbone)
    x = torch.rand(2, *SHAPE)
    assert isinstance(backbone.stem(x), Stem)
    spoil(backbone)
    assert backbone.stem(x) is x
    assert backbone.stem(torch.rand(2, *SHAPE, requires_grad=True)).requires_grad


def test_maps_that_are_overwritten_are_made_anew():
    torch.manual_seed(0)
    backbone = Pretrained("torchvision:vgg11", SHAPE).requires_grad_(False).eval()
    backbone.network.features[1] = nn.Hardswish(inplace=True)
    x = torch.rand(1, *SHAPE)
    stem, plain = backbone.stem(x), backbone(x)
    assert isinstance(stem, Stem)
    for _ in range(2):
        assert torch.equal(backbone(stem), plain)
