"""Heads against loops and formulas that can be read in a minute."""

import math

import pytest
import torch
from torch.nn import functional as F

from metafilm import MetafilmError, heads

GENERATOR = torch.Generator().manual_seed(0)
SUPPORT = torch.randn(2, 7, 5, generator=GENERATOR, dtype=torch.float64)
QUERY = torch.randn(2, 4, 5, generator=GENERATOR, dtype=torch.float64)
# unbalanced: class 1 has one image in the first task, class 0 in the second
LABELS = torch.tensor([[0, 0, 1, 2, 2, 2, 0], [2, 1, 1, 1, 0, 2, 2]])


def head(name: str, scale: float = 0.7) -> heads.Head:
    return heads.build(name, 5, 3, scale).double()


def means(task: int, leave_out: int | None = None) -> torch.Tensor:
    rows = []
    for c in range(3):
        chosen = [SUPPORT[task, i] for i in range(7) if LABELS[task, i] == c and i != leave_out]
        chosen = chosen or [SUPPORT[task, leave_out]]
        rows.append(torch.stack(chosen).mean(0))
    return torch.stack(rows)


def logits(name: str, x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """[D], [3, D] -> [3]; the prototype head's lack a term that all classes share."""
    if name == "cosine":
        return 0.7 * torch.stack([x @ p / x.norm() / p.norm() for p in points])
    return 0.7 * torch.stack([x @ x - (x - p).square().sum() for p in points])


def test_prototypes() -> None:
    found = heads.prototypes(SUPPORT, LABELS, 3)
    torch.testing.assert_close(found, torch.stack([means(0), means(1)]))


@pytest.mark.parametrize("name", ["prototype", "cosine"])
def test_prediction(name) -> None:
    module = head(name)
    found = module.predict(module.fit(SUPPORT, LABELS, 3), QUERY)
    expected = torch.stack([torch.stack([logits(name, x, means(t)) for x in QUERY[t]]) for t in range(2)])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["prototype", "cosine"])
@pytest.mark.parametrize("views", [0, 1, 3])
def test_inner_loss_leaves_the_scored_image_out(name, views) -> None:
    """Its own class's prototype is of the others, where there are others; the other classes' are whole."""
    copies = max(views, 1)
    scored = SUPPORT.repeat(1, copies, 1)
    if views:
        scored = scored + 0.3 * torch.randn(scored.shape, generator=torch.Generator().manual_seed(1)).double()
    found = head(name).inner_loss(SUPPORT, LABELS, 3, scored if views else None)
    for task in range(2):
        losses = []
        for copy in range(copies):
            for i in range(7):
                points, label = means(task).clone(), int(LABELS[task, i])
                points[label] = means(task, leave_out=i)[label]
                row = logits(name, scored[task, copy * 7 + i], points)
                losses.append(F.cross_entropy(row[None], LABELS[task, i : i + 1]))
        torch.testing.assert_close(found[task], torch.stack(losses).mean())


def test_ridge_against_the_normal_equations() -> None:
    module = head("ridge", 2.0)
    with torch.no_grad():
        module.log_lambda.fill_(math.log(0.3))
    found = module.predict(module.fit(SUPPORT, LABELS, 3), QUERY)
    for task in range(2):
        size = SUPPORT[task].square().sum(-1).mean().sqrt()
        x, y = SUPPORT[task] / size, F.one_hot(LABELS[task], 3).double()
        weight = torch.linalg.inv(x.T @ x + 0.3 * torch.eye(5)) @ x.T @ y
        torch.testing.assert_close(found[task], 2 * (QUERY[task] / size) @ weight)


@pytest.mark.parametrize("name", ["ridge", "linear"])
def test_inner_loss_of_the_others(name) -> None:
    module = head(name)
    state = module.fit(SUPPORT, LABELS, 3)
    views = torch.cat((SUPPORT + 0.1, SUPPORT - 0.1), 1)
    for scored, labels in ((None, LABELS), (views, torch.cat((LABELS, LABELS), 1))):
        predicted = module.predict(state, SUPPORT if scored is None else scored)
        expected = [F.cross_entropy(predicted[t], labels[t]) for t in range(2)]
        torch.testing.assert_close(module.inner_loss(SUPPORT, LABELS, 3, scored), torch.stack(expected))


def test_linear_is_one_layer_for_all_tasks() -> None:
    module = head("linear")
    found = module.predict(module.fit(SUPPORT[:, :0], LABELS, 3), QUERY)
    torch.testing.assert_close(found, module.linear(QUERY))


def test_regression() -> None:
    module = head("regression")
    found = module.predict(module.fit(SUPPORT[:, :0], LABELS.unsqueeze(-1).double(), 0), QUERY)
    torch.testing.assert_close(found, module.linear(QUERY))
    targets = torch.randn(2, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(module.loss(found, targets), ((found - targets) ** 2).mean((1, 2)))


@pytest.mark.parametrize("name", heads.HEADS)
def test_one_loss_per_task(name) -> None:
    module = head(name)
    predicted = torch.randn(2, 4, 1 if name == "regression" else 3).double()
    targets = (
        torch.randn(2, 4, 1).double() if name == "regression" else torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    )
    loss = module.loss(predicted, targets)
    assert loss.shape == (2,)
    torch.testing.assert_close(loss[1:], module.loss(predicted[1:], targets[1:]))


def test_errors() -> None:
    with pytest.raises(MetafilmError, match=r"unknown head 'svm'; expected one of prototype"):
        heads.build("svm", 5, 3, 1.0)
    for name in ("prototype", "cosine", "ridge"):
        with pytest.raises(MetafilmError, match=r"head scale -1\.0 must be positive"):
            heads.build(name, 5, 3, -1.0)
    with pytest.raises(MetafilmError, match="built for 3 ways and can't tell 5 apart"):
        head("linear").fit(SUPPORT, LABELS, 5)
    wide = torch.zeros(2, 4, 2).double()
    expected = r"targets have shape \(2, 4, 2\), expected \(tasks, points, 1\); give 1 value for each input"
    with pytest.raises(MetafilmError, match=expected):
        head("regression").fit(SUPPORT, wide, 0)
    for labels in (wide, wide[..., 0]):
        with pytest.raises(MetafilmError, match=r"targets have shape \(2, 4"):
            head("regression").loss(wide[..., :1], labels)


def test_what_a_head_measures() -> None:
    logits = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 4.0]], [[1.0, 2.0]] * 4])
    labels = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0]])
    head = heads.build("prototype", 4, 2, 1.0)
    assert head.metric == "accuracy" and head.measure(logits, labels).tolist() == [75.0, 0.0]
    values, wanted = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[1.0], [1.0]]])
    head = heads.build("regression", 4, 0, 1.0)
    assert head.metric == "mse" and head.measure(values, wanted).tolist() == [2.0]
