"""metafilm: few-shot learning where a task is a small set of FiLM deviations."""

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

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "ConstantEncoder",
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
