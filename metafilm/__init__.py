"""metafilm: few-shot learning where a task is a small set of FiLM deviations."""

from typing import TYPE_CHECKING, Any

from metafilm import backbones, film, heads, norms
from metafilm.conditioning import ConstantEncoder, TaskEncoder
from metafilm.config import Config, load_config
from metafilm.errors import CheckpointError, ConfigError, MetafilmError, RunError
from metafilm.evaluation import evaluate
from metafilm.learner.gate import Gate
from metafilm.learner.inner_loop import InnerLoop
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.task import Task
from metafilm.serving.bank import TaskBank

__version__ = "0.1.0"  # the only place: the package is built with it

if TYPE_CHECKING:
    from metafilm.classifier import FewShotClassifier

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "ConstantEncoder",
    "FewShotClassifier",
    "Gate",
    "InnerLoop",
    "MetaFiLM",
    "MetafilmError",
    "RunError",
    "Task",
    "TaskBank",
    "TaskEncoder",
    "__version__",
    "backbones",
    "evaluate",
    "film",
    "heads",
    "load_config",
    "norms",
]


def __getattr__(name: str) -> Any:
    """The classifier when it is asked for: scikit-learn takes as long to import as all the rest."""
    if name == "FewShotClassifier":
        from metafilm.classifier import FewShotClassifier

        return FewShotClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
