"""metafilm: few-shot learning where a task is a small set of FiLM deviations."""

from metafilm import backbones, film, heads, norms
from metafilm.config import Config, load_config
from metafilm.errors import CheckpointError, ConfigError, MetafilmError, RunError
from metafilm.evaluation import evaluate
from metafilm.inner_loop import InnerLoop
from metafilm.learner import MetaFiLM
from metafilm.serving import TaskBank
from metafilm.task import Task
from metafilm.task_encoder import TaskEncoder

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "InnerLoop",
    "MetaFiLM",
    "MetafilmError",
    "RunError",
    "Task",
    "TaskBank",
    "TaskEncoder",
    "backbones",
    "evaluate",
    "film",
    "heads",
    "load_config",
    "norms",
]
