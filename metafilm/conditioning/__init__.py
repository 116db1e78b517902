"""From what tells of a task or an example to its deviations.

A condition is anything that yields deviations for a network's sites: a support set for a task's, a question,
a class or a time for an example's. All condition networks decode in the same way, by
:class:`ConditionNetwork`, and start at the identity. Your own pair of inputs, here a picture and a question
(docs/conditioning.md)::

    network = film.insert(torchvision.models.resnet18(num_classes=10))
    questions = conditioning.SequenceEncoder(vocabulary=30, sites=film.sites(network))
    model = conditioning.Conditioned(network, questions)
    logits = model(pictures, words)  # [B, 3, H, W] and [B, L] -> [B, 10]
"""

from metafilm.conditioning.attention import DualAttention
from metafilm.conditioning.classes import ClassEncoder, ClassTable
from metafilm.conditioning.condition import MODULATIONS, ConditionNetwork, over_map
from metafilm.conditioning.conditioned import Conditioned, map_sizes, site_output
from metafilm.conditioning.constant import ConstantEncoder, NoCondition
from metafilm.conditioning.decoders import DECODERS
from metafilm.conditioning.sequence import SequenceEncoder
from metafilm.conditioning.spread import class_spread
from metafilm.conditioning.task_encoder import POOLINGS, TaskEncoder
from metafilm.conditioning.vector import VectorEncoder, sinusoid

ENCODERS: dict[str, type[TaskEncoder] | type[ConstantEncoder]] = {
    "support": TaskEncoder,
    "constant": ConstantEncoder,
}
"""The encoders of tasks by name: command line, configuration and docs read this mapping and no other."""

__all__ = [
    "DECODERS",
    "ENCODERS",
    "MODULATIONS",
    "POOLINGS",
    "ClassEncoder",
    "ClassTable",
    "ConditionNetwork",
    "Conditioned",
    "ConstantEncoder",
    "DualAttention",
    "NoCondition",
    "SequenceEncoder",
    "TaskEncoder",
    "VectorEncoder",
    "class_spread",
    "map_sizes",
    "over_map",
    "sinusoid",
    "site_output",
]
