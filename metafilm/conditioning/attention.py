"""Dual attention: the words of an instruction choose places, the instruction chooses features.

Chaplot, Lee, Salakhutdinov, Parikh and Batra ("Embodied multimodal multitask learning", IJCAI 2020,
arXiv:1902.01385) give a network one channel per word. The channels of an instruction's words, summed and
soft-maxed, are a map of where to look; gated by the sentence, the features there are what the network goes on
with. Unlike FiLM it reads the features that it modulates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metafilm import film
from metafilm.conditioning.sequence import SequenceEncoder
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict


class DualAttention(SequenceEncoder):
    """Words and the features of one site -> a gain for every feature and place of it.

    Its gain is a share of attention times a gate, so unlike all other condition networks it doesn't start at
    the identity: with words it has not learned to tell apart every place gets ``1 / (H·W)``.

    Args:
        vocabulary: how many words there are, with 0, which stands for no word.
        sites: the one site -> its features, as many as the vocabulary: feature i is word i's.
        embedding: size of a word's vector.
        width: size of the sentence's state.

    Raises:
        MetafilmError: other than one site, or of another number of features.
    """

    kind = "dual attention"

    def __init__(self, vocabulary: int, sites: dict[str, int], embedding: int = 32, width: int = 128) -> None:
        if list(sites.values()) != [vocabulary]:
            raise MetafilmError(
                f"dual attention over a vocabulary of {vocabulary} has a feature per word, at one site; "
                f"the sites given: {sites}"
            )
        super().__init__(vocabulary, sites, embedding, width, modulation="gated")
        self.site = next(iter(sites))
        """The site whose features it reads (:class:`metafilm.conditioning.Conditioned` hands them in)."""

    def forward(self, words: Tensor, features: Tensor) -> FilmDict:  # type: ignore[override]
        """``[B, L]`` int64 and what the site puts out at δ = 0, ``[B, vocabulary, ...]`` -> the gain's
        deviations, of the features' shape. Raises MetafilmError: features of other shapes."""
        if features.dim() < 3 or features.shape[:2] != (len(words), self.embedding.num_embeddings):
            raise MetafilmError(
                f"the site's features have shape {tuple(features.shape)}, expected "
                f"({len(words)}, {self.embedding.num_embeddings}, H, W), the words' second"
            )
        gate = (1 + self.decode(self.encode(words))[film.names(self.site)[0]]) / 2  # σ, [B, vocabulary]
        said = torch.zeros(gate.shape, dtype=features.dtype, device=features.device).scatter(1, words, 1.0)
        said[:, 0] = 0  # no word has no place
        scores = torch.einsum("bc,bc...->b...", said, features)
        places = scores.flatten(1).softmax(1).view_as(scores).unsqueeze(1)  # [B, 1, H, W]
        gain = places * gate.view(*gate.shape, *[1] * (features.dim() - 2))
        return {film.names(self.site)[0]: gain - 1}
