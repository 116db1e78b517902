"""Many trainings for one answer: a search of settings, and what each setting is worth."""

from metafilm.laboratory.ablation import Ablation
from metafilm.laboratory.answers import answers, figure, tables
from metafilm.laboratory.arms import QUESTIONS, Arm, Question
from metafilm.laboratory.drawing import write_svg
from metafilm.laboratory.job import Base, Job, jobs
from metafilm.laboratory.outcome import conclude, importance
from metafilm.laboratory.space import Choice, Range, Space, default_space, parse_space
from metafilm.laboratory.study import PRUNERS, SAMPLERS, Plan, StudyFolder, space_of
from metafilm.laboratory.sweep import sweep

__all__ = [
    "PRUNERS",
    "QUESTIONS",
    "SAMPLERS",
    "Ablation",
    "Arm",
    "Base",
    "Choice",
    "Job",
    "Plan",
    "Question",
    "Range",
    "Space",
    "StudyFolder",
    "answers",
    "conclude",
    "default_space",
    "figure",
    "importance",
    "jobs",
    "parse_space",
    "space_of",
    "sweep",
    "tables",
    "write_svg",
]
