"""The sections of a run's configuration, every field documented once: the text below it is what
`metafilm train --help` shows.
"""

from metafilm.config.settings.data import REGRESSION_DATA, Data, Episodes
from metafilm.config.settings.loops import Evaluation, Inner, Outer, Rates, Tracking
from metafilm.config.settings.network import Backbone, Encoder, Film, Head
from metafilm.config.settings.pretrain import Pretrain

__all__ = [
    "REGRESSION_DATA",
    "Backbone",
    "Data",
    "Encoder",
    "Episodes",
    "Evaluation",
    "Film",
    "Head",
    "Inner",
    "Outer",
    "Pretrain",
    "Rates",
    "Tracking",
]
