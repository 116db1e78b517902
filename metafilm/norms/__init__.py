"""Normalisation whose statistics are chosen by name.

Which images a normalisation layer's mean and variance come from decides what a few-shot accuracy means, so it
is a setting of its own (Bronskill et al., TaskNorm, ICML 2020, arXiv:2003.03284):

======================  ===========================================  ==================================
mode                    training                                     evaluation
======================  ===========================================  ==================================
``running``             the task's images in this forward pass       running averages
``support``             the task's support images                    the task's support images
``group``               each image alone (group normalisation)       each image alone
``transductive``        the task's images in this forward pass       the same: queries see each other
======================  ===========================================  ==================================

In every mode the tasks of a batch don't see each other. Running averages move only when :func:`commit` is
called, by the mean over the tasks recorded since, so they don't depend on how a meta-batch was cut into
chunks. An adapted task keeps the statistics of its support, where the mode uses them; given those by
:func:`metafilm.film.call`, a layer normalises by them instead of by the images of the pass.
"""

from metafilm.norms.network import convert, foreign, mode_of, plain
from metafilm.norms.norm import MODES, Measured, Norm
from metafilm.norms.recording import commit, discard, share
from metafilm.norms.rows import Layout, layout

__all__ = [
    "MODES",
    "Layout",
    "Measured",
    "Norm",
    "commit",
    "convert",
    "discard",
    "foreign",
    "layout",
    "mode_of",
    "plain",
    "share",
]
