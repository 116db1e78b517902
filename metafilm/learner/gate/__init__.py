"""The gate: how far a task adapts, chosen by evidence that the steps have not seen; often, not at all."""

from metafilm.learner.gate.choice import choose
from metafilm.learner.gate.gate import Gate, Move, require_classes
from metafilm.learner.gate.held_out import HeldOut, leave_one_out
from metafilm.learner.gate.report import Candidate, Report

__all__ = ["Candidate", "Gate", "HeldOut", "Move", "Report", "choose", "leave_one_out", "require_classes"]
