"""The heads by name: command line, configuration and docs read this mapping and no other."""

from collections.abc import Iterable

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head
from metafilm.heads.blend import BlendHead
from metafilm.heads.descriptors import DescriptorsHead
from metafilm.heads.linear import LinearHead, RegressionHead
from metafilm.heads.local import LocalHead
from metafilm.heads.logistic import LogisticHead
from metafilm.heads.prototype import CosineHead, PrototypeHead
from metafilm.heads.reconstruction import ReconstructionHead
from metafilm.heads.ridge import RidgeHead
from metafilm.heads.transform import FeatureTransform

HEADS: dict[str, type[Head]] = {
    "prototype": PrototypeHead,
    "cosine": CosineHead,
    "linear": LinearHead,
    "ridge": RidgeHead,
    "logistic": LogisticHead,
    "descriptors": DescriptorsHead,
    "reconstruction": ReconstructionHead,
    "regression": RegressionHead,
}


def build(
    name: str,
    in_features: int,
    ways: int,
    scale: float | None = None,
    transform: Iterable[str] = (),
    cells: int = 1,
    blend: str | None = None,
    blend_weight: float = 0.5,
) -> Head:
    """The head of that name.

    Args:
        in_features: D of the features.
        ways: classes of a task, for heads of a fixed number.
        scale: first value of the factor on the logits; None: the head's own.
        transform: steps on the features in evaluation (:class:`metafilm.heads.FeatureTransform`); none: as
            they are.
        cells: of the maps that the features are, flattened, for heads that compare these.
        blend, blend_weight: a second head by name, and its weight beside the first's
            (:class:`metafilm.heads.BlendHead`); None: the first alone.

    Raises:
        MetafilmError: unknown name, of the head or of a step.
    """
    for kind in (name, blend):
        if kind is not None and kind not in HEADS:
            raise MetafilmError(f"unknown head {kind!r}; expected one of {', '.join(HEADS)}")
    if blend is not None:
        local = any(HEADS[kind].local for kind in (name, blend))
        first, second = (
            build(
                kind,
                in_features // cells if local and not HEADS[kind].local else in_features,
                ways,
                scale if kind == name else None,
                cells=cells,
            )
            for kind in (name, blend)
        )
        blended = BlendHead(first, second, blend_weight)
        if steps := tuple(transform):
            blended.transform = FeatureTransform(steps, blended.whole_size(in_features))
        return blended
    head = HEADS[name]
    first = head.first_scale(in_features) if scale is None else scale
    if issubclass(head, LocalHead):
        made = head.build(in_features, ways, first, cells)
    else:
        made = head.build(in_features, ways, first)
    if steps := tuple(transform):
        made.transform = FeatureTransform(steps, in_features)
    return made
