"""Where a network's FiLM layers sit: putting them in, listing them, taking them out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.film.kinds import after_norm, features_of, is_norm
from metafilm.film.layer import BIAS, GAIN, FiLM, FilmDict

SITES = ("all", "none", "last")
"""Sites that need no names."""
LAST = re.compile("last ([1-9][0-9]{0,5})")
"""The last so many of the usual sites."""


def insert(network: nn.Module, sites: str | Iterable[str] = "all") -> nn.Module:
    """Give a network FiLM layers, in place; it computes what it did before, bit for bit, until δ is changed.

    A layer that normalises and activates in one (timm's ``BatchNormAct2d``, ``GroupNormAct``) is modulated
    between the two. Many tasks at once need the batch in the first dimension of what a site puts out:
    networks that carry sequences first (``batch_first=False``) take one task at a time. The networks of timm
    and torchvision that were tried stand in docs/architectures.md.

    Args:
        network: any network of modules; its own parameter names stay as they are.
        sites: module names (as in ``named_modules``) whose output is modulated; or ``"all"`` (what the
            network lists in its ``film_sites``, else every normalisation layer, else, where it has none,
            every convolution), ``"last"`` (the last of these), ``"last 8"`` (the last eight), ``"none"``.

    Returns:
        The same network.

    Raises:
        MetafilmError: a name is not a module of the network, has a FiLM layer already, or has no known number
            of features; or the network has none of the usual sites, or fewer than the last so many. The
            network is then as it was.
    """
    modules = dict(network.named_modules())
    layers: dict[str, FiLM] = {}
    for name in _site_names(network, modules, sites):  # all are looked at before the first is changed
        if name not in modules:
            usual = ", ".join(_usual(network, modules)) or "none"
            raise MetafilmError(
                f"no module {name!r} to put a FiLM layer on; this network's usual sites are: {usual}"
            )
        if name in layers or isinstance(getattr(modules[name], "film", None), FiLM):
            raise MetafilmError(f"module {name!r} has a FiLM layer already; list each site once")
        layers[name] = FiLM(*features_of(name, modules[name]))
    for name, layer in layers.items():
        module = modules[name]
        like = _floating(module)
        like = _floating(network) if like is None else like  # a norm with neither an affine nor averages
        module.add_module("film", layer if like is None else layer.to(like.device, like.dtype))
        if not getattr(module, "applies_film", False):
            _hook_into(module)
    return network


def _floating(module: nn.Module) -> Tensor | None:
    """The first floating-point parameter or buffer of a module's."""
    values = chain(module.parameters(), module.buffers())
    return next((value for value in values if value.is_floating_point()), None)


def _output_hook(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return cast(FiLM, module.film)(output)


class _BeforeActivation:
    """Modulates what a norm-and-activation layer hands from its norm to what follows it.

    An object and no closure: a deep copy of the network gets one that points to the copied norm.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (cast(FiLM, self.norm.film)(inputs[0]), *inputs[1:])


def _hook_into(module: nn.Module) -> None:
    follower = after_norm(module)
    if follower is None:
        module.register_forward_hook(_output_hook)
    else:
        follower.register_forward_pre_hook(_BeforeActivation(module))


def unhook(module: nn.Module) -> None:
    """Take the FiLM layer of a site away: its parameters, and the hook that runs it."""
    del module.film
    follower = after_norm(module)
    hooks = module._forward_hooks if follower is None else follower._forward_pre_hooks
    ours = [key for key, hook in hooks.items() if _is_ours(hook)]
    for key in ours:
        del hooks[key]


def undisturbed(module: nn.Module, film: bool = False) -> bool:
    """Whether nobody hooked into the module, so that other code may run in its place.

    Args:
        film: FiLM's own hook is allowed: the other code applies the deviations.
    """
    if module._backward_hooks or module._backward_pre_hooks:
        return False
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return not any(not film or not _is_ours(hook) for hook in hooks)


def _is_ours(hook: object) -> bool:
    return hook is _output_hook or isinstance(hook, _BeforeActivation)


def _site_names(
    network: nn.Module, modules: Mapping[str, nn.Module], sites: str | Iterable[str]
) -> list[str]:
    if isinstance(sites, str) and sites == "none":
        return []
    last = LAST.fullmatch(sites) if isinstance(sites, str) else None
    if last or (isinstance(sites, str) and sites in ("all", "last")):
        usual = _usual(network, modules)
        if not usual:
            raise MetafilmError(
                f"{type(network).__name__} has neither norms nor convolutions to put FiLM layers on; name "
                "the modules, for example some linear layers, or give it a film_sites"
            )
        if last and int(last[1]) > len(usual):
            raise MetafilmError(
                f"no {sites!r} sites in {type(network).__name__}, which has {len(usual)} usual ones; "
                "choose fewer, or all"
            )
        return usual[-int(last[1]) :] if last else usual[-1:] if sites == "last" else usual
    return [sites] if isinstance(sites, str) else list(sites)


def _usual(network: nn.Module, modules: Mapping[str, nn.Module]) -> list[str]:
    return (
        list(getattr(network, "film_sites", ()))
        or [name for name, module in modules.items() if is_norm(module)]
        or [name for name, module in modules.items() if isinstance(module, nn.modules.conv._ConvNd)]
    )


def sites(network: nn.Module) -> dict[str, int]:
    """Site name -> number of features, in the order of the network's modules."""
    found = {}
    for name, module in network.named_modules():
        layer = getattr(module, "film", None)
        if isinstance(layer, FiLM):
            found[name] = layer.features
    return found


def names(site: str) -> tuple[str, str]:
    """A site's two parameter names: its gain deviation's and its bias deviation's."""
    prefix = f"{site}.film." if site else "film."
    return prefix + GAIN, prefix + BIAS


def parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The network's own deviations, ``[C]`` each: all that an inner loop may move."""
    own = dict(network.named_parameters())
    return {name: own[name] for name in widths(network)}


def widths(network: nn.Module) -> dict[str, int]:
    """Name -> C of each deviation that the network has: the same, unlike :func:`parameters`, while another
    thread runs the network with other ones."""
    return {name: features for site, features in sites(network).items() for name in names(site)}


def zeros(network: nn.Module, tasks: int) -> FilmDict:
    """δ = 0 for T tasks: ``[T, C]`` each, on the network's device and in its dtype."""
    found = {}
    for site, features in sites(network).items():
        layer = cast(FiLM, network.get_submodule(site).film)
        for name, own in zip(names(site), (layer.delta_gamma, layer.delta_beta), strict=True):
            # another thread may be within film.call: then these are its tasks', of another shape
            found[name] = torch.zeros(tasks, features, device=own.device, dtype=own.dtype)
    return found
