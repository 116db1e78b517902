"""How well a learner does: accuracy by stage of adaptation, with intervals; what its probabilities mean."""

from metafilm.evaluation.calibration import area, calibration_error, fit_temperature, reliability
from metafilm.evaluation.centring import centre
from metafilm.evaluation.intervals import interval
from metafilm.evaluation.judgements import Judgements, calibrated, judge
from metafilm.evaluation.overlap import overlap
from metafilm.evaluation.scoring import ENCODER_SUPPORT, TOGETHER, evaluate, staged
from metafilm.evaluation.worth import far_enough, farthest

__all__ = [
    "ENCODER_SUPPORT",
    "TOGETHER",
    "Judgements",
    "area",
    "calibrated",
    "calibration_error",
    "centre",
    "evaluate",
    "far_enough",
    "farthest",
    "fit_temperature",
    "interval",
    "judge",
    "overlap",
    "reliability",
    "staged",
]
