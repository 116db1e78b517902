"""Multinomial logistic regression, fitted to each task by Newton's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError, NotFinite, first_line
from metafilm.heads.base import SINGULAR, Head, State, solvable

STEPS = 12
HALVINGS = 10  # of a step, at most
ROUNDING = 4  # twice what up to 1000 nearly equal images were seen to need
JITTER = 1e-6  # of what is singular: features that are the same


class LogisticHead(Head):
    """What Tian et al. (ECCV 2020, arXiv:2003.11539) classify by: the weights that minimise ‖W‖²/2 + C × the
    sum of the support's cross entropies, with biases that cost nothing. C (at first scikit-learn's 1) and a
    factor on the logits are learned.

    Features are scaled to a mean square length of 1 over the task's support, so that C means the same for any
    network. They are brought into as many coordinates as there are support images where they have more: the
    weights lie in the space that these span. Twelve steps of Newton's method from 0, all differentiable, each
    as long as it is or the first half, quarter ... of it that brings the sum down: the problem is convex, but
    of many images or a large C far from quadratic.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        self.arguments = {"scale": scale}
        self.log_c = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        return cls(scale)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        try:
            fitted = self._fitted(solvable(features), labels, ways)
        except SINGULAR as error:
            raise NotFinite(
                f"logistic regression can't be fitted to these features ({first_line(error)}); they are not "
                "finite, or far too large"
            ) from error
        return {name: value.to(features.dtype) for name, value in fitted.items()}

    def _fitted(self, features: Tensor, labels: Tensor, ways: int) -> State:
        size = features.square().sum(-1).mean(1).clamp(min=1e-12).rsqrt()[:, None, None]
        x = features * size
        images, length = x.shape[1:]
        root = None
        if length > images:
            eye = torch.eye(images, dtype=x.dtype, device=x.device)
            root = torch.linalg.cholesky(x @ x.transpose(1, 2) + jitter(x) * eye)  # [T, S, S]
        weight, bias = newton(x if root is None else root, labels, ways, self.log_c.exp())
        if root is not None:  # from coordinates back to features: those of a query x are L⁻¹ X x
            along = torch.linalg.solve_triangular(root.mT, weight.mT, upper=True)  # [T, S, ways]
            weight = along.mT @ x
        scale = self.log_scale.exp()
        return {"weight": scale * weight * size, "bias": scale * bias}

    def predict(self, state: State, features: Tensor) -> Tensor:
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)


def jitter(x: Tensor) -> float:
    """What is added where products of features ``[T, S, D]`` of mean square length 1 may be singular: their
    eigenvalues go up to S, and those below S times the precision are rounding."""
    return max(JITTER, ROUNDING * x.shape[1] * torch.finfo(x.dtype).eps)


def newton(x: Tensor, labels: Tensor, ways: int, c: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum of ‖W‖²/2 + C Σ cross entropy.

    Args:
        x: ``[T, S, r]``; labels ``[T, S]`` in [0, ways).
        c: C, a scalar.

    Returns:
        W ``[T, ways, r]`` and biases ``[T, ways]`` of mean 0.
    """
    tasks, images, r = x.shape
    with_bias = torch.cat((x, x.new_ones(tasks, images, 1)), -1)  # [T, S, r + 1]
    targets = F.one_hot(labels, ways).to(x.dtype)
    penalty = torch.cat((x.new_ones(r), x.new_zeros(1))).repeat(ways).diag()  # class by class
    # a bias that is the same for all classes changes nothing; it is kept at 0, of the size of the curvature
    same = torch.cat((x.new_zeros(r), x.new_ones(1))).repeat(ways) / math.sqrt(ways)
    penalty = penalty + c.detach() * images * same.outer(same)
    outer = (with_bias.unsqueeze(-1) * with_bias.unsqueeze(-2)).flatten(2)  # [T, S, (r + 1)²]
    eye = torch.eye(ways, dtype=x.dtype, device=x.device)
    # where all images are told for sure nothing holds the biases; of the step alone, not of the minimum
    little = ROUNDING * images * torch.finfo(x.dtype).eps
    penalty_of_step = penalty + little * torch.eye(len(penalty), dtype=x.dtype, device=x.device)
    weight = x.new_zeros(tasks, ways, r + 1)
    for _ in range(STEPS):
        p = (with_bias @ weight.transpose(1, 2)).softmax(-1)  # [T, S, ways]
        gradient = c * (p - targets).transpose(1, 2) @ with_bias
        gradient = gradient + (weight.flatten(1) @ penalty).view_as(weight)
        curvature = p.unsqueeze(-1) * eye - p.unsqueeze(-1) * p.unsqueeze(-2)  # [T, S, ways, ways]
        hessian = c * curvature.flatten(2).transpose(1, 2) @ outer  # [T, ways², (r + 1)²]
        hessian = hessian.view(tasks, ways, ways, r + 1, r + 1).transpose(2, 3).flatten(3).flatten(1, 2)
        step = torch.linalg.solve(hessian + penalty_of_step, gradient.flatten(1).unsqueeze(-1))
        step = step.view(tasks, ways, r + 1)
        weight = weight - _share(weight, step, with_bias, labels, penalty, c) * step
    bias = weight[..., -1]
    return weight[..., :-1], bias - bias.mean(-1, keepdim=True)


@torch.no_grad()
def _share(
    weight: Tensor, step: Tensor, with_bias: Tensor, labels: Tensor, penalty: Tensor, c: Tensor
) -> Tensor:
    """How much of a step each task takes ``[T, 1, 1]``: the largest of 1, 1/2, 1/4 ... that does not raise
    what is minimised by more than rounding does; the least of them where all do."""
    shares = 0.5 ** torch.arange(HALVINGS + 1, dtype=weight.dtype, device=weight.device)
    shares = torch.cat((shares.new_zeros(1), shares))  # 0: as it is
    tried = weight - shares[:, None, None, None] * step  # [K, T, ways, r + 1]
    logits = with_bias @ tried.transpose(2, 3)  # [K, T, S, ways]
    told = logits.gather(3, labels.expand(len(shares), -1, -1).unsqueeze(-1)).squeeze(-1)
    flat = tried.flatten(2)
    value = c * (logits.logsumexp(3) - told).sum(2) + 0.5 * ((flat @ penalty) * flat).sum(2)  # [K, T]
    # of each logit, which a cross entropy is the small difference of two of
    sizes = c * logits.abs().amax(3).sum(2) + value.abs()
    rounding = (ROUNDING * torch.finfo(weight.dtype).eps) * sizes
    falls = value[1:] <= value[0] + rounding[1:]
    falls[-1] = True
    return shares[1:][falls.int().argmax(0)][:, None, None]
