"""How well a learner does: accuracy by stage of adaptation, with intervals."""

from metafilm.evaluation.intervals import interval
from metafilm.evaluation.overlap import overlap
from metafilm.evaluation.scoring import ENCODER_SUPPORT, TOGETHER, evaluate, staged

__all__ = ["ENCODER_SUPPORT", "TOGETHER", "evaluate", "interval", "overlap", "staged"]
