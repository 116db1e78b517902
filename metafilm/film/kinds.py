"""What FiLM can follow: which layers are norms, and in which dimension they put out how many features."""

from __future__ import annotations

import re
from typing import cast

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from metafilm.errors import MetafilmError

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# Norms that other libraries derive from nn.Module, by their classes' names: timm's RmsNorm, SimpleNorm,
# EvoNorm2d, FilterResponseNormAct2d and frozen batch norms, transformers' LlamaRMSNorm and its like. Not
# GlobalResponseNorm, which scales what it adds to its input and not what it puts out.
NAMED = re.compile("(RMS|Rms|Simple|Layer|Batch|Group|Instance|Evo)Norm|FilterResponseNormAct")
LAST_DIM = re.compile(
    "(RMS|Rms|Simple|Layer)Norm"
)  # these normalise vectors, where no 2d in the name says maps
AFFINES = (("weight", "bias"), ("alpha", "beta"))
"""What a layer's gain and shift may be called; the second pair is ResMLP's ``Affine``."""


def is_norm(module: nn.Module) -> bool:
    """Whether the module is a normalisation layer (or the affine that some networks have in its place):
    PyTorch's, one that is made after it, or one that another library calls so."""
    if isinstance(module, NORMS) or bool(getattr(module, "applies_film", False)):
        return True
    if any(name not in ("act", "drop", "film") for name, _ in module.named_children()):
        return False  # made of other layers
    return _named(module) or _is_affine(module)


def is_affine(module: nn.Module) -> bool:
    """Whether the module's own weight and bias scale and shift what it puts out: a norm's, or those of an
    identity with a place for them (:class:`metafilm.backbones.pooling.Features`)."""
    return is_norm(module) or (isinstance(module, nn.Identity) and hasattr(module, "weight"))


def _named(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    vector = isinstance(weight, Tensor) and weight.dim() == 1
    return bool(NAMED.search(_class_names(module))) and (vector or hasattr(module, "normalized_shape"))


def _is_affine(module: nn.Module) -> bool:
    return type(module).__name__ == "Affine" and all(
        isinstance(getattr(module, name, None), nn.Parameter) for name in AFFINES[1]
    )


def _class_names(module: nn.Module) -> str:
    return " ".join(kind.__name__ for kind in type(module).__mro__ if kind is not nn.Module)


def after_norm(module: nn.Module) -> nn.Module | None:
    """The first module that a norm-and-activation layer runs behind its norm; None for all other layers."""
    if not is_norm(module) or not isinstance(getattr(module, "act", None), nn.Module):
        return None
    drop = getattr(module, "drop", None)
    return drop if isinstance(drop, nn.Module) else cast(nn.Module, module.act)


def features_of(name: str, module: nn.Module) -> tuple[int, int]:
    """How many features the module puts out, and in which dimension: 1 or -1.

    Raises:
        MetafilmError: a lazy module that has not run yet, or one of no known kind.
    """
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise MetafilmError(
            f"module {name!r} ({type(module).__name__}) does not know its number of features yet; run the "
            "network once on an input before FiLM is put in"
        )
    if isinstance(module, nn.Linear):
        return module.out_features, -1
    if isinstance(shape := getattr(module, "normalized_shape", None), tuple):
        if len(shape) != 1:
            raise MetafilmError(
                f"module {name!r} ({type(module).__name__}) normalises over {tuple(shape)}, from which "
                "its features can't be told; name other sites, or give it a norm over the features alone"
            )
        # torchvision's and timm's LayerNorm2d, RmsNorm2d ... normalise the channels of [B, C, H, W], those of
        # ConvNeXt's own code and of transformers where they are told so
        first = "2d" in _class_names(module) or getattr(module, "data_format", "") == "channels_first"
        return shape[0], 1 if first else -1
    if _is_affine(module):
        return cast(Tensor, module.alpha).numel(), -1
    for attribute in ("num_features", "num_channels", "out_channels"):
        if isinstance(getattr(module, attribute, None), int):
            return getattr(module, attribute), 1
    if is_norm(module):
        names = _class_names(module)
        return len(cast(Tensor, module.weight)), -1 if LAST_DIM.search(names) and "2d" not in names else 1
    raise MetafilmError(
        f"can't tell how many features module {name!r} ({type(module).__name__}) puts out; "
        "choose a norm, convolution or linear layer as the site"
    )
