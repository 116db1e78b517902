"""Heads that compare the cells of maps, against loops and formulas that can be read in a minute."""

import math

import pytest
import torch
from torch.nn import functional as F

from metafilm import MetafilmError, heads
from metafilm.heads import DescriptorsHead, ReconstructionHead, reconstruction
from metafilm.heads.local import LocalHead

CELLS, CHANNELS = 4, 3
GENERATOR = torch.Generator().manual_seed(0)
SUPPORT = torch.randn(2, 7, CHANNELS * CELLS, generator=GENERATOR, dtype=torch.float64)
QUERY = torch.randn(2, 4, CHANNELS * CELLS, generator=GENERATOR, dtype=torch.float64)
# unbalanced: class 1 has one image in the first task, class 0 in the second
LABELS = torch.tensor([[0, 0, 1, 2, 2, 2, 0], [2, 1, 1, 1, 0, 2, 2]])
NAMES = ["descriptors", "reconstruction"]
NEAREST = 6  # more than the cells of one image, fewer than those of two


def head(name: str) -> LocalHead:
    kind = {"descriptors": DescriptorsHead, "reconstruction": ReconstructionHead}[name]
    options = {"nearest": NEAREST} if name == "descriptors" else {}
    made = kind(CHANNELS * CELLS, 0.7, CELLS, **options).double()
    with torch.no_grad():
        made.log_scale.fill_(math.log(0.7))
        if name == "reconstruction":
            made.log_lambda.fill_(math.log(0.3))
            made.log_rho.fill_(math.log(1.2))
    return made


def cells(image: torch.Tensor) -> list[torch.Tensor]:
    """The vector of each cell, from features laid out map by map."""
    return [torch.stack([image[c * CELLS + i] for c in range(CHANNELS)]) for i in range(CELLS)]


def logit(name: str, image: torch.Tensor, members: list[torch.Tensor], task: int) -> torch.Tensor:
    """One image against one class's support images."""
    known = [cell for member in members for cell in cells(member)]
    if name == "descriptors":
        nearest = []
        for x in cells(image):
            cosines = sorted((float(x @ y / x.norm() / y.norm()) for y in known), reverse=True)
            nearest.append(sum(cosines[:NEAREST]) / len(cosines[:NEAREST]))
        return torch.tensor(0.7 * sum(nearest) / CELLS, dtype=torch.float64)
    squares = [cell.square().sum() for one in SUPPORT[task] for cell in cells(one)]
    size = torch.stack(squares).mean().rsqrt()
    s, q = torch.stack(known) * size, torch.stack(cells(image)) * size
    weight = 0.3 * len(members) * CELLS / CHANNELS
    # the other side of Woodbury's identity: a system of as many equations as cells
    ridge = weight * torch.eye(len(known), dtype=torch.float64)
    rebuilt = 1.2 * q @ s.T @ torch.linalg.inv(s @ s.T + ridge) @ s
    return -0.7 * (q - rebuilt).square().sum(-1).mean()


def members(task: int, c: int, leave_out: int | None = None) -> list[torch.Tensor]:
    chosen = [SUPPORT[task, i] for i in range(7) if LABELS[task, i] == c and i != leave_out]
    return chosen or [SUPPORT[task, leave_out]]


@pytest.mark.parametrize("name", NAMES)
def test_prediction(name) -> None:
    module = head(name)
    found = module.predict(module.fit(SUPPORT, LABELS, 3), QUERY)
    for task in range(2):
        for i in range(4):
            expected = [logit(name, QUERY[task, i], members(task, c), task) for c in range(3)]
            torch.testing.assert_close(found[task, i], torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("views", [0, 1, 3])
def test_inner_loss_leaves_the_scored_image_out(name, views) -> None:
    copies = max(views, 1)
    scored = SUPPORT.repeat(1, copies, 1)
    if views:
        scored = scored + 0.3 * torch.randn(scored.shape, generator=torch.Generator().manual_seed(1)).double()
    found = head(name).inner_loss(SUPPORT, LABELS, 3, scored if views else None)
    for task in range(2):
        losses = []
        for i in range(7 * copies):
            row, label = [], int(LABELS[task, i % 7])
            for c in range(3):
                own = members(task, c, i % 7 if c == label else None)
                row.append(logit(name, scored[task, i], own, task))
            losses.append(F.cross_entropy(torch.stack(row)[None], torch.tensor([label])))
        torch.testing.assert_close(found[task], torch.stack(losses).mean(), rtol=1e-9, atol=1e-9)


def test_reconstruction_by_images_or_by_cells_is_the_same(monkeypatch) -> None:
    """Few channels take the one way, many the other; here both are made to take both."""
    module = head("reconstruction")

    def both() -> tuple[torch.Tensor, ...]:
        support, query = (x.clone().requires_grad_() for x in (SUPPORT, QUERY))
        logits = module.predict(module.fit(support, LABELS, 3), query)
        loss = module.inner_loss(support, LABELS, 3, None)
        return logits, loss, *torch.autograd.grad(logits.square().sum() + loss.sum(), (support, query))

    assert reconstruction.by_images(torch.empty(1, 1, 25, 64), 5)
    assert not reconstruction.by_images(torch.empty(1, 1, 25, 640), 5)
    found = []
    for chosen in (True, False):
        monkeypatch.setattr(reconstruction, "by_images", lambda cells, ways, chosen=chosen: chosen)
        found.append(both())
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_tasks_apart_and_the_plain_module(name) -> None:
    module = head(name)
    state = module.fit(SUPPORT, LABELS, 3)
    found = module.predict(state, QUERY)
    losses = module.inner_loss(SUPPORT, LABELS, 3, SUPPORT + 0.1)
    for task in range(2):
        one = slice(task, task + 1)
        alone = module.fit(SUPPORT[one], LABELS[one], 3)
        torch.testing.assert_close(module.predict(alone, QUERY[one]), found[one], rtol=1e-9, atol=1e-9)
        loss = module.inner_loss(SUPPORT[one], LABELS[one], 3, SUPPORT[one] + 0.1)
        torch.testing.assert_close(loss, losses[one], rtol=1e-9, atol=1e-9)
        mine = {name: value[one] for name, value in state.items()}
        torch.testing.assert_close(module.plain(mine)(QUERY[task]), found[task], rtol=1e-9, atol=1e-9)
        shapes = module.state_shapes(3, CHANNELS * CELLS)
        for key, value in alone.items():
            assert all(w in (None, h) for w, h in zip(shapes[key], value.shape[1:], strict=True))
    counts = F.one_hot(LABELS, 3).sum(1).double()
    torch.testing.assert_close(module.familiarity(state, QUERY, counts), found.amax(-1) / 0.7)


@pytest.mark.parametrize("name", NAMES)
def test_two_derivatives(name) -> None:
    module = head(name)
    support, query = SUPPORT[:, :4].clone().requires_grad_(), QUERY[:, :2].clone().requires_grad_()
    labels = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 1]])
    views = 1.1 * QUERY[:, :4]

    def both(support, query, *parameters):
        predicted = module.predict(module.fit(support, labels, 2), query)
        return (
            predicted,
            module.inner_loss(support, labels, 2, views),
            module.inner_loss(support, labels, 2, None),
        )

    inputs = (support, query, *module.parameters())
    assert torch.autograd.gradcheck(both, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(both, inputs, fast_mode=True)


def test_of_one_cell_the_nearest_descriptor_is_the_largest_cosine() -> None:
    module = DescriptorsHead(5, 2.0, 1, nearest=1).double()
    support, query = SUPPORT[..., :5], QUERY[..., :5]
    found = module.predict(module.fit(support, LABELS, 3), query)
    cosines = F.cosine_similarity(query[0, 0].expand(7, 5), support[0], dim=-1)
    expected = [2 * cosines[LABELS[0] == c].max() for c in range(3)]
    torch.testing.assert_close(found[0, 0], torch.stack(expected))


def test_whole_images_are_the_mean_over_cells() -> None:
    module = head("descriptors")
    expected = torch.stack([torch.stack(cells(image)).mean(0) for image in QUERY[0]])
    torch.testing.assert_close(module.whole(QUERY[0]), expected)
    assert module.whole(torch.zeros(2, CHANNELS * 9)).shape == (2, module.whole_size(CHANNELS * CELLS))


def test_errors() -> None:
    with pytest.raises(MetafilmError, match="12 features can't be maps of 5 cells each"):
        heads.build("descriptors", 12, 3, cells=5)
    with pytest.raises(MetafilmError, match=r"head scale -1\.0 must be positive"):
        heads.build("reconstruction", 12, 3, -1.0, cells=4)
