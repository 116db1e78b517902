"""Two heads that judge together, against a loop over queries and classes."""

import math

import pytest
import torch

from metafilm import MetafilmError, heads
from metafilm.heads import BlendHead, FeatureTransform, LinearHead

CELLS, CHANNELS = 4, 3
GENERATOR = torch.Generator().manual_seed(0)
SUPPORT = torch.randn(2, 7, CHANNELS * CELLS, generator=GENERATOR, dtype=torch.float64)
QUERY = torch.randn(2, 4, CHANNELS * CELLS, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([[0, 0, 1, 2, 2, 2, 0], [2, 1, 1, 1, 0, 2, 2]])
PAIRS = [
    ("cosine", "reconstruction"),
    ("descriptors", "prototype"),
    ("descriptors", "reconstruction"),
    ("cosine", "ridge"),
]
STEPS = ("centre", "power", "normalise")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def blend(first: str, second: str, transform=()) -> BlendHead:
    module = heads.build(
        first, CHANNELS * CELLS, 3, transform=transform, cells=CELLS, blend=second, blend_weight=0.3
    )
    assert isinstance(module, BlendHead)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3)
        if module.transform is not None:
            module.transform.mean.fill_(0.1)
    return module.double().eval()


def whole(image: torch.Tensor) -> torch.Tensor:
    """The mean over the cells, from features laid out map by map."""
    return torch.stack([image[c * CELLS : (c + 1) * CELLS].sum() / CELLS for c in range(CHANNELS)])


def as_taken(head: torch.nn.Module, module: BlendHead, images: torch.Tensor, averaged: bool) -> torch.Tensor:
    """What one of the two sees of ``[n, D]``."""
    if head.local:
        return images
    rows = [whole(image) if averaged else image for image in images]
    return torch.stack([row if module.transform is None else module.transform(row) for row in rows])


@pytest.mark.parametrize("transform", [(), STEPS])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_log_probabilities_are_added(first, second, transform) -> None:
    if transform and (first, second) == ("descriptors", "reconstruction"):
        return
    module = blend(first, second, transform)
    averaged = "descriptors" in (first, second) or "reconstruction" in (first, second)
    state = module.fit(module.seen(SUPPORT), LABELS, 3)
    found = module.predict(state, module.seen(QUERY))
    for task in range(2):
        for i in range(4):
            logs = []
            for head in (module.first, module.second):
                support = as_taken(head, module, SUPPORT[task], averaged)[None]
                query = as_taken(head, module, QUERY[task, i : i + 1], averaged)[None]
                fitted = head.fit(support, LABELS[task : task + 1], 3)
                logits = head.predict(fitted, query)[0, 0].tolist()
                total = sum(math.exp(x) for x in logits)
                logs.append([x - math.log(total) for x in logits])
            expected = [0.7 * a + 0.3 * b for a, b in zip(*logs, strict=True)]
            torch.testing.assert_close(found[task, i].tolist(), expected, **EXACT)
        mine = {name: value[task : task + 1] for name, value in state.items()}
        layers = module.plain_with_transform(mine)
        torch.testing.assert_close(layers(QUERY[task]), found[task], **EXACT)
    shapes = module.state_shapes(3, CHANNELS * CELLS)
    assert shapes.keys() == state.keys()
    for key, value in state.items():
        assert all(w in (None, h) for w, h in zip(shapes[key], value.shape[1:], strict=True))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_at_either_end_it_is_one_head_alone(first, second) -> None:
    module = blend(first, second)
    state = module.fit(SUPPORT, LABELS, 3)
    for weight, name, head in ((0.0, "first", module.first), (1.0, "second", module.second)):
        module.weight = weight
        alone = heads.blend.own(state, name)
        averaged = module.whole_size(CHANNELS * CELLS) == CHANNELS
        seen = module.whole(QUERY) if averaged and not head.local else QUERY
        expected = head.predict(alone, seen).softmax(-1)
        torch.testing.assert_close(module.predict(state, QUERY).softmax(-1), expected, **EXACT)


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_inner_loss_is_the_heads_own_and_bounds_that_of_the_blend(first, second, views) -> None:
    module = blend(first, second)
    copies = SUPPORT + 0.2 if views else None
    found = module.inner_loss(SUPPORT, LABELS, 3, copies)
    parts = []
    for head in (module.first, module.second):
        averaged = module.whole_size(CHANNELS * CELLS) == CHANNELS and not head.local
        seen = [module.whole(x) if averaged and x is not None else x for x in (SUPPORT, copies)]
        parts.append(head.inner_loss(seen[0], LABELS, 3, seen[1]))
    torch.testing.assert_close(found, 0.7 * parts[0] + 0.3 * parts[1], **EXACT)
    logits = module.predict(module.fit(SUPPORT, LABELS, 3), SUPPORT)
    own = [
        torch.nn.functional.cross_entropy(
            head.predict(
                heads.blend.own(module.fit(SUPPORT, LABELS, 3), name), module._of(head, SUPPORT)
            ).flatten(0, 1),
            LABELS.flatten(),
        )
        for name, head in (("first", module.first), ("second", module.second))
    ]
    assert module.loss(logits, LABELS).mean() <= 0.7 * own[0] + 0.3 * own[1] + 1e-9


def test_what_can_not_be_blended() -> None:
    with pytest.raises(MetafilmError, match=r"weight must be between 0 and 1, is 1\.5"):
        heads.build("cosine", 4, 3, blend="ridge", blend_weight=1.5)
    with pytest.raises(MetafilmError, match="LinearHead is not fitted to the support"):
        BlendHead(heads.build("cosine", 4, 3), LinearHead(4, 3), 0.5)
    with pytest.raises(MetafilmError, match="unknown head 'median'"):
        heads.build("cosine", 4, 3, blend="median")
    for name, other in (("median", "descriptors"), ("descriptors", "median")):
        with pytest.raises(MetafilmError, match="unknown head 'median'; expected one of prototype"):
            heads.build(name, 4, 3, blend=other)
    assert isinstance(blend("cosine", "reconstruction", STEPS).transform, FeatureTransform)
