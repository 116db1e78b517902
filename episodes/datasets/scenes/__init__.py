"""Made scenes with words about them, for networks that a phrase or a question conditions."""

from episodes.datasets.scenes import phrased_shapes, sort_of_clevr, tone_scenes, tones

__all__ = ["phrased_shapes", "sort_of_clevr", "tone_scenes", "tones"]
