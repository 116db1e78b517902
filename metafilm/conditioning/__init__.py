"""From what tells of a task to its deviations."""

from metafilm.conditioning.constant import ConstantEncoder
from metafilm.conditioning.decoders import DECODERS
from metafilm.conditioning.spread import class_spread
from metafilm.conditioning.task_encoder import POOLINGS, TaskEncoder

ENCODERS: dict[str, type[TaskEncoder] | type[ConstantEncoder]] = {
    "support": TaskEncoder,
    "constant": ConstantEncoder,
}
"""The encoders by name: command line, configuration and docs read this mapping and no other."""

__all__ = ["DECODERS", "ENCODERS", "POOLINGS", "ConstantEncoder", "TaskEncoder", "class_spread"]
