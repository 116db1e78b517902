"""Feature-wise linear modulation as named parameters of any network.

A FiLM layer computes ``FiLM(F) = (1 + δγ) ⊙ F + δβ`` per feature map (Perez et al., AAAI 2018,
arXiv:1709.07871; deviations from the identity after Oreshkin et al., NeurIPS 2018, arXiv:1805.10123).
:func:`insert` gives chosen modules of a network (the *sites*) a child named ``film`` that holds δγ and δβ,
zero by default, and modulates their output. No other name in the network changes, so any checkpoint of the
plain network still loads. A *film dict* maps the full names of those parameters to tensors: ``[C]`` (one
task), ``[T, C]`` (T tasks, or as many examples with a condition each), or ``[T, C, H, W]`` and ``[T, C, L]``
where the deviations vary over the map; :func:`call` runs the network with them, on inputs whose rows stand
one task after the other, or belong to tasks by an index.
"""

from metafilm.film.calling import call, exclusive, only
from metafilm.film.folding import fold, remove
from metafilm.film.insertion import LAST, SITES, insert, names, parameters, sites, undisturbed, widths, zeros
from metafilm.film.layer import BIAS, GAIN, FiLM, FilmDict, modulate
from metafilm.film.recomputing import refuse_recomputation

__all__ = [
    "BIAS",
    "GAIN",
    "LAST",
    "SITES",
    "FiLM",
    "FilmDict",
    "call",
    "exclusive",
    "fold",
    "insert",
    "modulate",
    "names",
    "only",
    "parameters",
    "refuse_recomputation",
    "remove",
    "sites",
    "undisturbed",
    "widths",
    "zeros",
]
