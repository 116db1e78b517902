"""One task's deviations folded into the network's own weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.film.calling import exclusive
from metafilm.film.insertion import is_norm, parameters, sites, unhook
from metafilm.film.layer import FiLM


def fold(network: nn.Module, film: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A plain copy of the network with one task's deviations folded into its own weights.

    Args:
        film: one task's deviations, ``[C]`` each; None: the network's own.

    Returns:
        A network without FiLM layers, equal in its outputs up to rounding.

    Raises:
        MetafilmError: a site can't be folded (its module has no affine to take δ in).
    """
    with exclusive(network):
        plain = copy.deepcopy(network)
    own = parameters(plain)
    with torch.no_grad():
        for name, value in (film or {}).items():
            if name not in own or own[name].shape != value.shape:
                shape = tuple(own[name].shape) if name in own else "no such parameter"
                raise MetafilmError(
                    f"deviation {name!r} has shape {tuple(value.shape)}, the network expects {shape}"
                )
            own[name].copy_(value)
        modules = dict(plain.named_modules())
        for site in sites(plain):
            module = modules[site]
            _fold_into(site, module, cast(FiLM, module.film))
            unhook(module)
    return plain


def _fold_into(site: str, module: nn.Module, layer: FiLM) -> None:
    gain, shift = (1 + layer.delta_gamma).detach(), layer.delta_beta.detach()
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and isinstance(weight, Tensor):
        if getattr(module, "transposed", False):
            raise MetafilmError(
                f"can't fold FiLM into the transposed convolution {site!r}; put the site on its norm"
            )
        module.weight = nn.Parameter(weight * gain.view(-1, *[1] * (weight.dim() - 1)))
        module.bias = nn.Parameter(shift.clone() if bias is None else bias * gain + shift)
    elif isinstance(module, nn.RMSNorm) and shift.any():
        raise MetafilmError(
            f"can't fold FiLM into {site!r}: an RMSNorm has no bias that could take δβ; keep it unfolded, or "
            "set its δβ to 0"
        )
    elif isinstance(module, nn.RMSNorm):
        module.weight = nn.Parameter(gain.clone() if weight is None else weight * gain)
        module.elementwise_affine = True
    elif is_norm(module):
        module.weight = nn.Parameter(gain.clone() if weight is None else weight * gain)
        module.bias = nn.Parameter(shift.clone() if bias is None else bias * gain + shift)
        if hasattr(module, "affine"):
            module.affine = True  # type: ignore[assignment]
        if hasattr(module, "elementwise_affine"):
            module.elementwise_affine = True  # type: ignore[assignment]
    else:
        raise MetafilmError(
            f"can't fold FiLM into module {site!r} ({type(module).__name__}); "
            "put the site on a norm or convolution"
        )


def remove(network: nn.Module) -> nn.Module:
    """Take all FiLM layers out again, in place, whatever their deviations: the plain network as it was."""
    modules = dict(network.named_modules())
    for site in sites(network):
        unhook(modules[site])
    return network
