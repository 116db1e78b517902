"""Condition networks: what all of them share, from the vector c to the deviations of every site.

Whatever tells of an example (a question, a class, a time, a support set) is read to a vector c, decoded per
site into what modulates it, and scaled by a learned post-multiplier that starts at zero (TADAM: Oreshkin et
al., NeurIPS 2018, arXiv:1805.10123, section 3). The multiplier is zero and the decoder is not: the start is
the exact identity, and gradients flow. That every gain is ``1 + δγ`` matters: a class-conditional batch norm
without the 1 is a known way to a network that never trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from metafilm import film
from metafilm.conditioning.decoders import DECODERS, CodebookDecoder
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict

MODULATIONS = {
    "film": "gain and bias: (1 + δγ) F + δβ",
    "gain": "gain alone: (1 + δγ) F",
    "shift": "bias alone: F + δβ; behind a convolution the same as concatenating c to its input, as maps",
    "gated": "a gain between 0 and 2: 2 σ(γ) F",
    "bounded": "the same and a bias: 2 σ(γ) F + δβ",
    "raw": "gain and bias as they come, without the 1: γ F + β; no identity at the start",
}
"""How a site is modulated, by name.

``gated`` is the gated attention of Chaplot et al. (AAAI 2018, arXiv:1706.07230), whose gain is σ(γ); the 2,
which the next layer's weights may hold as well, makes its start the identity. A 1×1 convolution of
``[F, c]``, c repeated over the map, is ``W_F F + W_c c``: a bias deviation that is linear in c, which is what
``shift`` with the linear decoder gives; a larger kernel differs at the border alone, where c is padded too.
``raw`` is what deviations from the identity are compared with: its multiplier starts at 1, its gains near 0.
"""

WITH_BIAS = ("film", "shift", "bounded", "raw")


class ConditionNetwork(nn.Module):
    """A network that reads a condition: its ``encode`` gives c ``[B, width]``, and :meth:`decode` deviations.

    Made by inheriting from it: build the layers that read, then call :meth:`generate`.
    """

    kind = "condition network"  # as errors call it

    def generate(
        self,
        sites: Mapping[str, int],
        width: int,
        decoder: str = "linear",
        scale: str = "site",
        codes: int = 8,
        modulation: str = "film",
        maps: Mapping[str, tuple[int, ...]] | None = None,
        start: float | None = None,
    ) -> None:
        """Make the layers from c to the deviations.

        Args:
            sites: site name -> features C (:func:`metafilm.film.sites`).
            width: size of c.
            decoder: one of :data:`DECODERS`.
            scale: one post-multiplier per ``site`` and kind (TADAM) or per ``feature`` (CNAPs).
            codes: how many sets of deviations the codebook mixes.
            modulation: one of :data:`MODULATIONS`.
            maps: site name -> sizes of its map, ``(H, W)`` or ``(L,)``
                (:func:`metafilm.conditioning.map_sizes`): there the gain also depends on the place,
                ``1 + α_h + β_w + δγ_c`` (Rupprecht et al., "Guide Me", CVPR 2018, arXiv:1803.11544).
            start: where the post-multipliers start; None: at 0, the identity (``raw``: at 1). Where the
                network can do nothing until it listens, as with questions about a picture, a start at the
                identity may last for ever: there √6, with a linear decoder, has the deviations begin at
                random with size about 1, as FiLM's authors have it (Kaiming's uniform initialisation).

        Raises:
            MetafilmError: no sites, no codes, an unknown decoder, scale or modulation, or maps of something
                that is no site or has no gain.
        """
        if not sites:
            raise MetafilmError(
                f"a {self.kind} needs at least one FiLM site; put some in with film.insert (film.sites of a "
                "configuration), or use no encoder"
            )
        one_of(self.kind, "decoder", decoder, DECODERS)
        one_of(self.kind, "scale", scale, ("site", "feature"))
        one_of(self.kind, "modulation", modulation, MODULATIONS)
        maps = dict(maps or {})
        if maps.keys() - sites.keys() or (maps and modulation == "shift"):
            raise MetafilmError(
                f"maps of {', '.join(maps)} with modulation {modulation!r} and the sites {', '.join(sites)}; "
                "give maps for sites alone, and a modulation with a gain"
            )
        self.modulation, self.scale = modulation, scale
        self.names: list[str] = []  # the deviations, in the decoder's order; one that varies comes repeatedly
        self.sizes: list[int] = []
        for site, features in sites.items():
            gain, shift = film.names(site)
            if modulation != "shift":
                self._piece(gain, features)
            if modulation in WITH_BIAS:
                self._piece(shift, features)
            for size in maps.get(site, ()):
                self._piece(gain, size)
        more = {"codes": codes} if DECODERS[decoder] is CodebookDecoder else {}
        self.decoder = DECODERS[decoder](width, self.sizes, **more)
        multipliers = len(self.sizes) if scale == "site" else sum(self.sizes)
        first = float(modulation == "raw") if start is None else float(start)
        self.multiplier = nn.Parameter(torch.full((multipliers,), first))
        self.register_buffer("owner", torch.repeat_interleave(torch.tensor(self.sizes)), persistent=False)

    owner: Tensor

    def _piece(self, name: str, size: int) -> None:
        self.names.append(name)
        self.sizes.append(size)

    def decode(self, code: Tensor) -> FilmDict:
        """c ``[B, width]`` -> deviations, ``[B, C]`` each, or ``[B, C, H, W]``, ``[B, C, L]``."""
        raw = self.decoder(code)
        multiplier = self.multiplier[self.owner] if self.scale == "site" else self.multiplier
        parts: dict[str, list[Tensor]] = {}
        for name, value in zip(self.names, (raw * multiplier).split(self.sizes, -1), strict=True):
            parts.setdefault(name, []).append(value)
        found = {name: over_map(*values) for name, values in parts.items()}
        gains = [name for name in found if name.endswith(film.GAIN)]
        if self.modulation in ("gated", "bounded"):
            found |= {name: torch.tanh(found[name] / 2) for name in gains}  # 2 σ(v) - 1
        elif self.modulation == "raw":
            found |= {name: found[name] - 1 for name in gains}
        return found


def over_map(channels: Tensor, *axes: Tensor) -> Tensor:
    """``[B, C]`` and for every axis of the map a value per place, ``[B, H]``, ``[B, W]`` -> their sum,
    ``[B, C, H, W]``; without axes ``[B, C]``."""
    total = channels.reshape(*channels.shape, *[1] * len(axes))
    for number, axis in enumerate(axes):
        shape = [len(axis), *[1] * (len(axes) + 1)]
        shape[2 + number] = axis.shape[1]
        total = total + axis.view(shape)
    return total


def one_of(kind: str, what: str, value: str, allowed: Iterable[str]) -> None:
    """Raises MetafilmError: the value is none of these."""
    if value not in allowed:
        raise MetafilmError(f"unknown {kind} {what} {value!r}; expected one of {', '.join(allowed)}")
