"""The user's own pictures: of any form and size, and dark on light where weights know light on dark."""

from metafilm.learner.pictures.polarity import complaint, ground, mismatched, trained_ground
from metafilm.learner.pictures.recipe import INVERT, Recipe, preprocess

__all__ = ["INVERT", "Recipe", "complaint", "ground", "mismatched", "preprocess", "trained_ground"]
