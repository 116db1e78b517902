"""Telling all training classes apart: the classifier on the features of plain images, and its loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from episodes import Episode
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.heads.local import unflattened
from metafilm.heads.reconstruction import error, residual_map
from metafilm.learner.learner import MetaFiLM


class NormedLinear(nn.Module):
    """Cosines of features with one vector for each class, times a learned factor (Gidaris & Komodakis, CVPR
    2018, arXiv:1804.09458): what it teaches fits heads that compare directions.

    Args:
        features: D.
        classes: how many.
        scale: first value of the factor.
        product: in which type matrices are multiplied; None: the weights' own.
    """

    def __init__(self, features: int, classes: int, scale: float, product: torch.dtype | None = None) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.normal_(self.weight, std=features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D]`` -> logits ``[B, classes]``."""
        product = self.product or self.weight.dtype
        return self.log_scale.exp() * _Cosines.apply(F.normalize(features, dim=-1), self.weight, product)


class _Cosines(torch.autograd.Function):
    """Of unit vectors ``[B, D]`` with the directions of ``[classes, D]``: ``[B, classes]``.

    Omniglot's 4,112 classes of 1,600 features are 26 MB, which is more than any cache holds: normalising them
    beside the product takes ten passes over that memory there and back, dividing the product takes three.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, weight: Tensor, product: torch.dtype) -> Tensor:
        inverse = torch.linalg.vector_norm(weight, dim=1).clamp_min(1e-12).reciprocal()
        few, short = unit.to(product), weight.to(product)
        cosines = (few @ short.T).to(unit.dtype) * inverse
        ctx.save_for_backward(few, short, weight, inverse, cosines)
        return cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        few, short, weight, inverse, cosines = ctx.saved_tensors
        scaled = gradient * inverse
        of_weight = (scaled.to(few.dtype).T @ few).to(weight.dtype)
        # what a vector's length takes back: its direction alone counts
        of_weight.addcmul_(weight, ((scaled * cosines).sum(0) * inverse).unsqueeze(1), value=-1)
        return (scaled.to(few.dtype) @ short).to(gradient.dtype), of_weight, None


class LearnedCells(nn.Module):
    """How well learned cells of each class rebuild an image's, by ridge regression, times a learned factor:
    what it teaches fits the reconstruction head (Wertheimer et al., CVPR 2021, arXiv:2012.01506).

    As there, λ is cells / d and ρ is 1. An image's cells are scaled to a mean square length of 1 over the
    batch.

    Args:
        channels: d.
        classes: how many.
        scale: first value of the factor.
        cells: of each class.
    """

    def __init__(self, channels: int, classes: int, scale: float, cells: int = 25) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, cells, channels))
        nn.init.normal_(self.weight, std=channels**-0.5)  # of length 1, as an image's
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """Maps of any size, ``[B, d · cells]`` -> logits ``[B, classes]``."""
        classes, known, channels = self.weight.shape
        cells = unflattened(features, channels)
        cells = cells * cells.square().sum(-1).mean().clamp(min=1e-12).rsqrt()
        images, places = cells.shape[:2]
        by_channels = classes * channels**2 * (channels + images)
        if by_channels <= images * places * classes * known * (channels + known):
            weight = self.weight.new_full((classes,), known / channels)
            left = residual_map(self.weight.transpose(1, 2) @ self.weight, weight)
            found = error(cells.unsqueeze(0), left.unsqueeze(0))[0]
        else:
            found = self._by_known(cells, known / channels)
        return -self.log_scale.exp() * found

    def _by_known(self, cells: Tensor, weight: float) -> Tensor:
        """The same for maps of many channels: with a = q Sᵀ, G = S Sᵀ and K = (G + λI)⁻¹ a cell's square of
        what is left is ‖q‖² − a (2K − K G K) aᵀ, in matrices of the learned cells' number."""
        grams = self.weight @ self.weight.transpose(1, 2)  # [classes, known, known]
        inverse = torch.linalg.inv(grams + weight * torch.eye(grams.shape[-1]).to(grams))
        rebuilt = 2 * inverse - inverse @ grams @ inverse
        products = cells.flatten(0, 1) @ self.weight.transpose(1, 2)  # [classes, B·cells, known]
        taken = ((products @ rebuilt) * products).sum(-1).unflatten(-1, (len(cells), -1)).mean(-1)
        return cells.square().sum(-1).mean(-1, keepdim=True) - taken.T


def classifier(learner: MetaFiLM, config: Config, classes: int) -> nn.Module:
    """Features ``[B, D]`` of the learner's backbone -> logits ``[B, classes]``, where the learner is; by the
    name in ``config.pretrain``, and a function of the seed alone."""
    size = learner.feature_size
    assert size is not None  # all backbones of a configuration say it
    features = learner.head.whole_size(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.pretrain.classifier == "reconstruction":
            return LearnedCells(features, classes, config.pretrain.scale).to(learner.mean.device)
        if config.pretrain.classifier == "cosine":
            product = torch.bfloat16 if config.outer.precision == "bfloat16" else None
            return NormedLinear(features, classes, config.pretrain.scale, product).to(learner.mean.device)
        linear = nn.Linear(features, classes)
    nn.init.zeros_(linear.weight)  # the first steps are then the features' own, however large these are
    nn.init.zeros_(linear.bias)
    return linear.to(learner.mean.device)


def classified(
    learner: MetaFiLM,
    classifier: nn.Module,
    source: Source,
    batch: Episode,
    size: int | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, float]:
    """The cross entropy of a batch of plain images (:func:`metafilm.config.sources.plain_source`) at δ = 0,
    and its accuracy in percent. In training the normalisation statistics are noted for the running averages,
    as those of one task.

    Args:
        size: shorter side that the images are brought to first; None: as they are.
        smoothing: share of each target that goes evenly to all classes.
    """
    batch = source.global_classes(batch.to(learner.mean.device))
    images = learner.prepare(torch.cat((batch.support_images, batch.query_images), 1))
    if size is not None:
        images = resized(images, size)
    labels = torch.cat((batch.support_labels, batch.query_labels), 1)
    assert batch.class_ids is not None
    classes = batch.class_ids.gather(1, labels).flatten()
    features = learner.features(images, {}, 1, record=True)[0]
    logits = classifier(features if isinstance(classifier, LearnedCells) else learner.head.whole(features))
    right = (logits.detach().argmax(1) == classes).float().mean()
    return F.cross_entropy(logits, classes, label_smoothing=smoothing), 100 * float(right)


def resized(images: Tensor, size: int) -> Tensor:
    """``[B, C, H, W]`` with a shorter side of ``size`` pixels; smaller ones are averages of their pixels."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    if shorter == size:
        return images
    sides = [round(side * size / shorter) for side in (height, width)]
    smaller = F.interpolate(images, sides, mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)
