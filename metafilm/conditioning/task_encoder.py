"""The task encoder: a support set's features and labels in, FiLM deviations out.

Class prototypes at δ = 0 are embedded, pooled over classes (so the order of classes does not matter) to one
vector c per task, and decoded per site into δγ and δβ, each times a learned post-multiplier that starts at
zero (TADAM: Oreshkin et al., NeurIPS 2018, arXiv:1805.10123, section 3). The multiplier is zero and the
decoder is not: the start is the exact identity, and gradients flow. The decoder is linear by default: FiLM's
authors and BigGAN found no gain from more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metafilm import film
from metafilm.conditioning.condition import ConditionNetwork, one_of
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict

POOLINGS = ("mean", "mean-std")


class TaskEncoder(ConditionNetwork):
    """Support set -> deviations for every site.

    Args:
        in_features: size of a prototype (classification) or of a joined (x, y) pair (regression).
        sites: site name -> features C (:func:`metafilm.film.sites`).
        width: size of the task vector c.
        decoder: ``linear``, ``mlp``, ``gru`` or ``codebook``.
        pooling: over classes or pairs: ``mean``, or ``mean-std``, which also tells how far they are apart.
        scale: one post-multiplier per ``site`` and kind (TADAM) or per ``feature`` (CNAPs).
        depth: layers that embed a prototype or pair before pooling (a deep set: Zaheer et al., NeurIPS 2017).
        normalise: layer normalisation of what comes in; off for (x, y) pairs, whose size means something.
        spread: read also how far features vary between and within classes
            (:func:`metafilm.conditioning.class_spread`), which tells what the labels follow.
        modulation: one of :data:`metafilm.conditioning.MODULATIONS`; what it leaves alone is 0.
        codes: how many sets of deviations the codebook mixes.
        domains: of how many domains c is to tell which one a task is of, by a linear classifier ``domain``
            that is trained with the rest (``outer.domain``) and read by nobody else; 0: none.

    Raises:
        MetafilmError: no sites, no codes, or an unknown decoder, pooling or scale.
    """

    kind = "task encoder"
    reads_support = True

    def __init__(
        self,
        in_features: int,
        sites: dict[str, int],
        width: int = 64,
        decoder: str = "linear",
        pooling: str = "mean-std",
        scale: str = "site",
        depth: int = 1,
        normalise: bool = True,
        spread: bool = False,
        codes: int = 8,
        domains: int = 0,
        modulation: str = "film",
    ) -> None:
        super().__init__()
        one_of(self.kind, "pooling", pooling, POOLINGS)
        self.arguments = {
            "in_features": in_features,
            "sites": dict(sites),
            "width": width,
            "decoder": decoder,
            "pooling": pooling,
            "scale": scale,
            "depth": depth,
            "normalise": normalise,
            "spread": spread,
            "codes": codes,
            "domains": domains,
            "modulation": modulation,
        }
        self.pooling = pooling
        self.norm = nn.LayerNorm(in_features) if normalise else nn.Identity()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(in_features if i == 0 else width, width), nn.ReLU()]
        self.embed = nn.Sequential(*layers)
        self.join = nn.Linear(width * ((2 if pooling == "mean-std" else 1) + spread), width)
        self.generate(sites, width, decoder, scale, codes, modulation)
        self.deviations = {name: size for site, size in sites.items() for name in film.names(site)}
        self.spread = nn.Linear(2 * in_features, width) if spread else None
        self.domain = nn.Linear(width, domains) if domains else None

    def encode(self, members: Tensor, spread: Tensor | None = None) -> Tensor:
        """``[T, M, in_features]``, in any order of the M members, and with ``spread`` also ``[T,
        2·in_features]`` -> c ``[T, width]``."""
        h = self.embed(self.norm(members))
        pooled = h.mean(1)
        if self.pooling == "mean-std":
            # the small constant keeps the square root's gradient finite when all members agree
            pooled = torch.cat((pooled, (h.var(1, correction=0) + 1e-6).sqrt()), -1)
        if self.spread is not None:
            if spread is None:
                raise MetafilmError("this task encoder reads the classes' spread too; give it")
            pooled = torch.cat((pooled, torch.relu(self.spread(spread))), -1)
        return torch.relu(self.join(pooled))

    def decode(self, code: Tensor) -> FilmDict:
        """c ``[T, width]`` -> every deviation of every site, ``[T, C]`` each."""
        found = super().decode(code)
        # a modulation without bias, or without gain, leaves some at 0
        return {
            name: found[name] if name in found else code.new_zeros(len(code), size)
            for name, size in self.deviations.items()
        }

    def forward(self, members: Tensor, spread: Tensor | None = None) -> FilmDict:
        """``[T, M, in_features]`` prototypes or pairs -> deviations, ``[T, C]`` each."""
        return self.decode(self.encode(members, spread))
