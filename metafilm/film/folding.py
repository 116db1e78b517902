"""One task's deviations folded into the network's own weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.film.calling import exclusive
from metafilm.film.insertion import parameters, sites, unhook
from metafilm.film.kinds import AFFINES, after_norm, is_affine
from metafilm.film.layer import FiLM, modulate


def fold(network: nn.Module, film: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A plain copy of the network with one task's deviations folded into its own weights.

    Layers that are not PyTorch's own are run once as they were and once folded, on numbers made up: a layer
    that does something else with its weights than its kind does is found out.

    Args:
        film: one task's deviations, ``[C]`` each; None: the network's own.

    Returns:
        A network without FiLM layers, equal in its outputs up to rounding. A norm without a bias (RMSNorm)
        gets one where δβ is not 0.

    Raises:
        MetafilmError: a site can't be folded; says which and why.
    """
    with exclusive(network):
        plain = copy.deepcopy(network)
    own = parameters(plain)
    with torch.no_grad():
        for name, value in (film or {}).items():
            if name not in own or own[name].shape != value.shape:
                shape = tuple(own[name].shape) if name in own else "no such parameter"
                if name in own and value.dim() > 1:
                    raise MetafilmError(
                        f"deviation {name!r} has shape {tuple(value.shape)}: a network's weights hold those "
                        f"of one task, {shape}; fold one task's or one example's at a time, or keep the "
                        "network unfolded and use film.call"
                    )
                raise MetafilmError(
                    f"deviation {name!r} has shape {tuple(value.shape)}, the network expects {shape}; its "
                    f"FiLM sites: {', '.join(sites(plain)) or 'none'}"
                )
            own[name].copy_(value)
        modules = dict(plain.named_modules())
        for site in sites(plain):
            module = modules[site]
            layer = cast(FiLM, module.film)
            example = None if _of_pytorch(module) else _example(module, layer)
            expected = None if example is None else _modulated(module, layer, example)
            _fold_into(site, module, layer)
            unhook(module)
            if example is not None and expected is not None and not _close(_run(module, example), expected):
                raise MetafilmError(
                    f"can't fold FiLM into {site!r}: a {type(module).__name__} does something else with its "
                    "weight and bias than scale and shift what it puts out; choose other sites, or keep the "
                    "network unfolded"
                )
    return plain


def _fold_into(site: str, module: nn.Module, layer: FiLM) -> None:
    gain, shift = (1 + layer.delta_gamma).detach(), layer.delta_beta.detach()
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        if getattr(module, "transposed", False):
            raise MetafilmError(
                f"can't fold FiLM into the transposed convolution {site!r}; put the site on its norm"
            )
        # convolutions that standardise their weights scale them by a gain afterwards (Brock et al. 2021)
        name = "gain" if isinstance(getattr(module, "gain", None), nn.Parameter) else "weight"
        weight = _own(site, module, name)
        _set(module, name, weight * gain.view(-1, *[1] * (weight.dim() - 1)))
        bias = _own(site, module, "bias")
        _set(module, "bias", shift.clone() if bias is None else bias * gain + shift)
    elif is_affine(module):
        name, other = next(pair for pair in AFFINES if hasattr(module, pair[0]))
        weight, has_bias = _own(site, module, name), hasattr(module, other)
        _set(module, name, gain.clone() if weight is None else weight * gain)
        if has_bias:
            bias = _own(site, module, other)
            _set(module, other, shift.clone() if bias is None else bias * gain + shift)
        elif shift.any():
            _give_bias(module, shift.clone(), layer.channel_dim)
        for flag in ("affine", "elementwise_affine"):
            if hasattr(module, flag):
                setattr(module, flag, True)
    else:
        raise MetafilmError(
            f"can't fold FiLM into module {site!r} ({type(module).__name__}); "
            "put the site on a norm, a convolution or a linear layer"
        )


def _own(site: str, module: nn.Module, name: str) -> Any:
    """A weight of the module's, a tensor; None where it has none (``affine=False``)."""
    value = getattr(module, name)
    if value is not None and name not in module._parameters and name not in module._buffers:
        raise MetafilmError(
            f"can't fold FiLM into {site!r}: its {name} is computed from other tensors (a weight norm?); "
            "take that away first, torch.nn.utils.parametrize.remove_parametrizations"
        )
    return value


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    """In place of a parameter or a buffer (frozen norms keep their affine in buffers)."""
    setattr(module, name, value if name in module._buffers else nn.Parameter(value))


class _Biased:
    """The ``forward`` of a norm that has been given a bias, or of what follows the norm inside a
    norm-and-activation layer. An object, so that a deep copy gets one of its own modules.
    """

    def __init__(self, norm: nn.Module, follower: nn.Module | None, channel_dim: int) -> None:
        self.norm, self.follower, self.channel_dim = norm, follower, channel_dim

    def __call__(self, x: Tensor) -> Tensor:
        if self.follower is None:
            return self._shifted(type(self.norm).forward(self.norm, x))
        return type(self.follower).forward(self.follower, self._shifted(x))

    def _shifted(self, x: Tensor) -> Tensor:
        shape = [1] * x.dim()
        shape[self.channel_dim] = -1
        return x + cast(Tensor, self.norm.bias).view(shape).to(x.dtype)


def _give_bias(module: nn.Module, bias: Tensor, channel_dim: int) -> None:
    module.register_parameter("bias", nn.Parameter(bias))
    follower = after_norm(module)
    biased = _Biased(module, follower, channel_dim)
    (module if follower is None else follower).forward = biased  # type: ignore[assignment]


def _of_pytorch(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] in ("torch", "metafilm")


def _example(module: nn.Module, layer: FiLM) -> Tensor | None:
    """A small input as the module's kind takes it; None for modules without numbers."""
    like = next((p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), None)
    if like is None:
        return None
    if isinstance(module, nn.Linear):
        shape = (2, module.in_features)
    elif isinstance(module, nn.modules.conv._ConvNd):
        sides = (d * (k - 1) + 2 for k, d in zip(module.kernel_size, module.dilation, strict=True))
        shape = (2, module.in_channels, *sides)
    elif layer.channel_dim == -1:
        shape = (2, 4, layer.features)
    else:
        sides = {nn.BatchNorm1d: 1, nn.BatchNorm3d: 3}
        shape = (2, layer.features, *[4] * next((n for k, n in sides.items() if isinstance(module, k)), 2))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.3
    return x.to(like.device, like.dtype)


def _modulated(module: nn.Module, layer: FiLM, x: Tensor) -> Tensor | None:
    """What the module gives under its FiLM layer: behind it, or between a norm and its activation."""
    y = _run(module, x)
    if y is None or after_norm(module) is not None:
        return y
    return modulate(y, 1 + layer.delta_gamma, layer.delta_beta, layer.channel_dim)


def _run(module: nn.Module, x: Tensor) -> Tensor | None:
    """The module's output, without the hooks that others put on it; None where it takes no such input."""
    training = module.training
    try:
        return module.eval().forward(x.clone())
    except (RuntimeError, ValueError, TypeError, AssertionError):
        return None
    finally:
        module.train(training)


def _close(found: Tensor | None, expected: Tensor) -> bool:
    tolerance = 3 * torch.finfo(expected.dtype).eps ** 0.5
    return found is not None and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def remove(network: nn.Module) -> nn.Module:
    """Take all FiLM layers out again, in place, whatever their deviations: the plain network as it was."""
    modules = dict(network.named_modules())
    for site in sites(network):
        unhook(modules[site])
    return network
