"""Feature-wise linear modulation as named parameters of any network.

A FiLM layer computes ``FiLM(F) = (1 + δγ) ⊙ F + δβ`` per feature map (Perez et al., AAAI 2018,
arXiv:1709.07871; deviations from the identity after Oreshkin et al., NeurIPS 2018, arXiv:1805.10123).
:func:`insert` gives chosen modules of a network (the *sites*) a child named ``film`` that holds δγ and δβ,
zero by default, and modulates their output. No other name in the network changes, so any checkpoint of the
plain network still loads. A *film dict* maps the full names of those parameters to tensors, either ``[C]``
(one task) or ``[T, C]`` (T tasks); :func:`call` runs the network with them, on inputs whose rows stand one
task after the other, or belong to tasks by an index.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metafilm.errors import MetafilmError

FilmDict = dict[str, Tensor]
"""Parameter name -> deviations, ``[C]`` or ``[T, C]``."""

GAIN, BIAS = "delta_gamma", "delta_beta"


class FiLM(nn.Module):
    """The deviations of one site.

    Args:
        features: C, how many feature maps (channels) the site has.
        channel_dim: the input's dimension that holds them: 1 for ``[B, C]``, ``[B, C, L]`` and
            ``[B, C, H, W]``; -1 for sequences ``[B, L, C]``.
    """

    def __init__(self, features: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.features = features
        self.channel_dim = channel_dim
        self.delta_gamma = nn.Parameter(torch.zeros(features))
        self.delta_beta = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``[T·n, ...]`` with T the tasks of the deviations (1 when they are ``[C]``); the shape is
        kept.
        """
        return modulate(x, 1 + self.delta_gamma, self.delta_beta, self.channel_dim)

    def affine(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The norm's own affine followed by this layer, as one affine: ``[C]`` or ``[T, C]`` each."""
        gain, shift = 1 + self.delta_gamma, self.delta_beta
        if weight is not None and bias is not None:
            # `bias * gain + 0` and `weight * 1` are exact, so δ = 0 is the plain network bit for bit
            gain, shift = weight * gain, bias * gain + shift
        return gain, shift

    def extra_repr(self) -> str:
        return f"{self.features}, channel_dim={self.channel_dim}"

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # a checkpoint of the plain network has no deviations: it means δ = 0
        for name in (GAIN, BIAS):
            state_dict.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)


def modulate(x: Tensor, gain: Tensor, shift: Tensor, channel_dim: int = 1) -> Tensor:
    """``gain ⊙ x + shift`` per channel and task.

    Args:
        x: ``[T·n, ...]``, the n rows of a task contiguous.
        gain, shift: ``[C]`` (one task) or ``[T, C]``.
        channel_dim: which dimension of ``x`` holds the C channels.

    Raises:
        MetafilmError: the rows do not divide into T tasks.
    """
    channel_dim = channel_dim % x.dim()
    if gain.dim() == 1:
        shape = [1] * x.dim()
        shape[channel_dim] = gain.shape[0]
        return torch.addcmul(shift.view(shape).to(x.dtype), x, gain.view(shape).to(x.dtype))
    tasks, features = gain.shape
    if x.shape[0] % tasks:
        raise MetafilmError(
            f"{x.shape[0]} rows can't be shared evenly by {tasks} tasks; give every task the same "
            "number of rows"
        )
    shape = [tasks, 1] + [1] * (x.dim() - 1)
    shape[channel_dim + 1] = features
    y = x.unflatten(0, (tasks, -1))
    return torch.addcmul(shift.view(shape).to(x.dtype), y, gain.view(shape).to(x.dtype)).flatten(0, 1)


def _hook(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return cast(FiLM, module.film)(output)


def insert(network: nn.Module, sites: str | Iterable[str] = "all") -> nn.Module:
    """Give a network FiLM layers, in place; it computes what it did before, bit for bit, until δ is changed.

    Args:
        network: any network of modules; its own parameter names stay as they are.
        sites: module names (as in ``named_modules``) whose output is modulated; or ``"all"`` (what the
            network lists in its ``film_sites``, else every normalisation layer), ``"last"`` (the last of
            these), ``"none"``.

    Returns:
        The same network.

    Raises:
        MetafilmError: a name is not a module of the network, has a FiLM layer already, or has no known number
            of features.
    """
    modules = dict(network.named_modules())
    for name in _site_names(network, modules, sites):
        if name not in modules:
            known = ", ".join(_site_names(network, modules, "all"))
            raise MetafilmError(
                f"no module {name!r} to put a FiLM layer on; this network's usual sites are: {known}"
            )
        module = modules[name]
        if isinstance(getattr(module, "film", None), FiLM):
            raise MetafilmError(f"module {name!r} has a FiLM layer already; list each site once")
        features, channel_dim = _features(name, module)
        reference = next(module.parameters(), None)
        layer = FiLM(features, channel_dim)
        module.add_module("film", layer if reference is None else layer.to(reference.device, reference.dtype))
        if not getattr(module, "applies_film", False):
            module.register_forward_hook(_hook)
    return network


def _site_names(
    network: nn.Module, modules: Mapping[str, nn.Module], sites: str | Iterable[str]
) -> list[str]:
    if isinstance(sites, str) and sites == "none":
        return []
    if isinstance(sites, str) and sites in ("all", "last"):
        usual: list[str] = list(getattr(network, "film_sites", ()))
        usual = usual or [name for name, module in modules.items() if _is_norm(module)]
        return usual[-1:] if sites == "last" else usual
    return [sites] if isinstance(sites, str) else list(sites)


def _is_norm(module: nn.Module) -> bool:
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(module, norms) or bool(getattr(module, "applies_film", False))


def _features(name: str, module: nn.Module) -> tuple[int, int]:
    """How many features the module puts out, and in which dimension."""
    if isinstance(module, nn.LayerNorm):
        # torchvision's and timm's LayerNorm2d normalises the channels of [B, C, H, W]
        return module.normalized_shape[-1], 1 if type(module).__name__ == "LayerNorm2d" else -1
    if isinstance(module, nn.Linear):
        return module.out_features, -1
    for attribute in ("num_features", "num_channels", "out_channels"):
        if isinstance(getattr(module, attribute, None), int):
            return getattr(module, attribute), 1
    raise MetafilmError(
        f"can't tell how many features module {name!r} ({type(module).__name__}) puts out; "
        "choose a norm, convolution or linear layer as the site"
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
    return {name: own[name] for site in sites(network) for name in names(site)}


def zeros(network: nn.Module, tasks: int) -> FilmDict:
    """δ = 0 for T tasks: ``[T, C]`` each, on the network's device and in its dtype."""
    return {name: value.new_zeros(tasks, value.shape[0]) for name, value in parameters(network).items()}


def call(
    network: nn.Module,
    film: Mapping[str, Tensor],
    x: Tensor,
    rows: Tensor | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Run the network with these deviations in place of its own.

    Args:
        film: deviations ``[C]``, or ``[T, C]`` for T tasks; names that are left out keep the network's own.
        x: ``[B, ...]``. Networks with :class:`metafilm.norms.Norm` layers that normalise by the images of
            this pass also need to be told T, by :func:`metafilm.norms.layout`.
        rows: ``[B]`` int64, which of the T tasks each row of ``x`` belongs to, in any order; None: tasks
            contiguous, ``B / T`` rows each.
        statistics: norm name -> ``[T, 2, C]`` mean and variance (or ``[2, C]`` for all tasks) by which the
            :class:`metafilm.norms.Norm` of that name normalises, instead of by the images of this pass; as
            :attr:`metafilm.Task.statistics`.

    Raises:
        MetafilmError: a name is not one of the network's deviations or norms; rows that don't fit.
    """
    if unknown := film.keys() - dict(network.named_parameters()).keys():
        known = ", ".join(sites(network)) or "none"
        raise MetafilmError(f"this network has no deviations {min(unknown)!r}; its FiLM sites: {known}")
    given = _given(network, statistics or {})
    if rows is not None:
        # from here on each row is a task of its own
        _check_index(rows, len(x), {**film, **given})
        film, given = ({name: value[rows] for name, value in part.items()} for part in (film, given))
    # a single task needs no task axis: the plain kernels run, and norms take δ into their own affine
    single = {
        name: value[0] if value.dim() == 2 and value.shape[0] == 1 else value for name, value in film.items()
    }
    return functional_call(network, {**single, **given}, (x,))


def _given(network: nn.Module, statistics: Mapping[str, Tensor]) -> FilmDict:
    """Statistics as the norms' running averages, ``[T, C]`` each."""
    if not statistics:
        return {}
    norms = [name for name, module in network.named_modules() if getattr(module, "applies_film", False)]
    if unknown := statistics.keys() - set(norms):
        raise MetafilmError(
            f"statistics of {min(unknown)!r}, which is no metafilm norm of this network; its norms: "
            f"{', '.join(norms) or 'none'}"
        )
    averages = {}
    for name, value in statistics.items():
        mean, var = (value if value.dim() == 3 else value.unsqueeze(0)).unbind(1)
        averages |= {f"{name}.running_mean": mean, f"{name}.running_var": var}
    return averages


def _check_index(rows: Tensor, batch: int, tables: Mapping[str, Tensor]) -> None:
    if rows.dtype != torch.int64 or rows.dim() != 1 or len(rows) != batch:
        raise MetafilmError(
            f"rows have shape {tuple(rows.shape)} and type {rows.dtype}, expected ({batch},) torch.int64; "
            "give every row of the input the number of its task"
        )
    low, high = (int(rows.min()), int(rows.max())) if batch else (0, -1)
    for name, value in tables.items():
        if value.dim() != 2 or low < 0 or high >= len(value):
            raise MetafilmError(
                f"rows name tasks {low} to {high}, but {name!r} has shape {tuple(value.shape)}, expected "
                f"(tasks, C); give indices from 0 below the number of tasks"
            )


def fold(network: nn.Module, film: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A plain copy of the network with one task's deviations folded into its own weights.

    Args:
        film: one task's deviations, ``[C]`` each; None: the network's own.

    Returns:
        A network without FiLM layers, equal in its outputs up to rounding.

    Raises:
        MetafilmError: a site can't be folded (its module has no affine to take δ in).
    """
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
            del module.film
            hooks = module._forward_hooks
            for key in [key for key, hook in hooks.items() if hook is _hook]:
                del hooks[key]
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
    elif _is_norm(module):
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
