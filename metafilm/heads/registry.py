"""The heads by name: command line, configuration and docs read this mapping and no other."""

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head
from metafilm.heads.linear import LinearHead, RegressionHead
from metafilm.heads.prototype import CosineHead, PrototypeHead
from metafilm.heads.ridge import RidgeHead

HEADS: dict[str, type[Head]] = {
    "prototype": PrototypeHead,
    "cosine": CosineHead,
    "linear": LinearHead,
    "ridge": RidgeHead,
    "regression": RegressionHead,
}


def build(name: str, in_features: int, ways: int, scale: float | None = None) -> Head:
    """The head of that name.

    Args:
        in_features: D of the features.
        ways: classes of a task, for heads of a fixed number.
        scale: first value of the factor on the logits; None: the head's own.

    Raises:
        MetafilmError: unknown name.
    """
    if name not in HEADS:
        raise MetafilmError(f"unknown head {name!r}; expected one of {', '.join(HEADS)}")
    head = HEADS[name]
    return head.build(in_features, ways, head.first_scale(in_features) if scale is None else scale)
