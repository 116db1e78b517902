"""What happens to images between pool and episode: augmentation, a task's style, pixels to floats."""

from episodes.transforms import augment, styles
from episodes.transforms.pens import StrokeStyle
from episodes.transforms.pixels import rotate90
from episodes.transforms.protocols import Augment, Transform

__all__ = ["Augment", "StrokeStyle", "Transform", "augment", "rotate90", "styles"]
