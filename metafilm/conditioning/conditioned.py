"""A network and what conditions it, as one module."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metafilm import film, norms
from metafilm.errors import MetafilmError
from metafilm.film.calling import check_index


class Conditioned(nn.Module):
    """A network that is run with the deviations of a condition, an example's each::

        network = film.insert(torchvision.models.resnet18(num_classes=10))
        questions = SequenceEncoder(vocabulary=30, sites=film.sites(network))
        model = Conditioned(network, questions)
        logits = model(pictures, words)

    While it trains, :class:`metafilm.norms.Norm` layers normalise by all rows of the pass and move their
    running averages by them, as PyTorch's own do.

    Args:
        network: any network with FiLM layers. Its own deviations are no longer trained, so that of a network
            that starts at zero a condition without a bias, or without a gain, leaves nothing else behind.
        condition: any module that makes a film dict of what it is given, one row per example. One that has a
            ``site`` is handed the features of that site too, the last argument.
    """

    def __init__(self, network: nn.Module, condition: nn.Module) -> None:
        super().__init__()
        self.network, self.condition = network, condition
        for parameter in film.parameters(network).values():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor, *condition: Any, rows: Tensor | None = None) -> Any:
        """What the network makes of ``x`` ``[B, ...]`` under these conditions.

        Args:
            condition: what the condition network takes: of B examples; of one for all; of T, each for the
                ``B / T`` rows that follow each other; or of T that ``rows`` refers to.
            rows: ``[B]`` int64, which condition each row of ``x`` has: a question that is asked of many
                pictures is read once.
        """
        try:
            found = self._run(x, condition, rows)
        except BaseException:
            if self.training:  # half a pass is none that the averages should move by
                with suppress(RuntimeError):  # under a transform of torch.func, which has them in its keeping
                    norms.discard(self.network)
            raise
        if self.training:
            norms.commit(self.network)
        return found

    def _run(self, x: Tensor, condition: tuple[Any, ...], rows: Tensor | None) -> Any:
        site = getattr(self.condition, "site", None)
        with norms.layout(shared=True, record=self.training):
            if site is not None:  # each row has features of its own, so it reads its condition itself
                condition = tuple(for_each(part, len(x), rows) for part in condition)
                condition, rows = (*condition, site_output(self.network, site, x)), None
            return film.call(self.network, self.condition(*condition), x, rows)


def for_each(condition: Tensor, batch: int, rows: Tensor | None) -> Tensor:
    """What a condition network takes, ``[T, ...]``, once for each of B rows, as :func:`metafilm.film.call`
    gives deviations to them.

    Raises:
        MetafilmError: rows that name others than these T, or B that T does not divide.
    """
    if rows is not None:
        check_index(rows, batch, {"condition": condition})
        return condition[rows]
    if len(condition) == batch:
        return condition
    if not len(condition) or batch % len(condition):
        raise MetafilmError(
            f"{batch} rows can't be shared evenly by {len(condition)} conditions; give one for each, one for "
            "all, or by `rows` the number of each row's"
        )
    return condition.repeat_interleave(batch // len(condition), 0)


class _Reached(Exception):
    def __init__(self, output: Tensor) -> None:
        self.output = output


def site_output(network: nn.Module, site: str, x: Tensor) -> Tensor:
    """What a site puts out for ``x`` under the network's own deviations; what comes behind it is not run, and
    averages do not move by it.

    Raises:
        MetafilmError: no such site, or the network does not come to it.
    """
    if site not in film.sites(network):
        known = ", ".join(film.sites(network)) or "none"
        raise MetafilmError(f"no FiLM site {site!r} in this network; its sites: {known}")

    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> NoReturn:
        raise _Reached(output)

    with film.exclusive(network):
        handle = network.get_submodule(site).register_forward_hook(stop)
        spare = averages_of(network)  # which norms in training mode write into, instead of their own
        try:
            functional_call(network, spare, (x,))
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
    raise MetafilmError(f"the network does not come to its site {site!r} on this input")


def averages_of(network: nn.Module) -> dict[str, Tensor]:
    """Name -> a copy of each buffer of norms that are in training mode."""
    return {
        f"{name}.{own}" if name else own: buffer.clone()
        for name, module in network.named_modules()
        if module.training and getattr(module, "running_mean", None) is not None
        for own, buffer in module.named_buffers(recurse=False)
    }


def map_sizes(network: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Site name -> sizes of its map, ``(H, W)`` or ``(L,)``, ``()`` where it has none, for inputs like ``x``
    ``[B, ...]``; for :meth:`ConditionNetwork.generate`. Runs the network once, in eval mode.

    Raises:
        MetafilmError: a site's module is not called as such on the way (Conv-4 fuses its norms with what
            stands around them): give its sizes by hand.
    """
    found: dict[str, tuple[int, ...]] = {}
    handles = []

    def note(site: str, module: nn.Module) -> None:
        channel = cast(film.FiLM, module.film).channel_dim

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            sizes = list(output.shape[1:])
            sizes.pop(channel - 1 if channel > 0 else channel)
            found[site] = tuple(sizes)

        handles.append(module.register_forward_hook(hook))

    training = {module: module.training for module in network.modules()}
    for site in film.sites(network):
        note(site, network.get_submodule(site))
    try:
        with film.exclusive(network), torch.no_grad():
            network.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, was in training.items():
            module.training = was
    if missed := film.sites(network).keys() - found.keys():
        raise MetafilmError(
            f"can't see the map of site {min(missed)!r}, whose module is not called by itself; give its "
            "sizes by hand"
        )
    return found
